//! What the run says of the optimizer of each parameter: its weight decay, and whether it mixes elements.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// The optimizers that decay a parameter by itself, apart from its gradient.
const DECOUPLED: [&str; 3] = ["AdamW", "Adafactor", "Muon"];

/// The optimizers of which a step of one element follows the gradients of all, computed in bfloat16.
const MIXES: [&str; 1] = ["Muon"];

/// What is known of the optimizers of a run.
#[derive(Default)]
pub(super) struct Optimizers {
    by_parameter: HashMap<String, OfParameter>,
    /// That of the parameters which no group names.
    of_others: OfParameter,
}

/// What is known of the optimizer of a parameter.
#[derive(Clone, Debug, Default)]
pub(super) struct OfParameter {
    /// The factors of the parameter that are added to its gradient, over the steps; negative where a gradient is
    /// ascended.
    pub(super) decays: Vec<f64>,
    /// Whether a step of one element follows the gradients of all.
    pub(super) mixes: bool,
}

impl OfParameter {
    /// Returns the largest magnitude of a factor of the parameter that is added to its gradient.
    pub(super) fn largest_decay(&self) -> f64 {
        self.decays.iter().map(|decay| decay.abs()).fold(0., f64::max)
    }
}

impl Optimizers {
    pub(super) fn of(run: Option<&Value>) -> Optimizers {
        let mut optimizers = Optimizers::default();
        let several = run.and_then(|run| run.get("optimizers")?.as_object());
        let all = run.and_then(|run| run.get("optimizer"));
        for optimizer in all.into_iter().chain(several.into_iter().flat_map(Map::values)) {
            optimizers.add(optimizer);
        }
        optimizers
    }

    pub(super) fn of_parameter(&self, name: &str) -> &OfParameter {
        self.by_parameter.get(name).unwrap_or(&self.of_others)
    }

    fn add(&mut self, optimizer: &Value) {
        let list =
            |name| optimizer.get(name).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        let groups = list("groups");
        if groups.is_empty() {
            self.of_others = of_group(optimizer, &Value::Null, list("changes"), 0);
        }
        for (at, group) in groups.iter().enumerate() {
            let of_group = of_group(optimizer, group, list("changes"), at);
            let names = group.get("parameters").and_then(Value::as_array);
            for name in names.into_iter().flatten().filter_map(Value::as_str) {
                self.by_parameter.insert(name.to_owned(), of_group.clone());
            }
        }
    }
}

/// Returns what is known of a group: its own values come before those of the optimizer.
fn of_group(optimizer: &Value, group: &Value, changes: &[Value], at: usize) -> OfParameter {
    let value = |name: &str| group.get(name).or_else(|| optimizer.get(name));
    let is = |name: &str| value(name).and_then(Value::as_bool) == Some(true);
    let name = optimizer.get("name").and_then(Value::as_str).unwrap_or_default();
    let mixes = MIXES.contains(&name);
    if DECOUPLED.contains(&name) || is("decoupled_weight_decay") {
        return OfParameter { decays: Vec::new(), mixes };
    }
    let sign = if is("maximize") { -1. } else { 1. };
    let changed = changes.iter().filter(|change| change.get("group") == Some(&at.into()));
    let changed = changed.filter_map(|change| change.get("weight_decay"));
    let mut decays = Vec::new();
    for decay in value("weight_decay").into_iter().chain(changed).filter_map(Value::as_f64) {
        // A file can list any number of them.
        if !decays.contains(&(sign * decay)) && decays.len() < MAX_DECAYS {
            decays.push(sign * decay);
        }
    }
    OfParameter { decays, mixes }
}

/// The most values of weight decay that are tried, which a schedule may change.
const MAX_DECAYS: usize = 16;

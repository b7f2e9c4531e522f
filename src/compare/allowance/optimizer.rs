//! How far a parameter may be from the expected one after a step of the optimizer.

use std::collections::HashMap;

use serde_json::Value;

use super::numbers::elements;
use super::place::after;
use crate::compare::tolerance::NOISE;
use crate::trace::{Trace, in_step};

/// The most values of weight decay that are tried, since a file can list any number of them.
const MAX_DECAYS: usize = 16;

/// The steps of two runs, of which the gradients that were judged right are known.
pub(super) struct Steps<'a> {
    actual: &'a Trace,
    expected: &'a Trace,
    noise: HashMap<&'a str, Noise>,
    /// The values of weight decay in the expected run, and 0.
    decays: Vec<f64>,
    /// For each step, the longest step of an element of any parameter.
    longest: HashMap<u32, f64>,
}

/// The noise in the gradients of a parameter, over the steps so far.
#[derive(Default)]
struct Noise {
    steps: u32,
    /// Of each element, the part of a step that may be noise, from 0 to 1.
    parts: Vec<f64>,
}

/// The elements of a parameter after a step, which may differ as much as is allowed to each.
pub(super) struct Bounds {
    /// Whether all elements differ within their bounds.
    pub(super) hold: bool,
    /// The bound of the element that comes nearest to its own, or exceeds it most.
    pub(super) nearest: f64,
}

impl<'a> Steps<'a> {
    pub(super) fn new(actual: &'a Trace, expected: &'a Trace) -> Steps<'a> {
        let mut decays = vec![0.];
        if let Some(run) = expected.run_json() {
            collect_decays(&run, &mut decays);
        }
        Steps { actual, expected, noise: HashMap::new(), decays, longest: HashMap::new() }
    }

    /// Compares a parameter after step `step`, element by element.
    ///
    /// Each may differ by as much as it did before the step, by rounding, and by the part of the step that follows
    /// the noise of its gradients. `right` says whether a tensor was judged right.
    pub(super) fn bounds(
        &mut self,
        name: &'a str,
        step: u32,
        scaled: f64,
        right: impl Fn(&str) -> bool,
    ) -> Option<Bounds> {
        let both = |full: &str| Some((self.actual.get(full)?, self.expected.get(full)?));
        let full = after(step, "param", name);
        let before = after(step - 1, "param", name);
        let (a, e) = both(&full)?;
        let e_before = elements(&self.expected.get(&before)?).collect::<Vec<_>>();
        let known = right(&before);
        // A port need not record what it starts from.
        let a_before = match self.actual.get(&before) {
            Some(view) if known && view.shape() == e.shape() => elements(&view).collect(),
            _ => e_before.clone(),
        };
        self.learn(name, step, &right);
        let longest = self.longest(step);
        let noise = &self.noise[name];
        let (a, e) = (elements(&a).collect::<Vec<_>>(), elements(&e).collect::<Vec<_>>());
        let length = |after: &[f64], before: &[f64]| {
            after.iter().zip(before).map(|(a, b)| (a - b).abs()).fold(0., f64::max)
        };
        let steps = length(&e, &e_before) + length(&a, &a_before);
        let moved = steps.min(2. * longest);
        let rounding = scaled * e.iter().map(|x| x.abs()).fold(0., f64::max);
        let mut nearest = (f64::NEG_INFINITY, 0.);
        let mut hold = true;
        for i in 0..e.len() {
            if a[i] == e[i] || a[i].is_nan() && e[i].is_nan() {
                continue;
            }
            let found = (a[i] - e[i]).abs();
            let base = (a_before[i] - e_before[i]).abs() + rounding;
            let bound = base + moved * noise.parts.get(i).unwrap_or(&0.);
            hold &= found <= bound;
            if found.is_finite() && found - bound > nearest.0 {
                nearest = (found - bound, bound);
            }
        }
        Some(Bounds { hold, nearest: nearest.1 })
    }

    /// Takes in the gradients up to `step` that were judged right, as the optimizer took them if both sides say so.
    fn learn(&mut self, name: &'a str, step: u32, right: impl Fn(&str) -> bool) {
        let noise = self.noise.entry(name).or_default();
        let decay = self.decays.iter().copied().fold(0., f64::max);
        for k in noise.steps + 1..=step {
            let both = |full: &str| {
                right(full).then(|| self.actual.get(full).zip(self.expected.get(full))).flatten()
            };
            let gradients = ["taken", "grad"]
                .iter()
                .find_map(|section| both(&in_step(k, &format!("{section}/{name}"))));
            let Some((a, e)) = gradients else { continue };
            let before = after(k - 1, "param", name);
            let expected = self.expected.get(&before);
            let parameters = expected.iter().flat_map(elements);
            let actual = both(&before).map(|(actual, _)| actual).or(expected.clone());
            let differ = actual.iter().flat_map(elements).zip(expected.iter().flat_map(elements));
            let differ = differ.map(|(a, e)| (a - e).abs());
            let gradients = elements(&a).zip(elements(&e));
            let all = gradients.zip(parameters.zip(differ)).enumerate();
            for (i, ((a, e), (parameter, drift))) in all {
                // Weight decay can cancel the gradient. What the step follows is then as small as their sum.
                let sums = self.decays.iter().map(|decay| (e + decay * parameter).abs());
                let size = sums.fold(f64::INFINITY, f64::min);
                let part = match (a - e).abs() + decay * drift {
                    0. => 0.,
                    noise => (NOISE * noise / size).min(1.),
                };
                match noise.parts.get_mut(i) {
                    Some(known) => *known = known.max(part),
                    None => noise.parts.push(part),
                }
            }
        }
        noise.steps = step;
    }

    /// Returns the longest expected step of an element of any parameter.
    fn longest(&mut self, step: u32) -> f64 {
        let expected = self.expected;
        *self.longest.entry(step).or_insert_with(|| {
            let parameters = expected.names().filter_map(|name| name.strip_prefix("param/"));
            let lengths = parameters.filter_map(|name| {
                let before = expected.get(&after(step - 1, "param", name))?;
                let after = expected.get(&after(step, "param", name))?;
                let moved = elements(&after).zip(elements(&before)).map(|(a, b)| (a - b).abs());
                Some(moved.filter(|x| x.is_finite()).fold(0., f64::max))
            });
            lengths.fold(0., f64::max)
        })
    }
}

/// Adds the values that are named `weight_decay`, wherever in a run they are.
fn collect_decays(run: &Value, decays: &mut Vec<f64>) {
    let below: &mut dyn Iterator<Item = &Value> = match run {
        Value::Object(fields) => {
            if let Some(decay) = fields.get("weight_decay").and_then(Value::as_f64)
                && !decays.contains(&decay)
                && decays.len() < MAX_DECAYS
            {
                decays.push(decay);
            }
            &mut fields.values()
        }
        Value::Array(values) => &mut values.iter(),
        _ => return,
    };
    below.for_each(|value| collect_decays(value, decays));
}

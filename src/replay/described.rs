//! What a case says of its program: how the recorded tensors are named in the graph.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, bail, ensure};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::case::Case;
use crate::optim::RecordedOptimizer;
use crate::program::Program;
use crate::trace::{in_step, split_call, split_step};

/// What a case says of its program and of its optimizers.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) steps: u32,
    /// The names of the recorded tensors that the program takes, in its order, such as `input/x`.
    pub(super) inputs: Vec<String>,
    /// The names of parameters and buffers that are another one.
    pub(super) tied: HashMap<String, String>,
    /// The recorded outputs of modules, each with the call of the module and the name of the value in the graph.
    pub(super) values: IndexMap<String, (String, String)>,
    pub(super) optimizers: Vec<RecordedOptimizer>,
    /// The parameters whose gradients a step adds to those of earlier steps, by the step.
    kept: HashMap<u32, HashSet<String>>,
    /// The steps in which each optimizer takes one; without it, all do in each.
    stepped: Option<Vec<Vec<u32>>>,
    /// The arguments that are no tensors, by the names that they have in a case.
    arguments: Map<String, Value>,
}

/// The part of `run` that is read here.
#[derive(Deserialize)]
struct Run {
    steps: u32,
    program: Names,
    optimizer: Option<RecordedOptimizer>,
    #[serde(default)]
    optimizers: IndexMap<String, RecordedOptimizer>,
    #[serde(default)]
    values: Map<String, Value>,
}

#[derive(Deserialize)]
struct Names {
    inputs: Vec<Option<String>>,
    tied: HashMap<String, String>,
    values: IndexMap<String, (String, String)>,
    #[serde(default)]
    kept: HashMap<u32, HashSet<String>>,
    stepped: Option<Vec<Vec<u32>>>,
}

impl Described {
    pub(super) fn of(case: &Case) -> Result<Described> {
        let run = case.trace.run::<Run>()?.context("no metadata that says what was run")?;
        let inputs = run.program.inputs.into_iter().map(|name| {
            name.context("the program takes a tensor that is no argument of the model's call")
        });
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        for step in 1..=run.steps {
            let second = in_step(step, "forward/output@2");
            ensure!(
                !case.trace.contains(&second),
                "step {step} calls the model several times, which is not replayed"
            );
            let taken = inputs.iter().find(|name| !case.trace.contains(&in_step(step, name)));
            if let Some(missing) = taken {
                bail!("{} is missing, which the program takes", in_step(step, missing));
            }
        }
        let optimizers = run.optimizer.into_iter().chain(run.optimizers.into_values()).collect();
        let Names { tied, values, kept, stepped, .. } = run.program;
        for steps in stepped.iter().flatten() {
            let twice = steps.windows(2).find(|pair| pair[0] == pair[1]);
            if let Some(twice) = twice {
                bail!(
                    "an optimizer takes several steps in step {}, which is not replayed",
                    twice[0]
                );
            }
        }
        let (steps, arguments) = (run.steps, run.values);
        Ok(Described { steps, inputs, tied, values, optimizers, kept, stepped, arguments })
    }

    /// Returns whether a step adds to the gradient that a parameter has of earlier steps.
    pub(super) fn keeps(&self, step: u32, parameter: &str) -> bool {
        self.kept.get(&step).is_some_and(|kept| kept.contains(parameter))
    }

    /// Returns whether the n-th optimizer takes a step in a step of the run.
    pub(super) fn steps_in(&self, step: u32, optimizer: usize) -> bool {
        let stepped = self.stepped.as_ref().and_then(|stepped| stepped.get(optimizer));
        stepped.is_none_or(|steps| steps.contains(&step))
    }

    /// Lists the recorded outputs of the model, without their section.
    pub(super) fn outputs(&self) -> impl Iterator<Item = &str> {
        let names = self.values.keys().filter_map(|name| name.strip_prefix("forward/"));
        names.filter(|name| is_output(name))
    }

    /// Lists the recorded outputs of the model, and whether another one is computed from it: its gradient then comes
    /// from within the model.
    pub(super) fn computed_from(&self, program: &Program) -> Vec<(String, bool)> {
        let outputs = self.outputs().map(str::to_owned).collect::<Vec<_>>();
        let values = outputs.iter().map(|name| &*self.values[&format!("forward/{name}")].1);
        let others = program.read_by_others(&values.collect::<Vec<_>>());
        outputs.into_iter().zip(others).collect()
    }

    /// Checks that a step was computed with the arguments that the program was exported with.
    pub(super) fn ensure_same_arguments(&self, step: u32) -> Result<()> {
        for (full, value) in &self.arguments {
            let (of_step, name) = split_step(full).unwrap_or(("1", full));
            let Some(first) = self.arguments.get(name) else { continue };
            ensure!(
                of_step.parse() != Ok(step) || value == first || !name.starts_with("input/"),
                "{full} is {value}, and the program was exported with {first}"
            );
        }
        Ok(())
    }

    /// Lists what the program does not compute, with the reasons, as a recorder writes them.
    pub(super) fn not_computed(&self, case: &Case) -> Vec<String> {
        let mut lines = IndexMap::<String, &str>::new();
        for full in case.trace.names() {
            let (step, name) = split_step(full).map_or((None, full), |(k, name)| (Some(k), name));
            let forward = name.strip_prefix("forward/");
            let of_output = name.strip_prefix("grad/").map(|output| format!("forward/{output}"));
            let is_mapped = |name: &str| self.values.contains_key(name);
            let is_recorded = |name: &str| case.trace.contains(name);
            if name.starts_with("taken/") {
                lines.insert(name.to_owned(), "the replay takes it from the case");
            } else if forward.is_some_and(|output| split_call(output).0 == "L") {
                lines.insert(name.to_owned(), "the loss is computed outside of the program");
            } else if step.is_some() && split_call(name).0 == "L" {
                lines.insert(format!("step/{name}"), "the loss is computed outside of the program");
            } else if forward.is_some() && !is_mapped(name)
                || of_output.is_some_and(|output| is_recorded(&output) && !is_mapped(&output))
            {
                let why = "the program does not say which of its values it is";
                lines.insert(name.to_owned(), why);
            }
        }
        lines.into_iter().map(|(name, why)| format!("{name}: {why}")).collect()
    }
}

/// Returns whether a name such as `output[0]` is that of an output of the model.
pub(super) fn is_output(name: &str) -> bool {
    split_call(name).0 == "output"
}

/// Returns the name under which a case has a parameter or a buffer of PyTorch's name: characters that mean something in
/// a name are escaped, and a word of the format has a dot before it.
pub(super) fn recorded_name(name: &str) -> String {
    if name == "output" || name == "L" {
        return format!(".{name}");
    }
    let escaped = |c: char| match c {
        '/' | '@' | '[' | ']' | '%' => format!("%{:02X}", u32::from(c)),
        other => other.into(),
    };
    name.chars().map(escaped).collect()
}

//! What a case says of its program: how the recorded tensors are named in the graph.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, bail, ensure};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::autocast::{Autocasts, WrittenAutocast};
use crate::case::Case;
use crate::optim::RecordedOptimizer;
use crate::program::nested::escaped;
use crate::torch::Autocast;
use crate::trace::{in_step, split_call, split_step};

/// What a case says of its programs and of its optimizers.
#[derive(Debug)]
pub(super) struct Described {
    pub(super) steps: u32,
    /// The programs; calls of other sizes, with other arguments or in another mode have one of their own.
    pub(super) programs: Vec<Names>,
    /// The number of the program of each call of the model, by the step; without an entry it is one call of the first.
    calls: HashMap<u32, Vec<usize>>,
    /// The calls of each backward pass, counted from 1, by the step; without an entry one pass begins at all.
    backwards: HashMap<u32, Vec<Vec<usize>>>,
    /// The calls that were made without gradients, counted from 1, by the step.
    without_gradients: HashMap<u32, Vec<usize>>,
    /// Where the steps are within autocast, beside its state in each program.
    pub(super) autocasts: Box<Autocasts>,
    /// The names of parameters and buffers that are another one.
    pub(super) tied: HashMap<String, String>,
    pub(super) optimizers: Vec<RecordedOptimizer>,
    /// The parameters whose gradients a step adds to those of earlier steps, by the step.
    kept: HashMap<u32, HashSet<String>>,
    /// The steps in which each optimizer takes one; without it, all do in each.
    stepped: Option<Vec<Vec<u32>>>,
    /// The arguments that are no tensors, by the names that they have in a case.
    arguments: Map<String, Value>,
}

/// How the recorded tensors of one program are named.
#[derive(Debug)]
pub(super) struct Names {
    /// The names of the recorded tensors that the program takes, in its order, such as `input/x`.
    pub(super) inputs: Vec<String>,
    /// The recorded outputs of modules, each with the call of the module and the name of the value in the graph.
    pub(super) values: IndexMap<String, (String, String)>,
    /// How many times it calls each module, where that is not once.
    counts: HashMap<String, usize>,
    /// Whether it was exported in `train()`, if the case says it.
    pub(super) training: Option<bool>,
    /// The state of autocast in which it was called, if that was on.
    pub(super) autocast: Option<Autocast>,
}

/// A call of the model in a step.
#[derive(Debug)]
pub(super) struct Call {
    /// The number, counted from 1.
    pub(super) number: usize,
    /// The number of the program, counted from 0.
    pub(super) program: usize,
    /// How many times the calls before it in the step have called each module, where that is not once for each of them.
    before: HashMap<String, usize>,
}

impl Call {
    /// Returns the name of an input, of an operator's value, or of an output of the model in this call.
    pub(super) fn name(&self, name: &str) -> String {
        in_call(name, self.number - 1)
    }

    /// Returns the name of what a module returns in this call, such as `fc1` or `fc1@2[0]`.
    pub(super) fn output(&self, name: &str) -> String {
        let before = self.before.get(split_call(name).0);
        in_call(name, before.copied().unwrap_or(self.number - 1))
    }
}

/// The part of `run` that is read here.
#[derive(Deserialize)]
struct Run {
    steps: u32,
    program: Programs,
    optimizer: Option<RecordedOptimizer>,
    #[serde(default)]
    optimizers: IndexMap<String, RecordedOptimizer>,
    #[serde(default)]
    values: Map<String, Value>,
}

#[derive(Deserialize)]
struct Programs {
    #[serde(flatten)]
    first: Written,
    #[serde(default)]
    more: Vec<Written>,
    #[serde(default)]
    calls: HashMap<u32, Vec<usize>>,
    #[serde(default)]
    backwards: HashMap<u32, Vec<Vec<usize>>>,
    #[serde(default)]
    without_gradients: HashMap<u32, Vec<usize>>,
    #[serde(default)]
    in_one_autocast: HashMap<u32, Vec<usize>>,
    #[serde(default)]
    backwards_in_autocast: HashMap<u32, Vec<Option<WrittenAutocast>>>,
    tied: HashMap<String, String>,
    #[serde(default)]
    kept: HashMap<u32, HashSet<String>>,
    stepped: Option<Vec<Vec<u32>>>,
}

#[derive(Deserialize)]
struct Written {
    inputs: Vec<Option<String>>,
    values: IndexMap<String, (String, String)>,
    #[serde(default)]
    counts: HashMap<String, usize>,
    training: Option<bool>,
    autocast: Option<WrittenAutocast>,
}

impl Written {
    fn read(self) -> Result<Names> {
        let Written { inputs, values, counts, training, autocast } = self;
        let named = |name: Option<String>| {
            name.context("the program takes a tensor that is no argument of the model's call")
        };
        let inputs = inputs.into_iter().map(named).collect::<Result<_>>()?;
        let autocast = autocast.map(WrittenAutocast::read).transpose()?;
        Ok(Names { inputs, values, counts, training, autocast })
    }
}

impl Described {
    pub(super) fn of(case: &Case) -> Result<Described> {
        let run = case.trace.run::<Run>()?.context("no metadata that says what was run")?;
        let optimizers = run.optimizer.into_iter().chain(run.optimizers.into_values()).collect();
        let Programs {
            first, more, calls, backwards, without_gradients, tied, kept, stepped, ..
        } = run.program;
        let autocasts =
            Autocasts::read(run.program.in_one_autocast, run.program.backwards_in_autocast)?;
        let programs = [first].into_iter().chain(more).map(Written::read);
        let programs = programs.collect::<Result<Vec<_>>>()?;
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
        let described = Described {
            steps,
            programs,
            calls,
            backwards,
            without_gradients,
            autocasts: autocasts.into(),
            tied,
            optimizers,
            kept,
            stepped,
            arguments,
        };
        for step in 1..=steps {
            let calls = described.calls(step)?;
            for call in &calls {
                let inputs = described.programs[call.program].inputs.iter();
                let mut names = inputs.map(|name| in_step(step, &call.name(name)));
                if let Some(missing) = names.find(|name| !case.trace.contains(name)) {
                    bail!("{missing} is missing, which the program takes");
                }
            }
            let further = in_step(step, &in_call("forward/output", calls.len()));
            ensure!(
                !case.trace.names().any(|name| name.starts_with(&further)),
                "step {step} calls the model several times, which the case does not describe: record it again"
            );
        }
        Ok(described)
    }

    /// Returns the numbers of the program of `train()` and of that of `eval()`, if these two are all.
    pub(super) fn of_modes(&self) -> Option<(usize, usize)> {
        match [self.programs.first()?.training?, self.programs.get(1)?.training?] {
            _ if self.programs.len() > 2 => None,
            [true, false] => Some((0, 1)),
            [false, true] => Some((1, 0)),
            _ => None,
        }
    }

    /// Returns the calls of the model in a step.
    ///
    /// # Errors
    /// Returns an error if one is that of a program that is not there.
    pub(super) fn calls(&self, step: u32) -> Result<Vec<Call>> {
        let once = || vec![0];
        let numbers = self.calls.get(&step).cloned().unwrap_or_else(once);
        let mut before = HashMap::<String, usize>::new();
        let mut calls = Vec::new();
        for (at, program) in numbers.into_iter().enumerate() {
            let names = self.programs.get(program);
            let names = names.with_context(|| format!("step {step} has no program {program}"))?;
            calls.push(Call { number: at + 1, program, before: before.clone() });
            for (module, count) in &names.counts {
                before.entry(module.clone()).or_insert(at);
                before
                    .entry(module.clone())
                    .and_modify(|known| *known = known.saturating_add(*count));
            }
            for (module, known) in &mut before {
                if !names.counts.contains_key(module) {
                    *known = known.saturating_add(1);
                }
            }
        }
        Ok(calls)
    }

    /// Returns the calls of each backward pass of a step, counted from 1, in the order of the passes.
    pub(super) fn backwards(&self, step: u32, calls: usize) -> Vec<Vec<usize>> {
        let one = || vec![(1..=calls).collect()];
        self.backwards.get(&step).cloned().unwrap_or_else(one)
    }

    /// Returns whether a call of the model was made where gradients are on.
    pub(super) fn has_gradients(&self, step: u32, call: &Call) -> bool {
        !self.without_gradients.get(&step).is_some_and(|calls| calls.contains(&call.number))
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

    /// Checks that a call was computed with the arguments that its program was exported with.
    pub(super) fn ensure_same_arguments(&self, step: u32) -> Result<()> {
        if self.programs.len() > 1 {
            return Ok(()); // each call has the program of its arguments
        }
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

    /// Lists the tensors that whoever takes the recorded steps computes: the outputs of the model with their gradients,
    /// and the gradients of parameters and inputs.
    ///
    /// # Errors
    /// Returns an error if a step calls a program that is not there.
    pub(super) fn computed(&self, case: &Case) -> Result<HashSet<String>> {
        let mut outputs = HashSet::new();
        for step in 1..=self.steps {
            for call in self.calls(step)? {
                let names = self.programs[call.program].outputs();
                outputs.extend(names.map(|name| in_step(step, &call.output(name))));
            }
        }
        let is_computed = |full: &&str| {
            let (step, name) = split_step(full).unwrap_or(("1", full));
            let of_output = |output| match step {
                "1" => outputs.contains(output),
                _ => outputs.contains(&format!("step/{step}/{output}")),
            };
            let Some(of) = name.strip_prefix("grad/") else {
                return name.strip_prefix("forward/").is_some_and(of_output);
            };
            // A sparse gradient is two tensors, such as `grad/fc.weight[values]`.
            let leaf = of.split('[').next().unwrap_or(of);
            of.starts_with("input/")
                || of_output(of)
                || case.trace.contains(&format!("param/{leaf}"))
        };
        Ok(case.trace.names().filter(is_computed).map(str::to_owned).collect())
    }

    /// Lists what the program does not compute, with the reasons, as a recorder writes them.
    pub(super) fn not_computed(&self, case: &Case) -> Result<Vec<String>> {
        let mut mapped = HashSet::new();
        for step in 1..=self.steps {
            for call in self.calls(step)? {
                let values = self.programs[call.program].values.keys();
                let outputs = values.filter_map(|name| name.strip_prefix("forward/"));
                mapped.extend(outputs.map(|name| format!("forward/{}", call.output(name))));
            }
        }
        let mut lines = IndexMap::<String, &str>::new();
        for full in case.trace.names() {
            let (step, name) = split_step(full).map_or((None, full), |(k, name)| (Some(k), name));
            let forward = name.strip_prefix("forward/");
            let of_output = name.strip_prefix("grad/").map(|output| format!("forward/{output}"));
            let is_mapped = |name: &str| mapped.contains(name);
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
        Ok(lines.into_iter().map(|(name, why)| format!("{name}: {why}")).collect())
    }
}

impl Names {
    /// Lists the recorded outputs of the model, without their section.
    pub(super) fn outputs(&self) -> impl Iterator<Item = &str> {
        let names = self.values.keys().filter_map(|name| name.strip_prefix("forward/"));
        names.filter(|name| is_output(name))
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
    escaped(name)
}

/// Returns PyTorch's name for a parameter or a buffer, of [the one that a case has](recorded_name).
pub(super) fn name_of_recorded(recorded: &str) -> String {
    let mut name = String::new();
    let mut rest = recorded.strip_prefix('.').unwrap_or(recorded);
    while let Some((before, after)) = rest.split_once('%') {
        name += before;
        let code = after.get(..2).and_then(|code| u8::from_str_radix(code, 16).ok());
        match code {
            Some(code) => name.push(code.into()),
            None => name.push('%'),
        }
        rest = if code.is_some() { &after[2..] } else { after };
    }
    name + rest
}

/// Returns the name of an input, of an output or of an operator's value in a later call of the model: `x[0]` is `x@2[0]`
/// in the second one. A name that has the number of a call already, as that of a module that is called several times
/// within the model, is counted on from `before` calls.
fn in_call(name: &str, before: usize) -> String {
    if before == 0 {
        return name.to_owned();
    }
    let (module, rest) = split_call(name);
    let (number, rest) = match rest.strip_prefix('@') {
        Some(rest) => rest.split_at(rest.find('[').unwrap_or(rest.len())),
        None => ("1", rest),
    };
    match number.parse::<usize>() {
        Ok(number) => format!("{module}@{}{rest}", number.saturating_add(before)),
        Err(_) => name.to_owned(),
    }
}

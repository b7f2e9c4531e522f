//! A recorded run of any model: what a port starts from, what it is compared with, and the port's own recorder.
//!
//! This room knows traces, comparisons, reports and libtorch. It does not know any model, so nothing in it can
//! run a case.

mod parity;
mod recorder;

use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value};
use tch::nn::VarStore;
use tch::{Device, Tensor};

use crate::torch::{
    ensure_dense, is_apart, is_copied_into, set, set_rng_state, share_memory, span,
};
use crate::trace::case_name::{IMAG, REAL, RNG};
use crate::trace::{Environment, Names, Trace, in_step};
pub use parity::{Parity, assert_parity};
pub use recorder::Recorder;

/// A recorded run: what the Python package `tch_parity` recorded of a model (`docs/format.md`), or
/// [`train`](crate::train) of the notebook's.
#[derive(Debug)]
pub struct Case {
    /// The tensors of the run.
    pub trace: Trace,
    /// The environment in which it was run.
    pub environment: Environment,
}

impl Case {
    /// Reads a case file, and the checkpoint that it refers to, if it refers to one.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is not a case, and if the checkpoint is missing or is not the one
    /// that was recorded.
    pub fn load(path: impl AsRef<Path>) -> Result<Case> {
        let path = path.as_ref();
        let mut trace = Trace::load(path)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        trace.load_checkpoint(folder).with_context(|| path.display().to_string())?;
        Case::new(trace).with_context(|| format!("{} is not a case", path.display()))
    }

    /// Creates a case from a trace.
    ///
    /// # Errors
    /// Returns an error if the metadata of the trace does not say what was run and where, or has other keys.
    pub fn new(trace: Trace) -> Result<Case> {
        if let Some(key) = trace.foreign_keys().first() {
            bail!("its metadata has the key {key:?}, which a case does not have");
        }
        ensure!(trace.run_json().is_some(), "no metadata that says what was run");
        let environment = trace.environment()?.context("no metadata that says where it was run")?;
        ensure!(
            trace.environment::<Map<String, Value>>().is_ok(),
            "its environment is not a JSON object"
        );
        Ok(Case { trace, environment })
    }

    /// Renames the tensors to a port's names.
    ///
    /// # Errors
    /// Returns an error if two tensors would have the same name, or if a rule matches none.
    pub fn renamed(self, names: &Names) -> Result<Case> {
        Ok(Case { trace: self.trace.renamed(names)?, ..self })
    }

    /// Returns an input of step `step`, counted from 1, on the CPU, with the strides that it had. Its name is that of
    /// an argument of the model's `forward`, or `target`. One of complex128, which a file holds as two tensors, is one.
    ///
    /// # Errors
    /// Returns an error if the step has no such input. The message lists the inputs that it has.
    pub fn input(&self, step: u32, name: &str) -> Result<Tensor> {
        let section = in_step(step, "input/");
        let full = format!("{section}{name}");
        if !self.trace.contains_parts(&full) {
            let there = self.trace.names().filter_map(|name| name.strip_prefix(&section));
            bail!(
                "no {full} in this case, whose inputs of that step are {:?}",
                there.collect::<Vec<_>>()
            );
        }
        self.trace.tensor_of_parts(&full, Device::Cpu)
    }

    /// Returns an argument of step `step`, counted from 1, that is no tensor, such as a number, a string or `None`.
    /// Floats that JSON does not have are the strings `NaN`, `Infinity` and `-Infinity`.
    ///
    /// # Errors
    /// Returns an error if the step has no such argument. The message lists the arguments that it has.
    pub fn argument(&self, step: u32, name: &str) -> Result<Value> {
        let section = in_step(step, "input/");
        let full = format!("{section}{name}");
        let run = self.trace.run_json().unwrap_or_default();
        let values = run.get("values").and_then(Value::as_object);
        let value = values.and_then(|values| values.get(&full));
        let missing = || {
            let there = values.into_iter().flat_map(|values| values.keys());
            let there = there.filter_map(|name| name.strip_prefix(&section)).collect::<Vec<_>>();
            let is_tensor = if self.trace.contains_parts(&full) {
                "it is a tensor, for Case::input; "
            } else {
                ""
            };
            format!("no argument {full} in this case: {is_tensor}that step's are {there:?}")
        };
        Ok(value.with_context(missing)?.clone())
    }

    /// Sets libtorch's generators of random numbers to their states at the model's first call in step `step`, counted
    /// from 1, so that the port draws the same numbers, for example in dropout. It does nothing if the step drew none.
    ///
    /// # Errors
    /// Returns an error if the case has no such step, if the state is not one of libtorch's generator, or if it is that
    /// of a GPU which is not here.
    pub fn restore_rng(&self, step: u32) -> Result<()> {
        self.restore_rng_of_call(step, 1)
    }

    /// Does what [`restore_rng`](Self::restore_rng) does, for a call of the model in the step, counted from 1.
    ///
    /// # Errors
    /// Returns the errors of [`restore_rng`](Self::restore_rng).
    pub fn restore_rng_of_call(&self, step: u32, call: usize) -> Result<()> {
        let steps = self.trace.run_json().and_then(|run| run.get("steps")?.as_u64());
        if let Some(steps) = steps {
            ensure!(
                (1..=steps).contains(&step.into()),
                "no step {step} in this case, which has steps 1 to {steps}"
            );
        }
        self.restore_rng_if_there(step, call)
    }

    /// Does what [`restore_rng_of_call`](Self::restore_rng_of_call) does, without asking whether there is such a step.
    pub(crate) fn restore_rng_if_there(&self, step: u32, call: usize) -> Result<()> {
        for (name, device) in RNG.into_iter().zip([Device::Cpu, Device::Cuda(0)]) {
            let of_call = if call == 1 { name.to_owned() } else { format!("{name}@{call}") };
            let full = in_step(step, &of_call);
            if self.trace.contains(&full) {
                let state = self.trace.tensor(&full)?;
                set_rng_state(&state, device).with_context(|| full)?;
            }
        }
        Ok(())
    }

    /// Lists the variables of `vs` that are parameters of the case, in the order of `named_parameters()` in Python. An
    /// optimizer that is built from them has PyTorch's order.
    pub fn named_parameters(&self, vs: &VarStore) -> Vec<(String, Tensor)> {
        let mut variables = vs.variables();
        let names = self.trace.names().filter_map(parameter);
        names.filter_map(|name| variables.remove_entry(name)).collect()
    }

    /// Sets every variable of `vs` to the recorded initial parameter or buffer of its name, with the recorded
    /// strides. A variable that is a slice of a larger tensor keeps its own strides. Another one whose strides are not
    /// the recorded ones is given new memory: a view of it that was made before, such as `w.tr()`, stays what it was.
    ///
    /// Buffers that `vs` does not have are left out, since ports keep fewer of them. They lack
    /// `num_batches_tracked`, for example.
    ///
    /// # Errors
    /// Nothing is set, and the message names every variable that the case does not have, every parameter
    /// that `vs` does not have, every one of another shape or dtype, every one that is expanded, and those that
    /// share memory without being one parameter.
    pub fn load_parameters(&self, vs: &VarStore) -> Result<()> {
        let variables = vs.variables();
        let recorded = |name: &str| {
            let sections = [format!("param/{name}"), format!("buffer/{name}")];
            sections.into_iter().find(|full| self.trace.contains_parts(full))
        };
        let mut wrong = Vec::new();
        let mut sorted = variables.iter().collect::<Vec<_>>();
        sorted.sort_by_key(|(name, _)| *name);
        let mut values = Vec::new();
        let mut places = Vec::<(&str, usize, Range<usize>)>::new();
        for (name, variable) in sorted {
            let Some(full) = recorded(name) else {
                wrong.push(format!("{name} is not in the case"));
                continue;
            };
            ensure_dense(variable).with_context(|| name.clone())?;
            let value = self.trace.tensor_of_parts(&full, variable.device())?;
            let (kind, size) = (variable.f_kind()?, variable.size());
            if !is_apart(variable) {
                wrong.push(format!("{name} is expanded here, so it cannot be set"));
            } else if variable.f_internal_is_zerotensor()? {
                wrong.push(format!("{name} is a zero tensor here, so it cannot be set"));
            } else if value.numel() > 0 {
                places.push((name, values.len(), span(variable)?));
            }
            if value.size() != size {
                wrong.push(format!("{name} is {:?} in the case, and {size:?} here", value.size()));
            } else if value.f_kind()? != kind {
                wrong.push(format!(
                    "{name} is {:?} in the case, and {kind:?} here",
                    value.f_kind()?
                ));
            }
            values.push((variable, value));
        }
        places.sort_by_key(|(_, _, place)| (place.start, place.end));
        // Tied variables are one place in memory, and have to have one value.
        let one = |a: &str, b: &str| {
            let [a, b] = [a, b].map(|name| recorded(name).and_then(|full| self.trace.get(&full)));
            a.zip(b).is_some_and(|(a, b)| a.data() == b.data())
        };
        let later = |(i, _): (usize, &(&str, usize, Range<usize>))| i + 1;
        let overlapping = places.iter().enumerate().flat_map(|first| {
            let within =
                move |second: &&(&str, usize, Range<usize>)| second.2.start < first.1.2.end;
            places[later(first)..].iter().take_while(within).map(move |second| (first.1, second))
        });
        for ((a, at, first), (b, next, second)) in overlapping {
            if first != second && !share_memory(values[*at].0, values[*next].0)? {
                continue; // slices of one tensor
            }
            let [one_of, other] = [&values[*at], &values[*next]];
            let copied = [one_of, other].iter().all(|(into, value)| is_copied_into(into, value));
            let alike = one_of.1.size() == other.1.size() && one_of.1.stride() == other.1.stride();
            if !(first == second && one(a, b) && (copied || alike)) {
                wrong.push(format!(
                    "{a} and {b} share memory here, and are not one parameter in the case"
                ));
            } else if !copied {
                values[*next].1 = values[*at].1.shallow_clone(); // and they stay in one place
            }
        }
        for name in self.trace.names().filter_map(parameter) {
            if !variables.contains_key(name) {
                wrong.push(format!("{name} is not in the VarStore"));
            }
        }
        ensure!(wrong.is_empty(), "the parameters do not fit the case: {}", wrong.join("; "));
        tch::no_grad(|| values.iter().try_for_each(|(variable, value)| set(variable, value)))
    }
}

/// Returns the name of an initial parameter, whose imaginary part is none of its own.
fn parameter(full: &str) -> Option<&str> {
    let name = full.strip_prefix("param/").filter(|name| !name.ends_with(IMAG))?;
    Some(name.strip_suffix(REAL).unwrap_or(name))
}

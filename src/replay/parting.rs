//! Where a port parts from the program of its case: the first operator whose result it does not compute.
//!
//! A port is free to compute by other operators than the program, and names none of its values. So a value is known by
//! its bits: the port computes it if any operator of PyTorch returns them, whoever calls that operator.

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::{Context, Result, bail};
use tch::{Device, Tensor};

use super::described::{Described, recorded_name};
use super::running::Running;
use crate::case::{Case, Recorder};
use crate::compare::{Criterion, compare};
use crate::program::{Computed, Precision, Program};
use crate::torch::{Gradient, Output, hash_of};
use crate::trace::{Trace, split_step};

/// The hashes of what operators return to a port.
#[derive(Default)]
pub(super) struct Seen {
    /// Those of its forward pass.
    forward: HashSet<u64>,
    /// Those of what follows: a backward pass can compute what a forward pass lacks.
    after: HashSet<u64>,
    is_forward: bool,
}

impl Seen {
    /// Takes what an operator returns.
    pub(super) fn take(&mut self, tensor: &Tensor) {
        let seen = if self.is_forward { &mut self.forward } else { &mut self.after };
        seen.extend(hash_of(tensor));
    }

    /// Says that a forward pass begins or ends.
    pub(super) fn enter(&mut self, is_forward: bool) {
        self.is_forward = is_forward;
    }
}

/// What a program computes, by the names of the values in its graph.
pub(super) struct Watched {
    /// The tensor by which the two part.
    differs: String,
    /// Whether the two part in the backward pass.
    in_backward: bool,
    /// The hashes of the values, or of their gradients.
    hashes: HashMap<String, u64>,
    /// The values whose gradients are asked for.
    outputs: Vec<(String, Output)>,
}

impl Watched {
    /// Starts to watch what leads to the tensor by which a port is known to part from the program. Returns `None` if
    /// that is no output, no gradient and nothing that a step leaves, such as a buffer, or if it is a gradient and
    /// [`watch`](crate::torch::watch) does not see the backward pass on this device.
    pub(super) fn new(differs: &str, device: Device) -> Option<Watched> {
        let name = split_step(differs).map_or(differs, |(_, name)| name);
        let in_backward = name.starts_with("grad/");
        let is_seen = !in_backward || device == Device::Cpu;
        let is_known = ["grad/", "forward/", "step/"].iter().any(|of| differs.contains(of));
        let (hashes, outputs) = Default::default();
        let differs = differs.to_owned();
        (is_seen && is_known).then_some(Watched { differs, in_backward, hashes, outputs })
    }

    /// Takes a value as an operator returns it.
    ///
    /// # Errors
    /// Returns an error if autograd does not keep its gradient.
    pub(super) fn take(&mut self, value: &str, tensor: &Tensor) -> Result<()> {
        if !self.in_backward {
            self.hashes.extend(hash_of(tensor).map(|hash| (value.to_owned(), hash)));
        } else if tensor.requires_grad() {
            self.outputs.push((value.to_owned(), Output::new(tensor)?));
        }
        Ok(())
    }

    /// Returns in words which operator of the program computes the first value that a port did not compute, or whose
    /// backward computes the first such gradient; that of a buffer is the last that takes it.
    ///
    /// # Errors
    /// Returns libtorch's errors.
    pub(super) fn parting(mut self, program: &Program, port: &Seen) -> Result<Option<String>> {
        for (value, output) in &self.outputs {
            if let Gradient::Known(gradient) = output.gradient()? {
                self.hashes.extend(hash_of(&gradient).map(|hash| (value.clone(), hash)));
            }
        }
        let of_port = if self.in_backward { &port.after } else { &port.forward };
        let is_lacking =
            |value: &str| self.hashes.get(value).is_some_and(|hash| !of_port.contains(hash));
        let name = split_step(&self.differs).map_or(&*self.differs, |(_, name)| name);
        let is_it = |own: &str| recorded_name(own) == name.strip_prefix("grad/").unwrap_or(name);
        Ok(if self.in_backward {
            let first = first_gradient(program, is_lacking);
            first.or_else(|| program.backward_to_parameters(is_it))
        } else if name.starts_with("forward/") {
            first_value(program, is_lacking)
        } else {
            let mut buffers = program.last_of_buffers().into_iter();
            buffers.find(|(own, _)| is_it(own)).map(|(_, computed)| computed.operator)
        })
    }
}

/// What is said where an output differs, and the port computes all that the program does.
const RETURNS: &str = "what the port returns: it computes every value that the program does";

/// Says what to look at where a tensor differs, if no operator is known to compute something else.
pub(super) fn or_returned(operation: Option<String>, differs: &str) -> Option<String> {
    let name = split_step(differs).map_or(differs, |(_, name)| name);
    operation.or_else(|| name.starts_with("forward/").then(|| RETURNS.to_owned()))
}

/// Says where a port fails, if that is before it computes what an operator of the program does.
pub(super) fn failed_before(operation: &str) -> String {
    format!("the port fails before it computes what the program does next: look at {operation}")
}

/// Runs the `forward` of a port. tch's own layers panic where an operator fails; the error is what they say.
///
/// # Errors
/// Returns the error of `forward`, or what it panics with.
pub(super) fn caught<T>(forward: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(forward)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("forward");
        // What tch says goes on with PyTorch's C++ backtrace, in which lines end with an escape.
        let line = text.lines().next().and_then(|line| line.split("\\n").next());
        bail!("panicked: {}", line.unwrap_or_default())
    })
}

/// Returns the first tensor that a port computes otherwise than the recorded run, or that it lacks and [has to
/// have](Trace::is_asked), in the order of execution; and its step.
pub(super) fn first_difference(port: &Trace, case: &Trace) -> Option<(String, u32)> {
    let is_same = |name: &str| match (port.get(name), case.get(name)) {
        (Some(ours), Some(theirs)) => ours.data() == theirs.data(),
        _ => port.digest(name).zip(case.digest(name)).is_some_and(|(a, b)| a.is_same(&b)),
    };
    let is_judged = |name: &str| port.contains(name) || port.is_asked(name);
    // Most ports are right, and are not compared twice.
    if case.names().filter(|name| is_judged(name)).all(is_same) {
        return None;
    }
    let comparison = compare(port, case, Criterion::Bitwise);
    let tensors = comparison.in_order_of_execution();
    let first = tensors.iter().find(|tensor| !tensor.passes && is_judged(&tensor.name))?;
    let step = split_step(&first.name).map_or(Ok(1), |(step, _)| step.parse());
    Some((first.name.clone(), step.ok()?))
}

/// Returns where a port parts from the program of a case in a step, as [`Watched::parting`] does. `differs` is the
/// tensor by which they are known to part, and `device` that on which the port computed.
///
/// # Errors
/// Returns an error if the program cannot be run.
pub(super) fn parting(
    case: &Case,
    described: &Described,
    step: u32,
    differs: &str,
    device: Device,
    port: &Seen,
) -> Result<Option<String>> {
    let Some(mut watched) = Watched::new(differs, device) else { return Ok(None) };
    let all = |program: &Program| program.computed_values().into_iter().collect();
    let mut running = Running::start(case, described, device, Precision::Own, all)?;
    for at in 1..=step {
        running.step(at, &Recorder::new(), &mut |_, value, tensor| match at == step {
            true => watched.take(value, tensor),
            false => Ok(()),
        })?;
    }
    let calls = described.calls(step)?;
    let call = calls.first().context("a step without a call")?;
    watched.parting(&running.programs[call.program].program, port)
}

/// Returns the operator that computes the first value that the port lacks and an output is computed from, such that the
/// port lacks all between the two as well: what it has after it is computed in another way, to the same bits.
fn first_value(program: &Program, is_lacking: impl Fn(&str) -> bool) -> Option<String> {
    let mut leads = program.returned_values().into_iter().collect::<HashSet<_>>();
    // What is written to a storage is in what is read of it afterwards.
    let mut read = leads.iter().map(|value| storage(program, value)).collect::<HashSet<_>>();
    let mut first = None;
    for value in program.computed_values().iter().rev() {
        let computed = program.computed(value)?;
        let is_read = computed.is_in_place() && read.contains(&storage(program, value));
        if !is_lacking(value) || !leads.contains(value) && !is_read {
            continue;
        }
        read.extend(computed.from.iter().map(|value| storage(program, value)));
        leads.extend(computed.from);
        first = Some(computed.operator);
    }
    first
}

/// Returns the value whose storage a value is.
fn storage(program: &Program, value: &str) -> String {
    let mut value = value.to_owned();
    while let Some(computed) = program.computed(&value).filter(Computed::is_alias) {
        let Some(of) = computed.from.into_iter().next() else { break };
        value = of;
    }
    value
}

/// Returns the operators whose backward computes the first gradient that the port lacks and that of a parameter or an
/// input is computed from, such that the port lacks all between the two as well.
fn first_gradient(program: &Program, is_lacking: impl Fn(&str) -> bool) -> Option<String> {
    let values = program.computed_values();
    let is_computed = values.iter().map(String::as_str).collect::<HashSet<_>>();
    let mut leads = HashSet::new();
    let mut first = None;
    for value in values.iter().filter(|value| is_lacking(value)) {
        let from = program.computed(value)?.from;
        // A parameter and an input are computed by no operator.
        let is_end = |value: &String| !is_computed.contains(value.as_str());
        if from.iter().any(|value| is_end(value) || leads.contains(value)) {
            leads.insert(value.clone());
            first = Some(value);
        }
    }
    program.backward_to_value(first?)
}

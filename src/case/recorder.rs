//! The recorder of what a port computes. It uses the same names as the Python package.

use std::cell::RefCell;

use anyhow::{Context, Result, ensure};
use tch::nn::VarStore;
use tch::{Device, Tensor};

use crate::torch::{Gradient, Output};
use crate::trace::case_name::OPERATOR;
use crate::trace::{Environment, Numerics, Trace, in_step};

/// Why there is no gradient, in the words of the Python package.
const OVERWRITTEN: &str =
    "overwritten in place after the module returned it, so that its gradient is another value's";

/// A recorder of the steps of a model that is ported with tch.
///
/// Its methods take it by a shared reference, so that a port's own `forward` can take a `&Recorder` and calls of
/// [`output`](Self::output) can stand in one another.
///
/// ```
/// use tch::nn::{self, OptimizerConfig};
/// use tch::{Device, Kind, Tensor};
/// use tch_parity::Recorder;
///
/// let vs = nn::VarStore::new(Device::Cpu);
/// let fc = nn::linear(vs.root() / "fc", 2, 1, Default::default());
/// let mut opt = nn::Sgd::default().build(&vs, 0.1)?;
/// let rec = Recorder::new();
/// for _ in 0..2 {
///     opt.zero_grad();
///     let loss = rec.output("fc", Tensor::ones([3, 2], (Kind::Float, Device::Cpu)).apply(&fc))?.mean(Kind::Float);
///     loss.backward();
///     rec.gradients(&loss, &vs)?;
///     opt.step();
///     rec.step(&vs)?;
/// }
/// let trace = rec.into_trace();
/// assert!(trace.get("step/2/forward/fc").is_some() && trace.get("grad/fc.weight").is_some());
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Recorder {
    recorded: RefCell<Recorded>,
}

#[derive(Debug)]
struct Recorded {
    trace: Trace,
    /// The number of the current step, counted from 1.
    step: u32,
    /// The outputs of the current step that require a gradient, with their names.
    outputs: Vec<(String, Output)>,
    loss: Option<Tensor>,
    /// What could not be recorded, with the reasons, as the Python package writes them.
    not_recorded: Vec<String>,
    /// The device of the variables.
    device: Device,
}

impl Default for Recorded {
    fn default() -> Recorded {
        let (trace, outputs, not_recorded) = (Trace::new(), Vec::new(), Vec::new());
        Recorded { trace, step: 1, outputs, loss: None, not_recorded, device: Device::Cpu }
    }
}

impl Recorder {
    /// Creates an empty recorder.
    pub fn new() -> Recorder {
        Recorder::default()
    }

    /// Creates an empty recorder of the same run as `case`, of which what is the same is not copied.
    pub(crate) fn beside(case: &Trace) -> Recorder {
        let trace = Trace::beside(case);
        Recorder { recorded: RefCell::new(Recorded { trace, ..Recorded::default() }) }
    }

    /// Records what a module returns, under the module's name in PyTorch, retains its gradient, and returns it.
    ///
    /// The gradient that is recorded is that of the value that the tensor has now, also if it is overwritten in
    /// place afterwards. Autograd does not compute it if the tensor is a view of another one and either of the two
    /// is overwritten. The trace then says so under `not_recorded`.
    ///
    /// # Errors
    /// Returns an error if the name has been used in this step, and libtorch's errors.
    pub fn output(&self, name: &str, tensor: Tensor) -> Result<Tensor> {
        self.tap(name, &tensor)?;
        Ok(tensor)
    }

    /// Records what a module returns, as [`output`](Self::output) does, without taking it.
    ///
    /// # Errors
    /// Returns the errors of [`output`](Self::output).
    pub fn tap(&self, name: &str, tensor: &Tensor) -> Result<()> {
        let mut recorded = self.recorded.borrow_mut();
        recorded.push(&format!("forward/{name}"), tensor)?;
        if tensor.requires_grad() {
            let output = Output::new(tensor).with_context(|| format!("forward/{name}"))?;
            recorded.outputs.push((name.to_owned(), output));
        }
        Ok(())
    }

    /// Records the gradient of a parameter as the optimizer takes it.
    ///
    /// # Errors
    /// Returns an error if it has been recorded in this step, or if a trace keeps no such tensor.
    pub(crate) fn taken(&self, name: &str, gradient: &Tensor) -> Result<()> {
        self.recorded.borrow_mut().push(&format!("taken/{name}"), gradient)
    }

    /// Records the digest of what an operator of a program returns.
    ///
    /// # Errors
    /// Returns an error if the value has been recorded in this step, or if a trace keeps no such tensor.
    pub(crate) fn operator(&self, value: &str, tensor: &Tensor) -> Result<()> {
        let mut recorded = self.recorded.borrow_mut();
        let name = in_step(recorded.step, &format!("{OPERATOR}{value}"));
        recorded.trace.push_digest_of(&name, tensor)
    }

    /// Records the loss, and the gradients of the outputs and of the trainable variables of `vs`. Call it between
    /// `loss.backward()` and the optimizer's step.
    ///
    /// # Errors
    /// Returns an error if there is no gradient, since backward was never run. Nothing is recorded then.
    pub fn gradients(&self, loss: &Tensor, vs: &VarStore) -> Result<()> {
        self.recorded.borrow_mut().device = vs.device();
        self.gradients_of(Some(loss), &sorted(vs))
    }

    /// Records what [`gradients`](Self::gradients) records, of named leaves, and the loss only if it is given.
    pub(crate) fn gradients_of(
        &self,
        loss: Option<&Tensor>,
        leaves: &[(String, Tensor)],
    ) -> Result<()> {
        let mut recorded = self.recorded.borrow_mut();
        let mut gradients = Vec::new();
        let mut overwritten = Vec::new();
        for (name, output) in recorded.outputs.iter().rev() {
            match output.gradient()? {
                Gradient::Known(gradient) => gradients.push((name.clone(), gradient)),
                Gradient::Absent => {}
                Gradient::Overwritten => overwritten.push(format!("grad/{name}: {OVERWRITTEN}")),
            }
        }
        for (name, leaf) in leaves.iter().filter(|(_, leaf)| leaf.requires_grad()) {
            let gradient = leaf.f_grad()?;
            if gradient.defined() {
                gradients.push((name.clone(), gradient));
            }
        }
        ensure!(
            !gradients.is_empty(),
            "no gradient in step {}: backward was never run, or was run from another loss",
            recorded.step
        );
        recorded.outputs.clear();
        if let Some(loss) = loss {
            recorded.push("forward/L", loss)?;
        }
        for (name, gradient) in gradients {
            recorded.push(&format!("grad/{name}"), &gradient)?;
        }
        for line in overwritten {
            if !recorded.not_recorded.contains(&line) {
                recorded.not_recorded.push(line);
            }
        }
        recorded.loss = loss.map(Tensor::f_detach_copy).transpose()?;
        Ok(())
    }

    /// Records the variables of `vs` after the optimizer's step, and begins the next step.
    ///
    /// # Errors
    /// Returns an error if two variables have the same name, and libtorch's errors.
    pub fn step(&self, vs: &VarStore) -> Result<()> {
        self.recorded.borrow_mut().device = vs.device();
        self.step_of(&sorted(vs), |_, _| Ok(()))
    }

    /// Records what [`step`](Self::step) records, of named tensors, and lets `more` add what is there after the step.
    pub(crate) fn step_of(
        &self,
        tensors: &[(String, Tensor)],
        more: impl FnOnce(&mut Trace, u32) -> Result<()>,
    ) -> Result<()> {
        let mut recorded = self.recorded.borrow_mut();
        let step = recorded.step;
        if let Some(loss) = recorded.loss.take() {
            recorded.trace.push(format!("step/{step}/L"), &loss)?;
        }
        for (name, tensor) in tensors {
            recorded.trace.push_parts(&format!("step/{step}/{name}"), tensor)?;
        }
        more(&mut recorded.trace, step)?;
        recorded.outputs.clear();
        recorded.step += 1;
        Ok(())
    }

    /// Records what [`gradients`](Self::gradients) records, and returns all that was recorded. It is for a run in
    /// which no step of an optimizer follows.
    ///
    /// # Errors
    /// Returns the errors of [`gradients`](Self::gradients).
    pub fn finish(self, loss: &Tensor, vs: &VarStore) -> Result<Trace> {
        self.gradients(loss, vs)?;
        Ok(self.into_trace())
    }

    /// Notes why something is not recorded, and where what is recorded is computed.
    pub(crate) fn describe(&self, not_recorded: Vec<String>, device: Device) {
        let mut recorded = self.recorded.borrow_mut();
        recorded.not_recorded.extend(not_recorded);
        recorded.device = device;
    }

    /// Returns all that was recorded, with the environment in which it was. Of the run, the trace says only what could
    /// not be recorded, if there is anything.
    pub fn into_trace(self) -> Trace {
        let Recorded { mut trace, not_recorded, device, .. } = self.recorded.into_inner();
        // A libtorch that does not say what it is leaves the environment unknown, as in any other file.
        let environment = Environment::current(Numerics::in_use(), device).ok();
        trace.describe_port(&not_recorded, environment.as_ref());
        trace
    }
}

impl Recorded {
    fn push(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        self.trace.push_parts(&in_step(self.step, name), tensor)
    }
}

/// Lists the variables in an order that does not change from run to run.
fn sorted(vs: &VarStore) -> Vec<(String, Tensor)> {
    let mut variables = vs.variables().into_iter().collect::<Vec<_>>();
    variables.sort_by(|(a, _), (b, _)| a.cmp(b));
    variables
}

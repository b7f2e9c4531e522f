//! The recorder of what a port computes. It uses the same names as the Python package.

use anyhow::{Context, Result, ensure};
use tch::Tensor;
use tch::nn::VarStore;

use crate::torch::{Gradient, Output};
use crate::trace::Trace;

/// Why there is no gradient, in the words of the Python package.
const OVERWRITTEN: &str =
    "overwritten in place after the module returned it, so that its gradient is another value's";

/// A recorder of the steps of a model that is ported with tch.
///
/// ```
/// use tch::nn::{self, OptimizerConfig};
/// use tch::{Device, Kind, Tensor};
/// use tch_parity::Recorder;
///
/// let vs = nn::VarStore::new(Device::Cpu);
/// let fc = nn::linear(vs.root() / "fc", 2, 1, Default::default());
/// let mut opt = nn::Sgd::default().build(&vs, 0.1)?;
/// let mut rec = Recorder::new();
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
#[derive(Debug)]
pub struct Recorder {
    trace: Trace,
    /// The number of the current step, counted from 1.
    step: u32,
    /// The outputs of the current step that require a gradient, with their names.
    outputs: Vec<(String, Output)>,
    loss: Option<Tensor>,
    /// What could not be recorded, with the reasons, as the Python package writes them.
    not_recorded: Vec<String>,
}

impl Default for Recorder {
    fn default() -> Recorder {
        let (trace, outputs, not_recorded) = (Trace::new(), Vec::new(), Vec::new());
        Recorder { trace, step: 1, outputs, loss: None, not_recorded }
    }
}

impl Recorder {
    /// Creates an empty recorder.
    pub fn new() -> Recorder {
        Recorder::default()
    }

    /// Records what a module returns, under the module's name in PyTorch, retains its gradient, and returns it.
    ///
    /// The gradient that is recorded is that of the value that the tensor has now, also if it is overwritten in
    /// place afterwards. Autograd does not compute it if the tensor is a view of another one and either of the two
    /// is overwritten. The trace then says so under `not_recorded`.
    ///
    /// # Errors
    /// Returns an error if the name has been used in this step, and libtorch's errors.
    pub fn output(&mut self, name: &str, tensor: Tensor) -> Result<Tensor> {
        self.push(&format!("forward/{name}"), &tensor)?;
        if tensor.requires_grad() {
            let output = Output::new(&tensor).with_context(|| format!("forward/{name}"))?;
            self.outputs.push((name.to_owned(), output));
        }
        Ok(tensor)
    }

    /// Records the loss, and the gradients of the outputs and of the trainable variables of `vs`. Call it between
    /// `loss.backward()` and the optimizer's step.
    ///
    /// # Errors
    /// Returns an error if there is no gradient, since backward was never run.
    pub fn gradients(&mut self, loss: &Tensor, vs: &VarStore) -> Result<()> {
        self.push("forward/L", loss)?;
        let outputs = std::mem::take(&mut self.outputs);
        let mut found = false;
        for (name, output) in outputs.into_iter().rev() {
            match output.gradient()? {
                Gradient::Known(gradient) => {
                    self.push(&format!("grad/{name}"), &gradient)?;
                    found = true;
                }
                Gradient::Absent => {}
                Gradient::Overwritten => {
                    let line = format!("grad/{name}: {OVERWRITTEN}");
                    if !self.not_recorded.contains(&line) {
                        self.not_recorded.push(line);
                        self.trace.describe_not_recorded(&self.not_recorded)?;
                    }
                }
            }
        }
        for (name, variable) in sorted(vs).into_iter().filter(|(_, v)| v.requires_grad()) {
            let gradient = variable.f_grad()?;
            if gradient.defined() {
                self.push(&format!("grad/{name}"), &gradient)?;
                found = true;
            }
        }
        ensure!(
            found,
            "no gradient in step {}: backward was never run, or was run from another loss",
            self.step
        );
        self.loss = Some(loss.f_detach_copy()?);
        Ok(())
    }

    /// Records the variables of `vs` after the optimizer's step, and begins the next step.
    ///
    /// # Errors
    /// Returns an error if two variables have the same name, and libtorch's errors.
    pub fn step(&mut self, vs: &VarStore) -> Result<()> {
        if let Some(loss) = self.loss.take() {
            self.trace.push(format!("step/{}/L", self.step), &loss)?;
        }
        for (name, variable) in sorted(vs) {
            self.trace.push(format!("step/{}/{name}", self.step), &variable)?;
        }
        self.outputs.clear();
        self.step += 1;
        Ok(())
    }

    /// Records what [`gradients`](Self::gradients) records, and returns all that was recorded. It is for a run in
    /// which no step of an optimizer follows.
    ///
    /// # Errors
    /// Returns the errors of [`gradients`](Self::gradients).
    pub fn finish(mut self, loss: &Tensor, vs: &VarStore) -> Result<Trace> {
        self.gradients(loss, vs)?;
        Ok(self.trace)
    }

    /// Returns all that was recorded. Of the run, the trace says only what could not be recorded, if there is
    /// anything.
    pub fn into_trace(self) -> Trace {
        self.trace
    }

    fn push(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        match self.step {
            1 => self.trace.push(name, tensor),
            k => self.trace.push(format!("step/{k}/{name}"), tensor),
        }
    }
}

/// Lists the variables in an order that does not change from run to run.
fn sorted(vs: &VarStore) -> Vec<(String, Tensor)> {
    let mut variables = vs.variables().into_iter().collect::<Vec<_>>();
    variables.sort_by(|(a, _), (b, _)| a.cmp(b));
    variables
}

//! The notebook's computation, as a loop: zero_grad, forward, backward, step; every tensor recorded.

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use tch::nn::{self, OptimizerConfig};
use tch::{COptimizer, Reduction, Tensor};

use crate::model::ThreeLayerNet;
use crate::python_float;
use crate::trace::Trace;

/// What is run, apart from the numbers that go in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The net.
    pub model: Model,
    /// The loss between its output and the labels.
    pub loss: Loss,
    /// What steps its parameters.
    pub optimizer: Optimizer,
    /// How often zero_grad, forward, backward and step are repeated.
    pub steps: u32,
}

/// The nets that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Model {
    /// The notebook's.
    ThreeLayerNet,
}

/// The losses that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Loss {
    /// Binary cross entropy, the mean over the batch.
    BCELoss,
}

/// The optimizers that can be run, with the arguments that they have in PyTorch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name")]
#[serde(deny_unknown_fields)]
pub enum Optimizer {
    /// [`torch.optim.SGD`](https://docs.pytorch.org/docs/2.13/generated/torch.optim.SGD.html)
    SGD {
        /// Learning rate.
        #[serde(serialize_with = "as_python_writes_it")]
        lr: f64,
        /// The share of the last step that is repeated.
        #[serde(serialize_with = "as_python_writes_it")]
        momentum: f64,
        /// How much of the gradient does not enter the momentum.
        #[serde(serialize_with = "as_python_writes_it")]
        dampening: f64,
        /// The share of a parameter that is added to its gradient.
        #[serde(serialize_with = "as_python_writes_it")]
        weight_decay: f64,
        /// Nesterov momentum.
        nesterov: bool,
    },
}

/// Both sides write the same bytes for the same numbers.
fn as_python_writes_it<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    let text = RawValue::from_string(python_float::repr(*value));
    text.map_err(serde::ser::Error::custom)?.serialize(serializer)
}

impl Optimizer {
    /// Plain SGD: `p - lr * p.grad`.
    pub fn sgd(lr: f64) -> Optimizer {
        Optimizer::SGD { lr, momentum: 0., dampening: 0., weight_decay: 0., nesterov: false }
    }

    /// With the parameters that the model has now.
    fn build(&self, model: &ThreeLayerNet) -> Result<COptimizer> {
        let Optimizer::SGD { lr, momentum, dampening, weight_decay, nesterov } = *self;
        let mut optimizer = nn::sgd(momentum, dampening, weight_decay, nesterov).build_copt(lr)?;
        for (_, p) in model.named_parameters() {
            optimizer.add_parameters(p, 0)?;
        }
        Ok(optimizer)
    }
}

/// Trains `model` in place on one batch. The trace has, in this order:
///
/// | name | tensors |
/// |---|---|
/// | `input/x`, `input/y` | `[batch, d1]` and `[batch, 1]` |
/// | `param/<name>` | the parameters before the first step |
/// | `forward/<name>` | `x z2 h2 z3 h3 z h` and the loss `L` of the first step |
/// | `grad/<name>` | the gradients after the first backward: of `x z2 h2 z3 h3 z h`, then of each parameter |
/// | `step/<k>/L`, `step/<k>/<name>` | for k from 1: the loss that step k computed, the parameters after it |
///
/// # Errors
/// No steps, or libtorch's own: shapes that do not fit, an `x` that does not require grad, labels or outputs
/// outside [0, 1] (nan, after a step too large), arguments that the optimizer refuses.
pub fn train(model: &ThreeLayerNet, x: &Tensor, y: &Tensor, run: &Run) -> Result<Trace> {
    ensure!(run.steps > 0, "a run of 0 steps");
    let optimizer = run.optimizer.build(model)?;
    let mut trace = Trace::new();
    trace.push("input/x", x)?;
    trace.push("input/y", y)?;
    for (name, p) in model.named_parameters() {
        trace.push(format!("param/{name}"), p)?;
    }
    for k in 1..=run.steps {
        step(model, x, y, &optimizer, k, &mut trace).with_context(|| format!("step {k}"))?;
    }
    Ok(trace)
}

fn step(
    model: &ThreeLayerNet,
    x: &Tensor,
    y: &Tensor,
    optimizer: &COptimizer,
    k: u32,
    trace: &mut Trace,
) -> Result<()> {
    optimizer.zero_grad()?;
    let (y_hat, results) = model.forward(x)?;
    let loss = y_hat.f_binary_cross_entropy(y, None::<Tensor>, Reduction::Mean)?;
    loss.f_backward()?;
    if k == 1 {
        for (name, v) in &results {
            trace.push(format!("forward/{name}"), v)?;
        }
        trace.push("forward/L", &loss)?;
        for (name, v) in &results {
            trace.push(format!("grad/{name}"), &v.f_grad()?)?;
        }
        for (name, p) in model.named_parameters() {
            trace.push(format!("grad/{name}"), &p.f_grad()?)?;
        }
    }
    optimizer.step()?;
    trace.push(format!("step/{k}/L"), &loss)?;
    for (name, p) in model.named_parameters() {
        trace.push(format!("step/{k}/{name}"), p)?;
    }
    Ok(())
}

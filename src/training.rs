//! The notebook's computation, as a loop: zero_grad, forward, backward, step; every tensor recorded.

use anyhow::{Context, Result};
use tch::nn::{OptimizerConfig, Sgd};
use tch::{COptimizer, Reduction, Tensor};

use crate::model::ThreeLayerNet;
use crate::trace::Trace;

/// Trains `model` in place on one batch with BCELoss (mean) and `sgd`, for `steps` steps. The trace
/// has, in this order:
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
/// libtorch's own: shapes that do not fit, an `x` that does not require grad, an output outside
/// [0, 1] (nan, after a step too large), a learning rate that the parameters' dtype cannot hold.
pub fn train(
    model: &ThreeLayerNet,
    x: &Tensor,
    y: &Tensor,
    sgd: Sgd,
    lr: f64,
    steps: u32,
) -> Result<Trace> {
    let mut optimizer = sgd.build_copt(lr)?;
    for (_, p) in model.named_parameters() {
        optimizer.add_parameters(p, 0)?;
    }
    let mut trace = Trace::new();
    trace.push("input/x", x)?;
    trace.push("input/y", y)?;
    for (name, p) in model.named_parameters() {
        trace.push(format!("param/{name}"), p)?;
    }
    for k in 1..=steps {
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

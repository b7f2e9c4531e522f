//! The notebook's cells in a loop, forward, backward and step, with every tensor recorded.

use anyhow::{Context, Result, ensure};
use tch::Tensor;

use super::run::Run;
use super::{ThreeLayerNet, cells};
use crate::optim::AnyOptimizer;
use crate::trace::Trace;

/// Trains `model` in place on one batch, and returns every tensor of the run.
///
/// The trace has the tensors that `docs/format.md` lists, in that order.
///
/// # Errors
/// Returns an error if `run` has no steps, and libtorch's errors: of shapes that do not fit, of an `x` that does
/// not require grad, of labels or outputs outside [0, 1] (such as nan after a step that was too large), and of
/// arguments that the optimizer refuses.
pub fn train(model: &ThreeLayerNet, x: &Tensor, y: &Tensor, run: &Run) -> Result<Trace> {
    ensure!(run.steps > 0, "a run of 0 steps");
    let mut optimizer = run.optimizer.build(model.named_parameters())?;
    let mut trace = Trace::new();
    trace.push("input/x", x)?;
    trace.push("input/y", y)?;
    for (name, p) in model.named_parameters() {
        trace.push(format!("param/{name}"), p)?;
    }
    for k in 1..=run.steps {
        run.optimizer.begin_step(k, &mut *optimizer)?;
        step(model, x, y, &mut *optimizer, k, &mut trace).with_context(|| format!("step {k}"))?;
    }
    Ok(trace)
}

fn step(
    model: &ThreeLayerNet,
    x: &Tensor,
    y: &Tensor,
    optimizer: &mut dyn AnyOptimizer,
    k: u32,
    trace: &mut Trace,
) -> Result<()> {
    let (results, loss) = cells::forward(model, x, y)?;
    cells::backward(optimizer, &loss)?;
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
    cells::step(optimizer, model, x, y)?;
    trace.push(format!("step/{k}/L"), &loss)?;
    for (name, p) in model.named_parameters() {
        trace.push(format!("step/{k}/{name}"), p)?;
    }
    Ok(())
}

//! The tensors that a case of a `ThreeLayerNet` has: their names, their order, their shapes and their dtype.

use anyhow::{Result, bail, ensure};
use safetensors::tensor::Dtype;

use crate::trace::Trace;

pub(super) const PARAMETERS: [&str; 6] =
    ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "fc3.weight", "fc3.bias"];
const INTERMEDIATE: [&str; 7] = ["x", "z2", "h2", "z3", "h3", "z", "h"];

/// Checks that `trace` has exactly the tensors of a case of this many steps.
pub(super) fn validate(trace: &Trace, steps: u32) -> Result<()> {
    let matrix = |name: &str| {
        ensure!(trace.contains(name), "{name} is missing");
        let view = trace.values(name)?;
        let &[rows, columns] = view.shape() else {
            bail!("{name} is of shape {:?}: a matrix is needed", view.shape());
        };
        Ok((rows, columns, view.dtype()))
    };
    let (batch, d1, dtype) = matrix("input/x")?;
    let (d2, d3) = (matrix("param/fc1.weight")?.0, matrix("param/fc2.weight")?.0);
    ensure!(matches!(dtype, Dtype::F32 | Dtype::F64), "input/x is {dtype}: F32 or F64 is needed");
    let extra = trace.ensure_begins_with(dtype, layout(steps, [batch, d1, d2, d3]))?;
    ensure!(extra.is_none(), "{} is not expected in a run of {steps} steps", extra.unwrap_or(""));
    Ok(())
}

/// Lists every tensor of a case in order, with its shape. The list is lazy, since the metadata can claim far more
/// steps than the file holds.
fn layout(
    steps: u32,
    [batch, d1, d2, d3]: [usize; 4],
) -> impl Iterator<Item = (String, Vec<usize>)> {
    let parameters = move |section: String| {
        let shapes = [vec![d2, d1], vec![d2], vec![d3, d2], vec![d3], vec![1, d3], vec![1]];
        PARAMETERS.iter().zip(shapes).map(move |(name, shape)| (format!("{section}/{name}"), shape))
    };
    let intermediate = move |section: &'static str| {
        let columns = INTERMEDIATE.iter().zip([d1, d2, d2, d3, d3, 1, 1]);
        columns.map(move |(name, n)| (format!("{section}/{name}"), vec![batch, n]))
    };
    let inputs = [("input/x".to_owned(), vec![batch, d1]), ("input/y".to_owned(), vec![batch, 1])];
    let loss = |section: String| [(format!("{section}/L"), vec![])];
    let step =
        move |k| loss(format!("step/{k}")).into_iter().chain(parameters(format!("step/{k}")));
    (inputs.into_iter().chain(parameters("param".to_owned())))
        .chain(intermediate("forward").chain(loss("forward".to_owned())))
        .chain(intermediate("grad").chain(parameters("grad".to_owned())))
        .chain((1..=steps).flat_map(step))
}

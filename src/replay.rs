//! A recorded run of the notebook's net: checked when it is read, and replayed from its inputs.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::Dtype;
use tch::{Device, Tensor};

use crate::case::Case;
use crate::compare::{Edge, compare_json};
use crate::linear::Linear;
use crate::model::ThreeLayerNet;
use crate::trace::Trace;
use crate::training::{Run, train};

const PARAMETERS: [&str; 6] =
    ["fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "fc3.weight", "fc3.bias"];
const INTERMEDIATE: [&str; 7] = ["x", "z2", "h2", "z3", "h3", "z", "h"];

/// A recording of [`train`], complete and consistent.
#[derive(Debug)]
pub struct Replay {
    /// What was run.
    pub run: Run,
    /// Every tensor of it, and where it was run.
    pub case: Case,
}

impl Replay {
    /// Reads the file of a case of a `ThreeLayerNet` (`docs/format.md`).
    ///
    /// # Errors
    /// The file cannot be read, or is not such a case: what is missing, extra, misnamed or of another shape
    /// or dtype is named.
    pub fn load(path: impl AsRef<Path>) -> Result<Replay> {
        let path = path.as_ref();
        let case = Case::load(path)?;
        Replay::new(case).with_context(|| {
            format!(
                "{} is not a case of a ThreeLayerNet, which alone can be replayed",
                path.display()
            )
        })
    }

    /// A replay of `case`.
    ///
    /// # Errors
    /// It is not a case of a `ThreeLayerNet`: see [`load`](Self::load).
    pub fn new(case: Case) -> Result<Replay> {
        let run = case.trace.run::<Run>()?.context("no metadata that says what was run")?;
        // JSON can say the same in ways that the format does not have, such as a list for an object.
        let mut other = Vec::new();
        let written = case.trace.run_json().unwrap_or_default();
        compare_json("run", &written, &serde_json::to_value(&run)?, &mut other);
        ensure!(other.is_empty(), "in its metadata {}", other.join("; "));
        validate(&case.trace, run.steps)?;
        Ok(Replay { run, case })
    }

    /// Runs it again on `device`, from the recorded inputs and initial parameters.
    ///
    /// # Errors
    /// Those of [`train`].
    pub fn run(&self, device: Device) -> Result<Trace> {
        let model = self.model(device)?;
        let y = self.case.trace.tensor("input/y")?.f_to_device(device)?;
        train(&model, &self.leaf("input/x", device)?, &y, &self.run)
    }

    /// The net with its initial parameters.
    pub(crate) fn model(&self, device: Device) -> Result<ThreeLayerNet> {
        let linear = |name: &str| {
            anyhow::Ok(Linear {
                weight: self.leaf(&format!("param/{name}.weight"), device)?,
                bias: self.leaf(&format!("param/{name}.bias"), device)?,
            })
        };
        Ok(ThreeLayerNet { fc1: linear("fc1")?, fc2: linear("fc2")?, fc3: linear("fc3")? })
    }

    fn leaf(&self, name: &str, device: Device) -> Result<Tensor> {
        let tensor = self.case.trace.tensor(name)?.f_to_device(device)?;
        Ok(tensor.f_set_requires_grad(true)?)
    }
}

fn validate(trace: &Trace, steps: u32) -> Result<()> {
    let matrix = |name: &str| {
        let view = trace.get(name).with_context(|| format!("{name} is missing"))?;
        let &[rows, columns] = view.shape() else {
            bail!("{name} is of shape {:?}: a matrix is needed", view.shape());
        };
        Ok((rows, columns, view.dtype()))
    };
    let (batch, d1, dtype) = matrix("input/x")?;
    let (d2, d3) = (matrix("param/fc1.weight")?.0, matrix("param/fc2.weight")?.0);
    ensure!(matches!(dtype, Dtype::F32 | Dtype::F64), "input/x is {dtype}: F32 or F64 is needed");

    let mut names = trace.names();
    for (name, shape) in layout(steps, [batch, d1, d2, d3]) {
        let view = trace.get(&name).with_context(|| format!("{name} is missing"))?;
        let next = names.next().unwrap_or_default();
        ensure!(next == name, "{next} stands where {name} is expected");
        ensure!(
            view.shape() == shape,
            "{name} is of shape {:?}: {shape:?} is expected",
            view.shape()
        );
        ensure!(view.dtype() == dtype, "{name} is {}: {dtype} is expected", view.dtype());
    }
    match names.next() {
        None => Ok(()),
        Some(extra) => bail!("{extra} is not expected in a run of {steps} steps"),
    }
}

/// Every tensor of a case, in order, with its shape. Made one by one: there need not be as many as the
/// metadata says.
fn layout(
    steps: u32,
    [batch, d1, d2, d3]: [usize; 4],
) -> impl Iterator<Item = (String, Vec<usize>)> {
    let parameters = move |section: String| {
        let shapes = [vec![d2, d1], vec![d2], vec![d3, d2], vec![d3], vec![1, d3], vec![1]];
        PARAMETERS.iter().zip(shapes).map(move |(name, shape)| (format!("{section}/{name}"), shape))
    };
    let intermediate = move |section: &'static str| {
        let columns = [d1, d2, d2, d3, d3, 1, 1];
        INTERMEDIATE
            .iter()
            .zip(columns)
            .map(move |(name, n)| (format!("{section}/{name}"), vec![batch, n]))
    };
    let inputs = [("input/x".to_owned(), vec![batch, d1]), ("input/y".to_owned(), vec![batch, 1])];
    let step = move |k| {
        [(format!("step/{k}/L"), vec![])].into_iter().chain(parameters(format!("step/{k}")))
    };
    (inputs.into_iter().chain(parameters("param".to_owned())))
        .chain(intermediate("forward"))
        .chain([("forward/L".to_owned(), vec![])])
        .chain(intermediate("grad"))
        .chain(parameters("grad".to_owned()))
        .chain((1..=steps).flat_map(step))
}

/// The order in which a run computes its tensors, each from which other one and by what: forward,
/// then backward, then the steps.
pub fn dataflow(steps: u32) -> Vec<Edge> {
    let edge = |from: &str, to: &str, operation: &str| Edge {
        from: from.to_owned(),
        to: to.to_owned(),
        operation: operation.to_owned(),
    };
    let mut edges = vec![
        edge("input/x", "forward/x", "the copy of the input"),
        edge("forward/x", "forward/z2", "fc1"),
        edge("forward/z2", "forward/h2", "the relu after fc1"),
        edge("forward/h2", "forward/z3", "fc2"),
        edge("forward/z3", "forward/h3", "the relu after fc2"),
        edge("forward/h3", "forward/z", "fc3"),
        edge("forward/z", "forward/h", "the sigmoid"),
        edge("forward/h", "forward/L", "BCELoss"),
        edge("forward/L", "grad/h", "the backward of BCELoss"),
        edge("grad/h", "grad/z", "the backward of the sigmoid"),
        edge("grad/z", "grad/fc3.weight", "the backward of fc3"),
        edge("grad/z", "grad/fc3.bias", "the backward of fc3"),
        edge("grad/z", "grad/h3", "the backward of fc3"),
        edge("grad/h3", "grad/z3", "the backward of the relu after fc2"),
        edge("grad/z3", "grad/fc2.weight", "the backward of fc2"),
        edge("grad/z3", "grad/fc2.bias", "the backward of fc2"),
        edge("grad/z3", "grad/h2", "the backward of fc2"),
        edge("grad/h2", "grad/z2", "the backward of the relu after fc1"),
        edge("grad/z2", "grad/fc1.weight", "the backward of fc1"),
        edge("grad/z2", "grad/fc1.bias", "the backward of fc1"),
        edge("grad/z2", "grad/x", "the backward of fc1"),
        edge("input/y", "forward/L", "BCELoss"),
        edge("forward/L", "step/1/L", "the recording of the loss"),
    ];
    for (name, z) in PARAMETERS.iter().zip(["z2", "z2", "z3", "z3", "z", "z"]) {
        edges.push(edge(&format!("param/{name}"), &format!("forward/{z}"), "the layer"));
    }
    for k in 1..=steps {
        for name in PARAMETERS {
            let (loss, after) = (format!("step/{k}/L"), format!("step/{k}/{name}"));
            if k == 1 {
                edges.push(edge(&format!("grad/{name}"), &after, "the optimizer's step"));
            } else {
                let before = format!("step/{}/{name}", k - 1);
                if name == PARAMETERS[0] {
                    edges.push(edge(&before, &loss, "the forward of this step"));
                }
                edges.push(edge(&loss, &after, "the backward and the optimizer of this step"));
            }
        }
    }
    edges
}

//! A recorded run of the notebook's net: checked when it is read, and run again from its inputs.

mod dataflow;
mod layout;

use std::path::Path;

use anyhow::{Context, Result, ensure};
use tch::{Device, Tensor};

use super::{Run, ThreeLayerNet, train};
use crate::case::Case;
use crate::compare::run::compare_run;
use crate::torch::Linear;
use crate::trace::Trace;
pub use dataflow::dataflow;
use layout::validate;

/// A recording of [`train`] that is complete and consistent.
#[derive(Debug)]
pub struct Replay {
    /// The description of what was run.
    pub run: Run,
    /// The tensors of the run, and where it was made.
    pub case: Case,
}

impl Replay {
    /// Reads the file of a case of a `ThreeLayerNet` (`docs/format.md`).
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is not such a case. The message names what is missing,
    /// extra, misnamed or of another shape or dtype.
    pub fn load(path: impl AsRef<Path>) -> Result<Replay> {
        let path = path.as_ref();
        let case = Case::load(path)?;
        Replay::new(case)
            .with_context(|| format!("{} is not a case of a ThreeLayerNet", path.display()))
    }

    /// Creates a replay from a case that was recorded of a `ThreeLayerNet`.
    ///
    /// # Errors
    /// Returns an error if it is not a case of a `ThreeLayerNet`, as [`load`](Self::load) does.
    pub fn new(case: Case) -> Result<Replay> {
        let written = case.trace.run_json().unwrap_or_default();
        let model = || format!("its model is {}", written["model"]);
        let run = case
            .trace
            .run::<Run>()
            .with_context(model)?
            .context("no metadata that says what was run")?;
        // serde also accepts JSON that the format does not allow, such as a list in place of an object.
        let other = compare_run("run", &written, &serde_json::to_value(&run)?);
        ensure!(other.is_empty(), "in its metadata {}", other.join("; "));
        validate(&case.trace, run.steps)?;
        let replay = Replay { run, case };
        replay.run.optimizer.build(replay.model(Device::Cpu)?.named_parameters())?;
        Ok(replay)
    }

    /// Runs the case again on `device`, from the recorded inputs and initial parameters.
    ///
    /// # Errors
    /// Returns the errors of [`train`].
    pub fn run(&self, device: Device) -> Result<Trace> {
        let model = self.model(device)?;
        let y = self.case.trace.tensor("input/y")?.f_to_device(device)?;
        train(&model, &self.leaf("input/x", device)?, &y, &self.run)
    }

    /// Returns the net with its initial parameters.
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

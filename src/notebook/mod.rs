//! The notebook on backpropagation, cell by cell: the thin program that this project was made for.
//!
//! | the notebook's cell | here |
//! |---|---|
//! | `class ThreeLayerNet` | `three_layer_net.rs` |
//! | the weights, the data, the forward pass, the backward pass, and the step | `cells.rs` |
//! | the same repeated, every tensor recorded | `training.rs` |
//! | what the cells print | `printed.rs` |
//! | the formulas to fill in | `worksheet/` |
//!
//! `run.rs` describes a run, and `replay/` runs a recorded one again. This room knows no other model.

mod cells;
mod printed;
mod replay;
mod run;
mod three_layer_net;
mod training;
pub mod worksheet;

use std::io::Write;

use anyhow::Result;
use tch::Device;

use crate::optim::RecordedOptimizer;
use crate::trace::Trace;
pub use cells::LR;
use printed::Printed;
pub use replay::{Replay, dataflow};
pub use run::{Loss, Model, Run};
pub use three_layer_net::{Intermediate, ThreeLayerNet};
pub use training::train;

/// The notebook after it was run.
#[derive(Debug)]
pub struct Notebook {
    /// The net after the last step.
    pub model: ThreeLayerNet,
    /// The description of what was run.
    pub run: Run,
    /// Every tensor of the run, under the names that [`train`] gives them.
    pub trace: Trace,
    /// The device that the notebook was run on.
    pub device: Device,
}

impl Notebook {
    /// Runs the notebook's cells on `device`, the forward pass, the backward pass and the step `steps` times.
    ///
    /// The optimizer is created after the weights are set, so that it steps these. The notebook creates its
    /// optimizer before that, so its `step()` would change nothing.
    ///
    /// # Errors
    /// Returns the errors of [`train`].
    pub fn run(lr: f64, steps: u32, device: Device) -> Result<Notebook> {
        let model = cells::model(device)?;
        let (x, y) = cells::data(device)?;
        let optimizer = RecordedOptimizer::sgd(lr);
        let run = Run { model: Model::ThreeLayerNet, loss: Loss::BCELoss, optimizer, steps };
        let trace = train(&model, &x, &y, &run)?;
        Ok(Notebook { model, run, trace, device })
    }

    /// Writes what the cells print under PyTorch.
    ///
    /// # Errors
    /// Returns an error if `out` cannot be written to.
    pub fn print(&self, out: &mut impl Write) -> Result<()> {
        let printed = Printed { trace: &self.trace, device: self.device };
        write!(out, "{}\n{}", self.model, printed.initial_weights()?)?;
        write!(out, "{}", printed.forward()?)?;
        write!(out, "{}{}", printed.gradients()?, printed.parameter_gradients()?)?;
        Ok(write!(out, "{}", printed.updated_weights(self.run.steps)?)?)
    }
}

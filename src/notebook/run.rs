//! The description of a run, as a case's metadata holds it: the model, the loss, the optimizer and the number of
//! steps.

use serde::{Deserialize, Serialize};

use crate::optim::RecordedOptimizer;

/// A description of what is run, apart from the numbers that go in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Run {
    /// The net that is trained.
    pub model: Model,
    /// The loss between the net's output and the labels.
    pub loss: Loss,
    /// The optimizer that steps the parameters.
    pub optimizer: RecordedOptimizer,
    /// The number of times that forward, zero_grad, backward and step are repeated.
    pub steps: u32,
}

/// A net that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Model {
    /// The notebook's net.
    ThreeLayerNet,
}

/// A loss that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Loss {
    /// The binary cross entropy, as the mean over the batch.
    BCELoss,
}

//! The optimizer of a recorded run, as the metadata of a case has it.

use anyhow::Result;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use tch::Tensor;

use super::{Optimizer as Built, SGD};
use crate::repr::repr_float;

/// An optimizer that can be run, with the arguments that it has in PyTorch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "name")]
#[serde(deny_unknown_fields)]
pub enum Optimizer {
    /// Stochastic gradient descent:
    /// [`torch.optim.SGD`](https://docs.pytorch.org/docs/2.13/generated/torch.optim.SGD.html).
    SGD {
        /// The learning rate.
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
        /// Whether to use Nesterov momentum.
        nesterov: bool,
    },
}

/// Writes a number as Python does, so that both sides write the same bytes for the same numbers.
fn as_python_writes_it<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    let text = RawValue::from_string(repr_float(*value));
    text.map_err(serde::ser::Error::custom)?.serialize(serializer)
}

impl Optimizer {
    /// Returns plain SGD, which subtracts `lr * p.grad` from each parameter `p`.
    pub fn sgd(lr: f64) -> Optimizer {
        Optimizer::SGD { lr, momentum: 0., dampening: 0., weight_decay: 0., nesterov: false }
    }

    /// Builds the optimizer of these parameters.
    pub(crate) fn build<'a>(
        &self,
        parameters: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    ) -> Result<Built<SGD>> {
        let Optimizer::SGD { lr, momentum, dampening, weight_decay, nesterov } = *self;
        let maximize = false;
        SGD { lr, momentum, dampening, weight_decay, nesterov, maximize }.build_from(parameters)
    }
}

//! What a comparison requires, and why.

use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};

use super::run::shortened;
use super::tolerance::{Between, Tolerance};
use crate::trace::Environment;

/// The largest number of characters of a reason, which quotes what a file says of its environment.
const MAX_REASON: usize = 1000;

/// A requirement on every tensor of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Criterion {
    /// Requires the same bits, the signs of zeros included; a nan equals any nan.
    Bitwise,
    /// Requires values within the tolerance of the dtype.
    Close,
    /// Requires values within the tolerance of the dtype for results from a GPU.
    #[serde(rename = "close to a GPU")]
    CloseToGpu,
    /// Requires values that are close, or as near as PyTorch's own to the same run in float64.
    Accurate,
    /// Requires the same of results from a GPU.
    #[serde(rename = "accurate on a GPU")]
    AccurateOnGpu,
}

impl Criterion {
    pub(crate) fn tolerance(self, dtype: Dtype) -> Option<Tolerance> {
        let between = match self {
            Criterion::CloseToGpu | Criterion::AccurateOnGpu => Between::Gpus,
            Criterion::Bitwise | Criterion::Close | Criterion::Accurate => Between::Cpus,
        };
        Tolerance::of(dtype, between)
    }

    /// Returns the criterion in which a run in float64 decides, in the place of one in which constants do.
    #[must_use]
    pub fn by_truth(self) -> Criterion {
        match self {
            Criterion::Close => Criterion::Accurate,
            Criterion::CloseToGpu => Criterion::AccurateOnGpu,
            other => other,
        }
    }
}

/// A way to choose the [`Criterion`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Required {
    /// Chooses bitwise where the two environments promise the same bits, else close.
    #[default]
    Auto,
    /// Chooses bitwise.
    Bitwise,
    /// Chooses close.
    Close,
    /// Chooses accurate, which takes the program of the model.
    Accurate,
}

impl Required {
    /// Returns the criterion for two environments and the reason for it; `None` stands for environments that
    /// are not both known.
    pub fn between(
        self,
        environments: Option<(&Environment, &Environment)>,
    ) -> (Criterion, String) {
        let on_cpus = environments.is_none_or(|(here, there)| here.is_cpu() && there.is_cpu());
        let close = if on_cpus { Criterion::Close } else { Criterion::CloseToGpu };
        match (self, environments) {
            (Required::Bitwise, _) => (Criterion::Bitwise, "as asked".to_owned()),
            (Required::Close, _) => (close, "as asked".to_owned()),
            (Required::Accurate, _) => (close.by_truth(), "as asked".to_owned()),
            (Required::Auto, None) => (close, "no record of both environments".to_owned()),
            (Required::Auto, Some((here, there))) => match here.promise_of_same_bits(there) {
                Some(reason) => (Criterion::Bitwise, reason.to_owned()),
                None => {
                    let differences = here.differences(there).join("; ");
                    let differences = shortened(&differences, MAX_REASON);
                    (close, format!("another environment: {differences}"))
                }
            },
        }
    }
}

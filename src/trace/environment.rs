//! The environment in which a run was made: the fingerprint that decides whether the same bits can be required.

use serde::{Deserialize, Serialize};

/// The choice between kernels that are the same everywhere and those that are fastest here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Numerics {
    /// Uses kernels that give the same bits on every x86-64 machine, and on a GPU the same bits every time on
    /// GPUs of one kind.
    Portable,
    /// Uses the fastest kernels that the machine has.
    Native,
}

/// The fingerprint of the environment in which a run was made, from what `torch.__config__.show()` reports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// The version of libtorch, such as `2.13.0`.
    pub torch: String,
    /// The instruction set of libtorch's own kernels, such as `AVX512` or `DEFAULT`.
    pub cpu_capability: String,
    /// The number of threads that one operation may use.
    pub threads: u32,
    /// The numerics that the run was asked for.
    pub numerics: Numerics,
    /// The device, as `str(torch.device)` returns it, such as `cpu` or `cuda:0`.
    pub device: String,
    /// The model of that device, or empty if the system does not report it.
    pub device_name: String,
    /// The version of MKL, or empty if PyTorch reports none.
    pub mkl: String,
    /// The version of oneDNN, or empty if PyTorch reports none.
    pub onednn: String,
    /// The part of the fingerprint that only a CUDA device has; `None` for any other device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda: Option<CudaEnvironment>,
}

/// The part of the fingerprint that only a CUDA device has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CudaEnvironment {
    /// The version of the CUDA runtime, such as `13.0`.
    pub runtime: String,
    /// The version of cuDNN, or empty if PyTorch reports none.
    pub cudnn: String,
    /// The value of `CUBLAS_WORKSPACE_CONFIG`, or empty if it is not set.
    pub cublas_workspace: String,
    /// Whether float32 products may be computed as TF32, which this crate never allows.
    pub tf32: bool,
}

impl Environment {
    /// Lists the fields that differ, each with this environment's value and the other's.
    pub fn differences(&self, other: &Environment) -> Vec<String> {
        let fields = |environment: &Environment| match serde_json::to_value(environment) {
            Ok(serde_json::Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let (ours, theirs) = (fields(self), fields(other));
        let none = serde_json::Value::Null; // for the field that only a CUDA device has
        let names = ours.keys().chain(theirs.keys().filter(|name| !ours.contains_key(*name)));
        let values = names
            .map(|name| (name, ours.get(name).unwrap_or(&none), theirs.get(name).unwrap_or(&none)));
        let differ = values.filter(|(_, ours, theirs)| ours != theirs);
        differ.map(|(name, ours, theirs)| format!("{name} {ours} here, {theirs} there")).collect()
    }

    /// Returns whether the run was computed on the CPU.
    pub fn is_cpu(&self) -> bool {
        self.device == "cpu"
    }

    /// Returns why the same run must have the same bits in both environments, or `None` if it need not.
    pub fn promise_of_same_bits(&self, other: &Environment) -> Option<&'static str> {
        let portable = self.numerics == Numerics::Portable && other.numerics == self.numerics;
        let gpu = |environment: &Environment| {
            let Environment { torch, device_name, cuda, .. } = environment.clone();
            cuda.map(|cuda| (torch, device_name, cuda))
        };
        if portable && self.is_cpu() && other.is_cpu() {
            Some("both use portable numerics")
        } else if portable && gpu(self).is_some() && gpu(self) == gpu(other) {
            Some("portable numerics on the same kind of GPU")
        } else {
            (self == other).then_some("the same environment")
        }
    }
}

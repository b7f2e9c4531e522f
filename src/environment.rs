//! Where a run was made: the fingerprint that decides whether the same bits can be asked for.

use std::{env, fs};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::libtorch::show_config;

/// Which kernels libtorch and MKL choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Numerics {
    /// Those that give the same bits on every x86-64 machine, with any number of threads.
    Portable,
    /// The fastest that the machine has.
    Native,
}

impl Numerics {
    /// Makes libtorch and MKL compute this way: for portable numerics by `ATEN_CPU_CAPABILITY=default`
    /// and `MKL_CBWR=COMPATIBLE`, which both read when they first compute, and by
    /// [`set_threads`](Self::set_threads).
    ///
    /// # Safety
    /// No other thread may read or write the process's environment meanwhile: call it at the start of
    /// `main`.
    #[allow(unsafe_code)]
    pub unsafe fn set(self) {
        if self == Numerics::Portable {
            // SAFETY: the caller's promise is that of `set_var`.
            unsafe {
                env::set_var("ATEN_CPU_CAPABILITY", "default");
                env::set_var("MKL_CBWR", "COMPATIBLE");
            }
        }
        self.set_threads();
    }

    /// To be called in every further thread that computes: libtorch counts the threads that an
    /// operation may use for each calling thread. Portable numerics use one, since MKL chooses other
    /// kernels for small matrices where it has two, whatever `MKL_CBWR` says.
    pub fn set_threads(self) {
        if self == Numerics::Portable {
            tch::set_num_threads(1);
        }
    }
}

/// The fingerprint of a run, as PyTorch tells it in `torch.__config__.show()`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// libtorch's version, such as `2.13.0`.
    pub torch: String,
    /// The instruction set of libtorch's own kernels, such as `AVX512` or `DEFAULT`.
    pub cpu_capability: String,
    /// The threads that one operation may use.
    pub threads: u32,
    /// How the run was asked to compute.
    pub numerics: Numerics,
    /// `cpu`
    pub device: String,
    /// The model of that device; empty where the system does not tell.
    pub device_name: String,
    /// The version of MKL, or empty.
    pub mkl: String,
    /// The version of oneDNN, or empty.
    pub onednn: String,
}

impl Environment {
    /// The environment of this process, computing with `numerics`.
    ///
    /// # Errors
    /// libtorch does not tell its version.
    pub fn current(numerics: Numerics) -> Result<Environment> {
        let config = show_config()?;
        let line = |start: &str| {
            let found =
                config.lines().find_map(|line| line.trim().strip_prefix("- ")?.strip_prefix(start));
            found.unwrap_or_default().trim().to_owned()
        };
        let torch =
            config.split_once("TORCH_VERSION=").and_then(|(_, rest)| rest.split(',').next());
        Ok(Environment {
            torch: torch.context("libtorch does not tell its version")?.to_owned(),
            cpu_capability: line("CPU capability usage:"),
            threads: tch::get_num_threads().max(1) as u32,
            numerics,
            device: "cpu".to_owned(),
            device_name: cpu_name(),
            mkl: line("Intel(R) oneAPI Math Kernel Library Version"),
            onednn: line("Intel(R) MKL-DNN"),
        })
    }

    /// The fields that differ, each with this environment's value and the other's.
    pub fn differences(&self, other: &Environment) -> Vec<String> {
        let fields = |environment: &Environment| match serde_json::to_value(environment) {
            Ok(serde_json::Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let (ours, theirs) = (fields(self), fields(other));
        let differ = ours.iter().filter(|(name, ours)| theirs.get(*name) != Some(ours));
        differ.map(|(name, ours)| format!("{name} {ours} here, {} there", theirs[name])).collect()
    }

    /// Why the same run must have the same bits in both; none where it need not.
    pub fn promise_of_same_bits(&self, other: &Environment) -> Option<&'static str> {
        let portable = |environment: &Environment| {
            environment.numerics == Numerics::Portable && environment.device == "cpu"
        };
        if portable(self) && portable(other) {
            Some("both use portable numerics")
        } else {
            (self == other).then_some("the same environment")
        }
    }
}

fn cpu_name() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or(String::new(), |(_, name)| name.trim().to_owned())
}

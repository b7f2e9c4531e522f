//! Where a run was made: the fingerprint that decides whether the same bits can be asked for.

use std::os::unix::process::CommandExt;
use std::process::Command;
use std::{env, fs};

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tch::Device;

use crate::device;
use crate::libtorch::{cuda_device_name, libtorch_version, show_config, use_onednn, uses_onednn};

/// TF32 rounds the factors of a matrix product to 10 bits: no run here uses it, whatever else is set.
const NO_TF32: (&str, &str) = ("NVIDIA_TF32_OVERRIDE", "0");

/// What lets cuBLAS add up in the same order every time
/// ([its documentation](https://docs.nvidia.com/cuda/cublas/#results-reproducibility)).
const CUBLAS_WORKSPACE: (&str, &str) = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8");

/// The variables of portable numerics.
const PORTABLE: [(&str, &str); 3] =
    [("ATEN_CPU_CAPABILITY", "default"), ("MKL_CBWR", "COMPATIBLE"), CUBLAS_WORKSPACE];

/// Which kernels libtorch and MKL choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Numerics {
    /// Those that give the same bits on every x86-64 machine, with any number of threads; and, of CUDA, every
    /// time on GPUs of one kind.
    Portable,
    /// The fastest that the machine has.
    Native,
}

impl Numerics {
    /// Makes libtorch, MKL and cuBLAS compute this way: for portable numerics by
    /// `ATEN_CPU_CAPABILITY=default`, `MKL_CBWR=COMPATIBLE` and `CUBLAS_WORKSPACE_CONFIG=:4096:8`, which they
    /// read when they first compute, without oneDNN, and by [`set_for_thread`](Self::set_for_thread); for
    /// native ones by the absence of these variables, which the fingerprint does not tell.
    /// `NVIDIA_TF32_OVERRIDE=0` in any case.
    ///
    /// # Safety
    /// No other thread may read or write the process's environment meanwhile: call it at the start of
    /// `main`.
    #[allow(unsafe_code)]
    pub unsafe fn set(self) {
        for (name, value) in PORTABLE {
            match self {
                // SAFETY: the caller's promise is that of `set_var`.
                Numerics::Portable => unsafe { env::set_var(name, value) },
                // SAFETY: and that of `remove_var`.
                Numerics::Native => unsafe { env::remove_var(name) },
            }
        }
        // SAFETY: likewise.
        unsafe { env::set_var(NO_TF32.0, NO_TF32.1) };
        self.set_for_thread();
    }

    /// How this thread computes, as far as its settings tell.
    pub fn in_use() -> Numerics {
        let portable = PORTABLE.iter().all(|(name, value)| env::var(name).as_deref() == Ok(value));
        if portable && tch::get_num_threads() == 1 && !uses_onednn() {
            Numerics::Portable
        } else {
            Numerics::Native
        }
    }

    /// For tests and examples: where this process does not compute this way, starts it again with the same
    /// arguments and the variables set, and does not return. That is safe whatever has been computed before,
    /// and in whichever thread; other threads end where they are. Native numerics need nothing.
    ///
    /// # Errors
    /// The process cannot be started again, or has been and still does not compute this way.
    pub fn restart_with(self) -> Result<()> {
        const RESTARTED: &str = "TCH_PARITY_RESTARTED";
        self.set_for_thread();
        if self == Numerics::Native || Numerics::in_use() == self {
            return Ok(());
        }
        ensure!(
            env::var_os(RESTARTED).is_none(),
            "portable numerics are not to be had in this process"
        );
        let mut again = Command::new(env::current_exe()?);
        again.args(env::args_os().skip(1)).envs(PORTABLE).env("OMP_NUM_THREADS", "1");
        Err(again.env(RESTARTED, "1").env(NO_TF32.0, NO_TF32.1).exec().into())
    }

    /// To be called in every further thread that computes: libtorch counts the threads that an
    /// operation may use for each calling thread. Portable numerics use one, since MKL chooses other
    /// kernels for small matrices where it has two, whatever `MKL_CBWR` says. And no oneDNN, which compiles its
    /// kernels for the CPU that it meets.
    pub fn set_for_thread(self) {
        if self == Numerics::Portable {
            tch::set_num_threads(1);
            use_onednn(false);
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
    /// As `str(torch.device)`: `cpu`, or such as `cuda:0`.
    pub device: String,
    /// The model of that device; empty where the system does not tell.
    pub device_name: String,
    /// The version of MKL, or empty.
    pub mkl: String,
    /// The version of oneDNN, or empty.
    pub onednn: String,
    /// Of a CUDA device alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cuda: Option<CudaEnvironment>,
}

/// What a CUDA device adds to the fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CudaEnvironment {
    /// The version of the CUDA runtime, such as `13.0`.
    pub runtime: String,
    /// The version of cuDNN, or empty.
    pub cudnn: String,
    /// `CUBLAS_WORKSPACE_CONFIG`, or empty.
    pub cublas_workspace: String,
    /// Whether float32 products may be TF32: never here.
    pub tf32: bool,
}

impl Environment {
    /// The environment of this process, computing with `numerics` on `device`.
    ///
    /// # Errors
    /// Those of [`libtorch_version`], or the device's name is not to be had.
    pub fn current(numerics: Numerics, device: Device) -> Result<Environment> {
        let config = show_config()?;
        let line = |start: &str| {
            let found =
                config.lines().find_map(|line| line.trim().strip_prefix("- ")?.strip_prefix(start));
            found.unwrap_or_default().trim().to_owned()
        };
        Ok(Environment {
            torch: libtorch_version()?,
            cpu_capability: line("CPU capability usage:"),
            threads: tch::get_num_threads().max(1) as u32,
            numerics,
            device: device::name(device),
            device_name: match device {
                Device::Cuda(index) => cuda_device_name(index)?,
                _ => cpu_name(),
            },
            mkl: line("Intel(R) oneAPI Math Kernel Library Version"),
            onednn: line("Intel(R) MKL-DNN"),
            cuda: device.is_cuda().then(|| CudaEnvironment {
                runtime: line("CUDA Runtime"),
                cudnn: line("CuDNN"),
                cublas_workspace: env::var(CUBLAS_WORKSPACE.0).unwrap_or_default(),
                tf32: false,
            }),
        })
    }

    /// The fields that differ, each with this environment's value and the other's.
    pub fn differences(&self, other: &Environment) -> Vec<String> {
        let fields = |environment: &Environment| match serde_json::to_value(environment) {
            Ok(serde_json::Value::Object(fields)) => fields,
            _ => serde_json::Map::new(),
        };
        let (ours, theirs) = (fields(self), fields(other));
        let none = serde_json::Value::Null; // of the fields that a CUDA device adds
        let names = ours.keys().chain(theirs.keys().filter(|name| !ours.contains_key(*name)));
        let values = names
            .map(|name| (name, ours.get(name).unwrap_or(&none), theirs.get(name).unwrap_or(&none)));
        let differ = values.filter(|(_, ours, theirs)| ours != theirs);
        differ.map(|(name, ours, theirs)| format!("{name} {ours} here, {theirs} there")).collect()
    }

    /// Whether it computes on the CPU.
    pub fn is_cpu(&self) -> bool {
        self.device == "cpu"
    }

    /// Why the same run must have the same bits in both; none where it need not.
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

fn cpu_name() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or(String::new(), |(_, name)| name.trim().to_owned())
}

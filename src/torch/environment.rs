//! The fingerprint of the machine and of the libtorch that this process uses.

use std::{env, fs};

use anyhow::Result;
use tch::Device;

use super::device;
use super::numerics::CUBLAS_WORKSPACE;
use super::shim::{cuda_device_name, libtorch_version, show_config};
use crate::trace::{CudaEnvironment, Environment, Numerics};

impl Environment {
    /// Returns the environment of this process, which computes with `numerics` on `device`.
    ///
    /// # Errors
    /// Those of [`libtorch_version`], or the driver does not tell the name of the device.
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
}

fn cpu_name() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map_or(String::new(), |(_, name)| name.trim().to_owned())
}

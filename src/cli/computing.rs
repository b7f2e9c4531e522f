//! The options that say how and where a command computes.

use anyhow::Result;
use clap::{Args, ValueEnum};
use tch::Device;
use tch_parity::{DeviceChoice, Environment, Numerics, open_device};

use super::exit::{complain, message};

pub(super) const CPU: DeviceChoice = DeviceChoice::This(Device::Cpu);

#[derive(Args)]
pub(super) struct DeviceOption {
    /// Where to compute: cpu, cuda, cuda:N, mps, or auto, which takes CUDA where it can be used
    #[arg(long, default_value_t = CPU)]
    pub(super) device: DeviceChoice,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum NumericsArg {
    Portable,
    Native,
}

impl From<NumericsArg> for Numerics {
    fn from(arg: NumericsArg) -> Numerics {
        match arg {
            NumericsArg::Portable => Numerics::Portable,
            NumericsArg::Native => Numerics::Native,
        }
    }
}

/// Sets how and where the process computes, and returns the device and the environment. Call it before
/// any thread computes.
pub(super) fn compute_with(
    numerics: Numerics,
    choice: DeviceChoice,
) -> Result<(Device, Environment)> {
    // SAFETY: no thread computes yet. The threads of signals and of progress are Rust, which reads the environment
    // by `std::env` if at all.
    #[allow(unsafe_code)]
    unsafe {
        numerics.set();
    }
    let device = match choice {
        DeviceChoice::This(device) => open_device(device).map(|()| device)?,
        DeviceChoice::Auto => {
            let cuda = Device::Cuda(0);
            let (device, chosen) = match open_device(cuda) {
                Ok(()) => (cuda, "cuda:0".to_owned()),
                Err(err) => (Device::Cpu, format!("cpu ({})", message(&err))),
            };
            complain(&format!("device auto: {chosen}"));
            device
        }
    };
    Ok((device, Environment::current(numerics, device)?))
}

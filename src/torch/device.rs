//! Where tensors are computed: the devices of `torch.device`, and libtorch's CUDA libraries, which are
//! loaded when they are first asked for.

use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use tch::{Cuda, Device, Kind, Tensor};

use super::shim;

/// A choice of a device, as `--device` names it.
///
/// ```
/// use tch_parity::DeviceChoice;
///
/// assert_eq!("cuda".parse(), Ok(DeviceChoice::This(tch::Device::Cuda(0))));
/// assert_eq!("auto".parse(), Ok(DeviceChoice::Auto));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceChoice {
    /// Chooses the first CUDA device where it can be used, else the CPU.
    Auto,
    /// Chooses this device and no other.
    This(Device),
}

impl FromStr for DeviceChoice {
    type Err = String;

    /// Parses `cpu`, `cuda` (which is `cuda:0`), `cuda:N`, `mps` or `auto`.
    fn from_str(text: &str) -> Result<DeviceChoice, String> {
        let this = |device| Ok(DeviceChoice::This(device));
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => this(Device::Cpu),
            "cuda" => this(Device::Cuda(0)),
            "mps" => this(Device::Mps),
            _ => match text.strip_prefix("cuda:").map(str::parse::<u8>) {
                // As torch.device, whose index has 7 bits.
                Some(Ok(index @ 0..=127)) => this(Device::Cuda(index.into())),
                _ => Err("a device is cpu, cuda, cuda:N, mps or auto".to_owned()),
            },
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::This(device) => f.write_str(&name(*device)),
        }
    }
}

/// Makes `device` ready to compute on. For CUDA that loads its libraries: [`load_cuda`] says when.
///
/// # Errors
/// The device cannot be used; the message says why: no CUDA in this libtorch, no driver, no such device.
pub fn open_device(device: Device) -> Result<()> {
    open(device).with_context(|| format!("device {}", name(device)))
}

fn open(device: Device) -> Result<()> {
    match device {
        Device::Cpu => {}
        Device::Cuda(index) => {
            load_cuda()?;
            // The first tensor says what is wrong with the driver; where nothing is, it is the index.
            let _first = Tensor::f_zeros([1], (Kind::Float, Device::Cuda(0)))?;
            let count = Cuda::device_count();
            ensure!((index as i64) < count, "no such device: there are {count}, from cuda:0 on");
        }
        Device::Mps => ensure!(
            tch::utils::has_mps(),
            "{} has no MPS, which exists only on macOS",
            shim::folder()?.display()
        ),
        Device::Vulkan => bail!("not supported"),
    }
    Ok(())
}

/// Makes CUDA available to libtorch in this process, however the binary was linked, by loading the CUDA
/// libraries of the libtorch in use.
///
/// Call it if `tch::Cuda::is_available()` is false although libtorch has CUDA: linkers drop `libtorch_cuda` from a
/// binary, since nothing in it refers to it.
///
/// Call it before anything asks libtorch whether CUDA is there, `tch::Cuda::is_available()` included, and before
/// the first backward pass, since libtorch keeps the first answer. Calling it again changes nothing. `tch::Cuda`
/// then tells whether there is a GPU as well.
///
/// ```
/// if let Err(err) = tch_parity::load_cuda() {
///     println!("no CUDA in this libtorch: {err:#}");
/// }
/// println!("{} GPUs", tch::Cuda::device_count());
/// ```
///
/// # Errors
/// The libtorch in use is a CPU build, a library that it needs is missing, or the call comes too late.
pub fn load_cuda() -> Result<()> {
    let folder = shim::folder()?;
    // It registers libtorch's CUDA kernels.
    let name = format!("{DLL_PREFIX}torch_cuda{DLL_SUFFIX}");
    let library = folder.join(&name);
    ensure!(
        library.exists(),
        "the libtorch in use is a CPU build: there is no {name} in {}",
        folder.display()
    );
    shim::load(&library).with_context(|| format!("cannot load {}", library.display()))?;
    // True of the libraries, whether or not there is a GPU.
    ensure!(
        tch::utils::has_cudart(),
        "libtorch was asked for CUDA before its CUDA libraries were loaded, and keeps that answer"
    );
    Ok(())
}

/// Returns what Python's `str` returns for a `torch.device`.
pub(super) fn name(device: Device) -> String {
    match device {
        Device::Cpu => "cpu".to_owned(),
        Device::Cuda(index) => format!("cuda:{index}"),
        Device::Mps => "mps:0".to_owned(),
        Device::Vulkan => "vulkan".to_owned(),
    }
}

//! What PyTorch does on libtorch and tch does not do, or does otherwise: `retain_grad`, `nn.Linear`, `repr`, CUDA loaded on demand, numerics.
//!
//! This room knows libtorch, plain data and how it is printed. It does not know cases or any model. All unsafe calls
//! into C++ are in `shim.rs`, `call.rs`, `autocast.rs` and `watch.rs`, and the C++ is in the files of the same names.

mod autocast;
mod call;
mod device;
mod environment;
mod linear;
mod numerics;
mod output;
mod parts;
mod repr;
mod shim;
mod strided;
mod tensors;
mod watch;

pub(crate) use autocast::{Autocast, AutocastGuard, Extent};
pub(crate) use call::{Given, Operator, schema};
pub use call::{Value, backward, call};
pub use device::{DeviceChoice, load_cuda, open_device};
pub use linear::Linear;
pub(crate) use output::{Gradient, Output};
pub use repr::repr;
pub(crate) use repr::{dtype_name, elements};
pub use shim::{RetainGrad, libtorch_version};
pub(crate) use shim::{
    Scaled, clear_grad, ensure_dense, folder as libtorch_folder, replace_gradient, set_rng_state,
};
pub(crate) use strided::{is_apart, is_copied_into, memory, set, share_memory, within};
pub(crate) use tensors::{hash_of, span};
pub(crate) use watch::watch;

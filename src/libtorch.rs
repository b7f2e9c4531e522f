//! What libtorch offers and tch does not bind: `retain_grad`, the name of `grad_fn`, and what
//! `torch.__config__.show()` says of the build and the machine. The C++ side is `src/libtorch.cpp`.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char};
use std::ptr;

use tch::{TchError, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn tch_parity_retain_grad(tensor: *const C_tensor) -> *const c_char;
    fn tch_parity_grad_fn_name(tensor: *const C_tensor, name: *mut *const c_char) -> *const c_char;
    fn tch_parity_show_config(config: *mut *const c_char) -> *const c_char;
}

/// PyTorch's [`Tensor.retain_grad`](https://docs.pytorch.org/docs/2.13/generated/torch.Tensor.retain_grad.html)
/// for [`tch::Tensor`].
///
/// ```
/// use tch::{Kind, Tensor};
/// use tch_parity::RetainGrad;
///
/// let x = Tensor::from_slice(&[1f32, 2.]).set_requires_grad(true);
/// let h = &x * 3;
/// h.retain_grad()?;
/// h.sum(Kind::Float).backward();
/// assert_eq!(Vec::<f32>::try_from(h.grad())?, [1., 1.]);
/// # Ok::<(), tch::TchError>(())
/// ```
pub trait RetainGrad {
    /// Makes the next backward passes keep (and add up) this tensor's gradient in its `.grad`, as
    /// autograd does by itself for leaves alone. On a leaf, or called again, it changes nothing.
    ///
    /// # Errors
    /// [`TchError::Torch`] with PyTorch's message, `can't retain_grad on Tensor that has
    /// requires_grad=False`, where no gradient is required.
    fn retain_grad(&self) -> Result<(), TchError>;
}

impl RetainGrad for Tensor {
    fn retain_grad(&self) -> Result<(), TchError> {
        // SAFETY: `as_ptr` points to the at::Tensor that `self` owns and keeps alive over the call,
        // which lets no exception out. What it writes to is shared by tensors that may be in other
        // threads: it takes one at a time. A backward pass of the same graph in another thread races
        // with it as with any change to the graph; tch's own methods have no guard against that either.
        let message = unsafe { tch_parity_retain_grad(self.as_ptr()) };
        // SAFETY: null or the message of the call just made, on this thread.
        unsafe { check(message) }
    }
}

/// The name that PyTorch prints as `grad_fn=<NAME>`; none for a leaf.
pub(crate) fn grad_fn_name(tensor: &Tensor) -> Result<Option<String>, TchError> {
    let mut name = ptr::null();
    // SAFETY: as in `retain_grad`; `name` is a valid place for the pointer that the call writes.
    let message = unsafe { tch_parity_grad_fn_name(tensor.as_ptr(), &mut name) };
    // SAFETY: null or the message of the call just made, on this thread.
    unsafe { check(message)? };
    // SAFETY: null or a NUL-terminated string that lives until this thread's next call, copied here.
    let name = unsafe { (!name.is_null()).then(|| CStr::from_ptr(name)) };
    // C++ qualifies the nodes that are written by hand; PyTorch prints their last part.
    Ok(name.map(|name| {
        let name = name.to_string_lossy();
        name.rsplit("::").next().unwrap_or(&name).to_owned()
    }))
}

/// `torch.__config__.show()`
pub(crate) fn show_config() -> Result<String, TchError> {
    let mut config = ptr::null();
    // SAFETY: `config` is a valid place for the pointer that the call writes; no exception gets out.
    let message = unsafe { tch_parity_show_config(&mut config) };
    // SAFETY: null or the message of the call just made, on this thread.
    unsafe { check(message)? };
    // SAFETY: no error, so a NUL-terminated string that lives until this thread's next call.
    Ok(unsafe { CStr::from_ptr(config) }.to_string_lossy().into_owned())
}

/// # Safety
/// `message` is null or a NUL-terminated string that stays valid over this call.
unsafe fn check(message: *const c_char) -> Result<(), TchError> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: not null, so as the caller promises.
    let message = unsafe { CStr::from_ptr(message) };
    Err(TchError::Torch(message.to_string_lossy().into_owned()))
}

//! What libtorch offers and tch does not bind: `retain_grad`, the name of `grad_fn`, what
//! `torch.__config__.show()` says of the build and the machine, and the libraries that libtorch is made of. The
//! C++ side is `shim.cpp`.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::ptr;

use tch::{Device, Kind, TchError, Tensor};
use torch_sys::C_tensor;

unsafe extern "C" {
    fn tch_parity_retain_grad(tensor: *const C_tensor) -> *const c_char;
    fn tch_parity_replace_gradient(
        tensor: *const C_tensor,
        gradient: *const C_tensor,
    ) -> *const c_char;
    fn tch_parity_keep_gradient(
        tensor: *const C_tensor,
        keeper: *const C_tensor,
        is_view: *mut bool,
    ) -> *const c_char;
    fn tch_parity_ensure_dense(tensor: *const C_tensor) -> *const c_char;
    fn tch_parity_copy_bytes(
        tensor: *const C_tensor,
        to: *mut c_void,
        size: usize,
    ) -> *const c_char;
    fn tch_parity_has_bytes(
        tensor: *const C_tensor,
        bytes: *const c_void,
        size: usize,
        same: *mut bool,
    ) -> *const c_char;
    fn tch_parity_grad_fn_name(tensor: *const C_tensor, name: *mut *const c_char) -> *const c_char;
    fn tch_parity_set_rng_state(state: *const C_tensor, cuda: bool) -> *const c_char;
    fn tch_parity_clear_grad(tensor: *const C_tensor) -> *const c_char;
    fn tch_parity_add(
        to: *const C_tensor,
        tensor: *const C_tensor,
        other: *const C_tensor,
        alpha: f64,
    ) -> *const c_char;
    fn tch_parity_mul_(tensor: *const C_tensor, number: f64) -> *const c_char;
    fn tch_parity_addcmul(
        to: *const C_tensor,
        tensor: *const C_tensor,
        a: *const C_tensor,
        b: *const C_tensor,
        value: f64,
    ) -> *const c_char;
    fn tch_parity_addcdiv_(
        tensor: *const C_tensor,
        a: *const C_tensor,
        b: *const C_tensor,
        value: f64,
    ) -> *const c_char;
    fn tch_parity_addmm(
        to: *const C_tensor,
        tensor: *const C_tensor,
        a: *const C_tensor,
        b: *const C_tensor,
        beta: f64,
        alpha: f64,
    ) -> *const c_char;
    fn tch_parity_show_config(config: *mut *const c_char) -> *const c_char;
    fn tch_parity_uses_onednn_or_nnpack() -> bool;
    fn tch_parity_use_onednn_and_nnpack(use_it: bool);
    fn tch_parity_built_with() -> u64;
    /// libtorch's own, from `torch/csrc/inductor/aoti_torch/c/shim.h`.
    fn aoti_torch_abi_version() -> u64;
    fn tch_parity_libtorch_path(path: *mut *const c_char) -> *const c_char;
    fn tch_parity_load(path: *const c_char) -> *const c_char;
    fn tch_parity_cuda_device_name(index: c_int, name: *mut *const c_char) -> *const c_char;
}

/// A trait that adds PyTorch's
/// [`Tensor.retain_grad`](https://docs.pytorch.org/docs/2.13/generated/torch.Tensor.retain_grad.html) to
/// [`tch::Tensor`].
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
    /// Makes the next backward passes keep (and add up) this tensor's gradient in its `.grad`, which autograd
    /// does by itself for leaves alone.
    ///
    /// On a leaf, or called again, it changes nothing.
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

/// Gives libtorch's generator of random numbers of the CPU, or of the first GPU, a state that
/// [`torch.get_rng_state`](https://docs.pytorch.org/docs/2.13/generated/torch.get_rng_state.html) returned.
pub(crate) fn set_rng_state(state: &Tensor, device: Device) -> Result<(), TchError> {
    // SAFETY: `as_ptr` points to the at::Tensor that `state` owns and keeps alive over the call, which checks the
    // tensor's dtype and size, holds the generator's lock, and lets no exception out.
    let message = unsafe { tch_parity_set_rng_state(state.as_ptr(), device.is_cuda()) };
    // SAFETY: null or the message of the call just made, on this thread.
    unsafe { check(message) }
}

/// The operations that take a factor, which tch binds without it. In place where their names end with `_`.
pub(crate) trait Scaled {
    /// Computes `self *= number`, and returns `self`.
    fn scale_(&mut self, number: f64) -> Result<&mut Tensor, TchError>;
    /// Computes `self += alpha * other`.
    fn add_scaled_(&mut self, other: &Tensor, alpha: f64) -> Result<(), TchError>;
    /// Computes `self + alpha * other`.
    fn add_scaled(&self, other: &Tensor, alpha: f64) -> Result<Tensor, TchError>;
    /// Computes `self += value * a * b`.
    fn addcmul_scaled_(&mut self, a: &Tensor, b: &Tensor, value: f64) -> Result<(), TchError>;
    /// Computes `self + value * a * b`.
    fn addcmul_scaled(&self, a: &Tensor, b: &Tensor, value: f64) -> Result<Tensor, TchError>;
    /// Computes `self += value * a / b`.
    fn addcdiv_scaled_(&mut self, a: &Tensor, b: &Tensor, value: f64) -> Result<(), TchError>;
    /// Computes `beta * self + alpha * (a @ b)`.
    fn addmm_scaled(
        &self,
        a: &Tensor,
        b: &Tensor,
        beta: f64,
        alpha: f64,
    ) -> Result<Tensor, TchError>;
}

// SAFETY of all calls below: each pointer is that of an at::Tensor which a reference keeps alive over the call. The
// call lets no exception out, and what it returns is null or the message of that call, on this thread.
impl Scaled for Tensor {
    fn scale_(&mut self, number: f64) -> Result<&mut Tensor, TchError> {
        // SAFETY: as above.
        unsafe { check(tch_parity_mul_(self.as_ptr(), number))? };
        Ok(self)
    }

    fn add_scaled_(&mut self, other: &Tensor, alpha: f64) -> Result<(), TchError> {
        let this = self.as_ptr();
        // SAFETY: as above.
        unsafe { check(tch_parity_add(this, this, other.as_ptr(), alpha)) }
    }

    fn add_scaled(&self, other: &Tensor, alpha: f64) -> Result<Tensor, TchError> {
        let to = self.f_empty_like()?;
        // SAFETY: as above.
        unsafe { check(tch_parity_add(to.as_ptr(), self.as_ptr(), other.as_ptr(), alpha))? };
        Ok(to)
    }

    fn addcmul_scaled_(&mut self, a: &Tensor, b: &Tensor, value: f64) -> Result<(), TchError> {
        let this = self.as_ptr();
        // SAFETY: as above.
        unsafe { check(tch_parity_addcmul(this, this, a.as_ptr(), b.as_ptr(), value)) }
    }

    fn addcmul_scaled(&self, a: &Tensor, b: &Tensor, value: f64) -> Result<Tensor, TchError> {
        let to = self.f_empty_like()?;
        let [this, a, b] = [self, a, b].map(Tensor::as_ptr);
        // SAFETY: as above.
        unsafe { check(tch_parity_addcmul(to.as_ptr(), this, a, b, value))? };
        Ok(to)
    }

    fn addcdiv_scaled_(&mut self, a: &Tensor, b: &Tensor, value: f64) -> Result<(), TchError> {
        // SAFETY: as above.
        unsafe { check(tch_parity_addcdiv_(self.as_ptr(), a.as_ptr(), b.as_ptr(), value)) }
    }

    fn addmm_scaled(
        &self,
        a: &Tensor,
        b: &Tensor,
        beta: f64,
        alpha: f64,
    ) -> Result<Tensor, TchError> {
        // Not like `self`, whose layout would decide how the product is computed.
        let to = Tensor::f_empty(self.size(), (self.f_kind()?, self.device()))?;
        let [this, a, b] = [self, a, b].map(Tensor::as_ptr);
        // SAFETY: as above.
        unsafe { check(tch_parity_addmm(to.as_ptr(), this, a, b, beta, alpha))? };
        Ok(to)
    }
}

/// Takes away the gradient of a tensor, as `tensor.grad = None` does in Python.
pub(crate) fn clear_grad(tensor: &Tensor) -> Result<(), TchError> {
    // SAFETY: as in `retain_grad`.
    let message = unsafe { tch_parity_clear_grad(tensor.as_ptr()) };
    // SAFETY: null or the message of the call just made, on this thread.
    unsafe { check(message) }
}

/// Makes the next backward passes keep (and add up) the gradient of the value that a tensor has now, in the grad of
/// the tensor that is returned with whether `tensor` is a view. `retain_grad` follows a tensor that is overwritten
/// to its new value, and this does not.
///
/// # Errors
/// Returns PyTorch's message where no gradient is required.
pub(super) fn keep_gradient(tensor: &Tensor) -> Result<(Tensor, bool), TchError> {
    let keeper = Tensor::f_empty([0], (Kind::Float, Device::Cpu))?;
    let mut is_view = false;
    // SAFETY: `as_ptr` as in `retain_grad`, for which the same holds; the hook shares the keeper.
    let message =
        unsafe { tch_parity_keep_gradient(tensor.as_ptr(), keeper.as_ptr(), &mut is_view) };
    // SAFETY: null or the message of the call just made, on this thread.
    unsafe { check(message) }.map(|()| (keeper, is_view))
}

/// Makes backward go on from the value that a tensor has now with `gradient`, whatever arrives there. The gradient that
/// is kept of the value is this one.
///
/// # Errors
/// Returns PyTorch's message where no gradient is required.
pub(crate) fn replace_gradient(tensor: &Tensor, gradient: &Tensor) -> Result<(), TchError> {
    // SAFETY: `as_ptr` as in `retain_grad`, for which the same holds; the hook shares the gradient.
    let message = unsafe { tch_parity_replace_gradient(tensor.as_ptr(), gradient.as_ptr()) };
    // SAFETY: null or the message of the call just made, on this thread.
    unsafe { check(message) }
}

/// Checks that a tensor has sizes, strides and data: tch panics over sizes that there are not.
pub(crate) fn ensure_dense(tensor: &Tensor) -> Result<(), TchError> {
    // SAFETY: `as_ptr` points to the at::Tensor that `tensor` owns; the call only reads it.
    let message = unsafe { tch_parity_ensure_dense(tensor.as_ptr()) };
    // SAFETY: null or the message of the call just made, on this thread.
    unsafe { check(message) }
}

/// Copies the elements of a tensor on any device row by row, as the values that they stand for: what libtorch
/// conjugates or negates lazily is computed. `to` has to have the size of the tensor.
pub(super) fn copy_bytes(tensor: &Tensor, to: &mut [u8]) -> Result<(), TchError> {
    // SAFETY: `as_ptr` as above; the call writes nothing but as many bytes as `to` has, or returns an error.
    let message =
        unsafe { tch_parity_copy_bytes(tensor.as_ptr(), to.as_mut_ptr().cast(), to.len()) };
    // SAFETY: null or the message of the call just made, on this thread.
    unsafe { check(message) }
}

/// Returns whether the elements that [`copy_bytes`] copies are these.
pub(super) fn has_bytes(tensor: &Tensor, bytes: &[u8]) -> Result<bool, TchError> {
    let (data, mut same) = (bytes.as_ptr().cast(), false);
    // SAFETY: `as_ptr` as above; the call reads as many bytes as there are, or returns an error, and writes to `same`.
    let message = unsafe { tch_parity_has_bytes(tensor.as_ptr(), data, bytes.len(), &mut same) };
    // SAFETY: null or the message of the call just made, on this thread.
    unsafe { check(message) }?;
    Ok(same)
}

/// Returns the name that PyTorch prints as `grad_fn=<NAME>`, or `None` for a leaf.
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

/// Returns what `torch.__config__.show()` returns.
pub(crate) fn show_config() -> Result<String, TchError> {
    // SAFETY: it writes a string that lives until this thread's next call.
    Ok(unsafe { text_of(|text| tch_parity_show_config(text)) }?.to_string_lossy().into_owned())
}

/// Returns whether libtorch computes convolutions by oneDNN or NNPACK where it can, and more of the half precisions
/// by oneDNN.
pub(crate) fn uses_onednn_or_nnpack() -> bool {
    // SAFETY: it reads two flags.
    unsafe { tch_parity_uses_onednn_or_nnpack() }
}

/// Decides for the whole process whether libtorch uses oneDNN and NNPACK.
///
/// # Safety
/// No other thread may compute meanwhile: operations read the plain variables that this sets.
pub(super) unsafe fn use_onednn_and_nnpack(use_it: bool) {
    // SAFETY: no exception leaves the call, and the rest is the caller's promise.
    unsafe { tch_parity_use_onednn_and_nnpack(use_it) };
}

/// Returns the version of the libtorch in use, such as `2.13.0`.
///
/// # Errors
/// The libtorch in use is not of the version that this crate was built with. tch calls C++, which takes another
/// version's tensors for its own until something breaks.
pub fn libtorch_version() -> Result<String, TchError> {
    // SAFETY: plain functions without arguments.
    let [built, in_use] =
        unsafe { [tch_parity_built_with(), aoti_torch_abi_version()] }.map(|version| {
            let [major, minor, patch, ..] = version.to_be_bytes();
            format!("{major}.{minor}.{patch}")
        });
    if built == in_use {
        return Ok(in_use);
    }
    let folder = folder()?;
    Err(TchError::Torch(format!(
        "built with libtorch {built}, and loads {in_use} from {}: point LD_LIBRARY_PATH to {built}, or \
         build again",
        folder.display()
    )))
}

/// Returns the folder of the libtorch in use.
pub(crate) fn folder() -> Result<PathBuf, TchError> {
    // SAFETY: it writes a string that lives as long as the process.
    let path = unsafe { text_of(|text| tch_parity_libtorch_path(text)) }?;
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    Ok(path.parent().unwrap_or(path).to_owned())
}

/// Loads a library of libtorch's for the rest of the process.
pub(crate) fn load(path: &Path) -> Result<(), TchError> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: a NUL-terminated string. What a library does when it is loaded is libtorch's.
    let message = unsafe { tch_parity_load(path.as_ptr()) };
    // SAFETY: null or the message of the call just made, on this thread.
    unsafe { check(message) }
}

/// Returns the driver's name of the CUDA device of that number.
pub(crate) fn cuda_device_name(index: usize) -> Result<String, TchError> {
    let index = c_int::try_from(index).unwrap_or(c_int::MAX);
    // SAFETY: it writes a string that lives until this thread's next call.
    let name = unsafe { text_of(|text| tch_parity_cuda_device_name(index, text)) }?;
    Ok(name.to_string_lossy().into_owned())
}

/// # Safety
/// Without an error, `call` has to write a NUL-terminated string that lives until this thread's next call;
/// the result must not be used beyond it. With one, it returns such a string.
pub(super) unsafe fn text_of<'a>(
    call: impl FnOnce(*mut *const c_char) -> *const c_char,
) -> Result<&'a CStr, TchError> {
    let mut text = ptr::null();
    let message = call(&mut text);
    // SAFETY: as the caller promises.
    unsafe {
        check(message)?;
        Ok(CStr::from_ptr(text))
    }
}

/// # Safety
/// `message` is null or a NUL-terminated string that stays valid over this call.
pub(super) unsafe fn check(message: *const c_char) -> Result<(), TchError> {
    if message.is_null() {
        return Ok(());
    }
    // SAFETY: not null, so as the caller promises.
    let message = unsafe { CStr::from_ptr(message) };
    Err(TchError::Torch(message.to_string_lossy().into_owned()))
}

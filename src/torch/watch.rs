//! What PyTorch's operators return while they run, whoever calls them. The C++ side is `watch.cpp`.

#![allow(unsafe_code)]

use std::ffi::c_void;

use tch::Tensor;
use torch_sys::C_tensor;

unsafe extern "C" {
    fn tch_parity_watch(take: extern "C" fn(*mut c_void, *mut C_tensor), to: *mut c_void) -> u64;
    fn tch_parity_unwatch(handle: u64);
}

/// Takes what an operator returned.
type Take<'a> = dyn FnMut(&Tensor) + 'a;

/// Runs something, and passes to `take` every tensor that an operator of PyTorch returns meanwhile on this thread:
/// those of tch's methods, those that they are composed of, and those of a backward pass on the CPU. One on CUDA is
/// computed by another thread.
///
/// `take` must not panic. What it calls itself is not passed on.
pub(crate) fn watch<T>(take: &mut Take<'_>, run: impl FnOnce() -> T) -> T {
    let mut take = take;
    // SAFETY: `pass_on` is called with the pointer to `take` until the guard is dropped, on this thread alone.
    let _guard = Guard(unsafe { tch_parity_watch(pass_on, (&raw mut take).cast()) });
    run()
}

/// Ends the watch, also if what runs panics.
struct Guard(u64);

impl Drop for Guard {
    fn drop(&mut self) {
        // SAFETY: the handle is that of a callback of this thread, which is removed once.
        unsafe { tch_parity_unwatch(self.0) }
    }
}

/// Passes a tensor on. It is called by C++, and must not panic.
extern "C" fn pass_on(to: *mut c_void, tensor: *mut C_tensor) {
    // SAFETY: `watch` passes a pointer to its `take`, which lives until the callback is removed, and C++ a tensor that
    // is new and now this side's.
    let (take, tensor) = unsafe { (&mut *to.cast::<&mut Take<'_>>(), Tensor::from_ptr(tensor)) };
    take(&tensor);
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn operators_of_forward_and_backward_are_seen_until_the_end() {
        let x = Tensor::from_slice(&[1f32, 2.]).set_requires_grad(true);
        let mut seen = Vec::new();
        let mut take = |tensor: &Tensor| seen.push(f64::try_from(tensor.sum(Kind::Double)).ok());
        watch(&mut take, || (&x * 3.).sum(Kind::Float).backward());
        // 3x, its sum, and the gradient of x.
        assert!([9., 9., 6.].iter().all(|sum| seen.contains(&Some(*sum))), "{seen:?}");
        let count = seen.len();
        let _ = Tensor::ones([2], (Kind::Float, Device::Cpu));
        assert_eq!(seen.len(), count);
    }
}

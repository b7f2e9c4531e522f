//! `torch.autocast`, of which tch has the part for CUDA alone. The C++ side is `autocast.cpp`.

#![allow(unsafe_code)]

use std::cell::Cell;
use std::ffi::c_char;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use tch::{Device, TchError};

use super::shim::check;

/// The state of a thread, as `autocast.cpp` has it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct State {
    enabled: [i32; 2],
    dtype: [i32; 2],
    cache: i32,
}

unsafe extern "C" {
    fn tch_parity_autocast(state: *mut State) -> *const c_char;
    fn tch_parity_set_autocast(state: *const State) -> *const c_char;
    fn tch_parity_begin_autocast();
    fn tch_parity_end_autocast() -> *const c_char;
}

/// The types of devices, in the order of [`State`].
const DEVICES: [&str; 2] = ["cpu", "cuda"];

/// The dtypes, each with its number in `c10::ScalarType`.
const DTYPES: [(&str, i32); 4] = [("float16", 5), ("float32", 6), ("float64", 7), ("bfloat16", 15)];

/// What `torch.autocast` sets, of one type of devices or of several.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Autocast {
    /// By the type of the devices: whether it is on, and the number of its dtype.
    devices: Vec<(usize, bool, i32)>,
    /// Whether a weight that is casted twice is casted once.
    cache: bool,
}

impl Autocast {
    /// Returns a state in which nothing is set but whether casted weights are cached.
    pub(crate) fn new(cache: bool) -> Autocast {
        Autocast { devices: Vec::new(), cache }
    }

    /// Sets the state of a type of devices.
    ///
    /// # Errors
    /// Returns an error if the type is neither `cpu` nor `cuda`, or if the dtype, such as `bfloat16`, is none of floats.
    pub(crate) fn with(mut self, device: &str, enabled: bool, dtype: &str) -> Result<Autocast> {
        let at = DEVICES.iter().position(|known| *known == device);
        let at = at.with_context(|| format!("autocast on the device type {device:?}"))?;
        let found = DTYPES.iter().find(|(known, _)| *known == dtype);
        let (_, dtype) = found.with_context(|| format!("autocast to the dtype {dtype:?}"))?;
        self.devices.push((at, enabled, *dtype));
        Ok(self)
    }

    /// Lets what holds for devices of other types hold for those of this type.
    pub(crate) fn compute_on(&mut self, device: Device) {
        let to = match device {
            Device::Cpu => 0,
            Device::Cuda(_) => 1,
            _ => return,
        };
        self.devices.iter_mut().for_each(|(at, ..)| *at = to);
    }

    /// Sets the state of this thread until the guard is dropped, as `with torch.autocast(…):` does.
    ///
    /// # Errors
    /// Returns PyTorch's message.
    pub(crate) fn enter(&self) -> Result<AutocastGuard, TchError> {
        let extent = Extent::begin();
        let mut before = State::default();
        // SAFETY: it writes to the state, and what it returns is null or the message of this call, on this thread.
        unsafe { check(tch_parity_autocast(&mut before))? };
        let mut state = before;
        for &(at, enabled, dtype) in &self.devices {
            (state.enabled[at], state.dtype[at]) = (enabled.into(), dtype);
        }
        state.cache = self.cache.into();
        let guard = AutocastGuard { before, _extent: extent };
        // SAFETY: it reads the state, and what it returns is as above.
        unsafe { check(tch_parity_set_autocast(&state))? };
        Ok(guard)
    }
}

/// Puts the state of autocast back when it is dropped.
#[must_use]
#[derive(Debug)]
pub(crate) struct AutocastGuard {
    before: State,
    _extent: Extent,
}

impl Drop for AutocastGuard {
    fn drop(&mut self) {
        // SAFETY: it reads the state, and lets no exception out.
        unsafe { tch_parity_set_autocast(&self.before) };
    }
}

/// Is held by the thread that is within autocast: libtorch's cache of casted weights is one for all threads.
static CACHE: Mutex<()> = Mutex::new(());

thread_local! {
    /// How many extents of this thread are in each other.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
}

/// What is within one outermost `with torch.autocast`: until its end a weight is casted once.
#[must_use]
#[derive(Debug)]
pub(crate) struct Extent {
    _alone: Option<MutexGuard<'static, ()>>,
}

impl Extent {
    /// Begins an extent, or one within that of this thread. Another thread waits until the outermost one ends.
    pub(crate) fn begin() -> Extent {
        let outermost = DEPTH.get() == 0;
        let alone = outermost.then(|| CACHE.lock().unwrap_or_else(PoisonError::into_inner));
        DEPTH.set(DEPTH.get() + 1);
        // SAFETY: it counts.
        unsafe { tch_parity_begin_autocast() };
        Extent { _alone: alone }
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        DEPTH.set(DEPTH.get() - 1);
        // SAFETY: it counts, and lets no exception out.
        unsafe { tch_parity_end_autocast() };
    }
}

//! How libtorch computes: the settings behind [`Numerics`].

use std::env;
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Result, ensure};

use super::shim::{use_onednn_and_nnpack, uses_onednn_or_nnpack};
use crate::trace::Numerics;

/// TF32 rounds the factors of a matrix product to 10 bits: no run here uses it, whatever else is set.
const NO_TF32: (&str, &str) = ("NVIDIA_TF32_OVERRIDE", "0");

/// What lets cuBLAS add up in the same order every time
/// ([its documentation](https://docs.nvidia.com/cuda/cublas/#results-reproducibility)).
pub(super) const CUBLAS_WORKSPACE: (&str, &str) = ("CUBLAS_WORKSPACE_CONFIG", ":4096:8");

/// The variables of portable numerics.
const PORTABLE: [(&str, &str); 3] =
    [("ATEN_CPU_CAPABILITY", "default"), ("MKL_CBWR", "COMPATIBLE"), CUBLAS_WORKSPACE];

/// What [`Numerics::restart_with`] sets in the process that takes the place of this one.
const RESTARTED: &str = "TCH_PARITY_RESTARTED";

/// Switches oneDNN and NNPACK off in a process that was started again, before `main`: libtorch's switches are plain
/// variables, and no other thread can read them yet.
#[ctor::ctor(unsafe)]
fn continue_restart() {
    if env::var_os(RESTARTED).is_some() {
        // SAFETY: before `main` there is one thread, and libtorch, a shared library, is initialized.
        #[allow(unsafe_code)]
        unsafe {
            use_onednn_and_nnpack(false);
        }
    }
}

/// The variables that make MKL and oneDNN print to stdout, where only the program's own output belongs.
const VERBOSE: [&str; 3] = ["MKL_VERBOSE", "ONEDNN_VERBOSE", "DNNL_VERBOSE"];

impl Numerics {
    /// Makes libtorch, MKL and cuBLAS compute this way from now on.
    ///
    /// Portable numerics set `ATEN_CPU_CAPABILITY=default`, `MKL_CBWR=COMPATIBLE` and
    /// `CUBLAS_WORKSPACE_CONFIG=:4096:8`, which the libraries read when they first compute. They use no oneDNN, which
    /// compiles its kernels for the CPU that it meets, and no NNPACK, which is there only on some CPUs, and call [`set_for_thread`](Self::set_for_thread). Native
    /// numerics remove these variables, which the fingerprint does not tell. Both set `NVIDIA_TF32_OVERRIDE=0`, and
    /// remove what makes MKL and oneDNN print to stdout.
    ///
    /// # Safety
    /// No other thread may compute meanwhile, or read or write the process's environment other than by [`mod@std::env`].
    /// Call it at the start of `main`.
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
        for name in VERBOSE {
            // SAFETY: likewise.
            unsafe { env::remove_var(name) };
        }
        // SAFETY: likewise.
        unsafe { use_onednn_and_nnpack(self == Numerics::Native) };
        self.set_for_thread();
    }

    /// Returns how this thread computes, as far as its settings tell.
    pub fn in_use() -> Numerics {
        let portable = PORTABLE.iter().all(|(name, value)| env::var(name).as_deref() == Ok(value));
        if portable && tch::get_num_threads() == 1 && !uses_onednn_or_nnpack() {
            Numerics::Portable
        } else {
            Numerics::Native
        }
    }

    /// Starts this process again with the variables set, unless it computes this way already. This is for tests
    /// and examples.
    ///
    /// The new process has the same arguments and takes the place of this one, so the call does not return. That
    /// is safe whatever has been computed before, and in whichever thread; other threads end where they are.
    /// Native numerics need nothing.
    ///
    /// # Errors
    /// The process cannot be started again, or was started again and still does not compute this way.
    pub fn restart_with(self) -> Result<()> {
        self.set_for_thread();
        if self == Numerics::Native || Numerics::in_use() == self {
            return Ok(());
        }
        ensure!(
            env::var_os(RESTARTED).is_none(),
            "this process was started again for portable numerics, and something in it has changed them: \
             remove what sets ATEN_CPU_CAPABILITY, MKL_CBWR or the number of threads"
        );
        let mut again = Command::new(env::current_exe()?);
        again.args(env::args_os().skip(1)).envs(PORTABLE).env("OMP_NUM_THREADS", "1");
        Err(again.env(RESTARTED, "1").env(NO_TF32.0, NO_TF32.1).exec().into())
    }

    /// Makes the calling thread compute this way. Call it in every further thread that computes, since libtorch
    /// keeps the number of threads that an operation may use for each calling thread.
    ///
    /// Portable numerics use one thread, since MKL chooses other kernels for small matrices where it has two,
    /// whatever `MKL_CBWR` says.
    pub fn set_for_thread(self) {
        if self == Numerics::Portable {
            tch::set_num_threads(1);
        }
    }
}

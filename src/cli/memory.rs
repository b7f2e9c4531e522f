//! Memory of the C library, which libtorch's tensors are allocated from.

#![allow(unsafe_code)]

/// Lets the C library keep memory that is freed, for what is computed next.
///
/// By itself glibc gives the end of its heap back to the system after an operator, and takes it again for the next
/// one. The system then fills every page with zeros, which takes a tenth of the time of a replay.
pub(super) fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;

        unsafe extern "C" {
            fn mallopt(parameter: c_int, value: c_int) -> c_int;
        }
        const TRIM_THRESHOLD: c_int = -1;
        const MMAP_THRESHOLD: c_int = -3;
        // SAFETY: these set two numbers of the allocator, under its lock. The second is the largest that glibc chooses
        // by itself, which it no longer does once the first is set.
        unsafe {
            mallopt(TRIM_THRESHOLD, 1 << 29);
            mallopt(MMAP_THRESHOLD, 1 << 25);
        }
    }
}

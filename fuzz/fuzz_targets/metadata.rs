#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code)] // each target has its own
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = targets::metadata(bytes);
});

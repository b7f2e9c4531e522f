//! CUDA is loaded on demand, and an error says in one line why it cannot be used.

#![cfg(feature = "libtorch")]

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{ROOT, data, python, scratch, stdout, tch_parity};
use serde_json::{Value, json};
use tch::Device;
use tch_parity::{Criterion, Environment, Numerics, Trace, compare};

/// Returns the folder of the libtorch that the crate links.
fn libtorch() -> PathBuf {
    let named = std::env::var_os("LIBTORCH").map(PathBuf::from);
    named.unwrap_or_else(|| Path::new(ROOT).join("libtorch")).canonicalize().unwrap()
}

/// Creates a folder with libtorch's libraries, except those for which `leave_out` is true, and with the libraries
/// that they need beside it.
fn libtorch_without(name: &str, leave_out: impl Fn(&str) -> bool) -> PathBuf {
    let folder = scratch(name);
    let lib = folder.join("torch/lib");
    fs::create_dir_all(&lib).unwrap();
    for entry in fs::read_dir(libtorch().join("lib")).unwrap() {
        let entry = entry.unwrap();
        if !leave_out(entry.file_name().to_str().unwrap()) {
            symlink(entry.path(), lib.join(entry.file_name())).unwrap();
        }
    }
    let nvidia = libtorch().with_file_name("nvidia");
    if nvidia.exists() {
        symlink(nvidia, folder.join("nvidia")).unwrap();
    }
    lib
}

fn assert_refused(command: &mut Command, says: &[&str]) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(output.stdout.is_empty(), "{command:?}");
    for says in says {
        assert!(stderr.contains(says), "{says}: {stderr}");
    }
    assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
}

fn on(device: &str) -> Command {
    let mut command = tch_parity();
    command.args(["notebook", "--device", device]);
    command
}

#[test]
fn a_device_that_does_not_exist_is_refused() {
    for device in ["gpu", "cuda:", "cuda:-1", "cuda:128", "cuda:1x", "CPU", "vulkan", ""] {
        assert_refused(&mut on(device), &["a device is cpu, cuda, cuda:N, mps or auto"]);
    }
    assert_refused(&mut on("mps"), &["error: device mps:0: ", "has no MPS"]);
    // The error says that no machine has this device, or why there is no CUDA device at all.
    assert_refused(&mut on("cuda:99"), &["error: device cuda:99: "]);
    let mut check = tch_parity();
    check.args(["check", "--device", "cuda:99"]).arg(data("cases"));
    let output = check.output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("error: device cuda:99: "));
}

#[test]
fn a_libtorch_without_cuda_is_named_and_auto_takes_the_cpu() {
    let lib = libtorch_without("device_cpu_only", |name| name.contains("cuda"));
    let with = |device| {
        let mut command = on(device);
        command.env("LD_LIBRARY_PATH", &lib);
        command
    };
    let missing = format!("is a CPU build: there is no libtorch_cuda.so in {}", lib.display());
    assert_refused(&mut with("cuda"), &["error: device cuda:0: ", &missing]);
    let output = with("auto").output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(stderr.starts_with("device auto: cpu (") && stderr.contains(&missing), "{stderr}");
    assert_eq!(stdout(&output), stdout(&on("cpu").output().unwrap()));
}

#[test]
fn a_cuda_library_that_cannot_be_loaded_is_named() {
    let lib = libtorch_without("device_broken", |name| name.contains("cuda"));
    // The library is an empty file, so the machine need not have CUDA.
    fs::write(lib.join("libtorch_cuda.so"), "").unwrap();
    let says = format!("cannot load {}/libtorch_cuda.so: ", lib.display());
    assert_refused(on("cuda").env("LD_LIBRARY_PATH", &lib), &[&says, "file too short"]);
}

#[test]
fn a_run_on_the_cpu_loads_no_library_of_cudas_but_what_libtorch_cpu_needs() {
    let ldd = Command::new("ldd").arg(libtorch().join("lib/libtorch_cpu.so")).output().unwrap();
    let needed = stdout(&ldd);
    let needed = needed.split_whitespace().collect::<HashSet<_>>();
    let log = scratch("device_loaded").join("log");
    stdout(&on("cpu").env("LD_DEBUG", "libs").env("LD_DEBUG_OUTPUT", &log).output().unwrap());
    let log = fs::read_dir(log.parent().unwrap()).unwrap().next().unwrap().unwrap();
    let log = fs::read_to_string(log.path()).unwrap();
    let loaded = log.lines().filter_map(|line| line.split_once("calling init: "));
    let loaded = loaded.map(|(_, path)| path.rsplit('/').next().unwrap()).collect::<Vec<_>>();
    assert!(loaded.contains(&"libtorch_cpu.so"), "{loaded:?}");
    let of_cuda = |name: &&str| {
        name.contains("cuda") || name.starts_with("libcu") || name.starts_with("libnv")
    };
    for name in loaded.into_iter().filter(of_cuda) {
        assert!(needed.contains(name), "{name} is loaded, and libtorch_cpu.so needs {needed:?}");
    }
}

/// Returns the fingerprint of this machine with some fields changed.
fn environment(changes: Value) -> Environment {
    let here = Environment::current(Numerics::Portable, Device::Cpu).unwrap();
    let mut fields = serde_json::to_value(here).unwrap();
    for (name, value) in changes.as_object().unwrap() {
        fields[name] = value.clone();
    }
    serde_json::from_value(fields).unwrap()
}

fn gpu(name: &str, cudnn: &str, cpu: &str) -> Environment {
    let cuda =
        json!({"runtime": "13.0", "cudnn": cudnn, "cublas_workspace": ":4096:8", "tf32": false});
    let device = "cuda:0";
    environment(json!({"device": device, "device_name": name, "cuda": cuda, "cpu_capability": cpu}))
}

#[test]
fn the_same_bits_are_promised_on_gpus_of_one_kind_alone() {
    let (cpu, h100) = (environment(json!({})), gpu("H100", "9", "AVX2"));
    assert_eq!(cpu.promise_of_same_bits(&cpu), Some("both use portable numerics"));
    // The CPU beside the GPU does not matter.
    let again = gpu("H100", "9", "AVX512");
    assert_eq!(
        h100.promise_of_same_bits(&again),
        Some("portable numerics on the same kind of GPU")
    );
    for other in [&cpu, &gpu("A100", "9", "AVX2"), &gpu("H100", "8", "AVX2")] {
        assert_eq!(h100.promise_of_same_bits(other), None);
        assert_eq!(other.promise_of_same_bits(&h100), None);
    }
    let said = h100.differences(&cpu).join("; ");
    assert!(said.contains(r#"device "cuda:0" here, "cpu" there"#), "{said}");
    assert!(said.contains(r#""tf32":false} here, null there"#), "{said}");
    assert!(cpu.differences(&h100).join("; ").contains("cuda null here, {"), "{said}");
}

#[test]
fn a_gpus_results_have_a_row_of_their_own_in_the_table() {
    let of = |value: f32| {
        let mut trace = Trace::new();
        trace.push("t", &tch::Tensor::from_slice(&[value, 1e-3])).unwrap();
        trace
    };
    let (expected, near, far) = (of(1.), of(1. + 5e-6), of(1. + 2e-5));
    assert!(!compare(&near, &expected, Criterion::Close).passes());
    assert!(compare(&near, &expected, Criterion::CloseToGpu).passes());
    assert!(!compare(&far, &expected, Criterion::CloseToGpu).passes());
}

/// Runs only where there is a GPU. Otherwise it says so on stderr, although the output of tests is captured.
#[test]
fn on_a_gpu_everything_is_as_the_documentation_says() {
    let mut command = python();
    command
        .arg(Path::new(ROOT).join("scripts/check_cuda.py"))
        .arg(env!("CARGO_BIN_EXE_tch-parity"));
    let output = command.arg("--out").arg(scratch("device_cuda")).output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    match output.status.code() {
        Some(3) => writeln!(std::io::stderr(), "SKIPPED, the checks on a GPU: {report}").unwrap(),
        code => assert_eq!(code, Some(0), "{report}{}", String::from_utf8_lossy(&output.stderr)),
    }
}

#[test]
fn a_libtorch_of_another_version_than_that_of_the_build_is_an_error() {
    let folder = scratch("device_version");
    let (source, library) = (folder.join("version.cpp"), folder.join("version.so"));
    // This function of libtorch's then reports the version 9.8.7.
    let text =
        r#"extern "C" unsigned long aoti_torch_abi_version() { return 0x0908070000000000; }"#;
    fs::write(&source, text).unwrap();
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let mut compile = Command::new(compiler);
    stdout(&compile.args(["-shared", "-fPIC", "-o"]).args([&library, &source]).output().unwrap());
    for args in [&["notebook"][..], &["--version"]] {
        let mut command = tch_parity();
        command.args(args).env("LD_PRELOAD", &library);
        assert_refused(
            &mut command,
            &["error: built with libtorch 2.1", ", and loads 9.8.7 from /"],
        );
    }
}

#[test]
fn the_version_is_that_of_the_program_and_of_libtorch() {
    let version = tch_parity::libtorch_version().unwrap();
    let expected = format!("tch-parity {} (libtorch {version})\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(stdout(&tch_parity().arg("--version").output().unwrap()), expected);
    let torch = python().args(["-c", "import torch; print(torch.__version__)"]).output().unwrap();
    assert_eq!(stdout(&torch).split(['+', '\n']).next(), Some(version.as_str()));
}

//! The functions that the tests share: they run PyTorch and the binary, and compare traces to the bit.

#![allow(dead_code, unused_imports)] // each test file uses only some of these

pub(crate) mod programs;
mod python;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::SystemTime;

use tch_parity::Trace;

pub(crate) use python::{interpreter, python, pytorch, record};

pub(crate) const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Returns the path of a file of `tests/data/`. The README there says where each file comes from.
pub(crate) fn data(name: &str) -> PathBuf {
    Path::new(ROOT).join("tests/data").join(name)
}

/// Creates an empty folder for one test.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// Returns a new seed for every run, or the one in TCH_PARITY_SEED, which repeats a failure.
pub(crate) fn seed() -> String {
    env::var("TCH_PARITY_SEED").unwrap_or_else(|_| {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        now.as_nanos().to_string()
    })
}

/// A generator of random numbers: Marsaglia's xorshift64.
pub(crate) struct Random(u64);

impl Random {
    /// Creates a generator that begins with `seed`.
    pub(crate) fn new(seed: &str) -> Random {
        let add = |state: u64, byte| state.wrapping_mul(257) + u64::from(byte);
        Random(seed.bytes().fold(1, add) | 1)
    }

    /// Returns a number below `n`, or 0 if there is none.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n.max(1) as u64) as usize
    }
}

/// Returns a command that runs the built `tch-parity`.
pub(crate) fn tch_parity() -> Command {
    Command::new(env!("CARGO_BIN_EXE_tch-parity"))
}

/// Runs such a program, and returns the path of the case that it records and what it prints to stderr.
pub(crate) fn recorded_file(name: &str, program: &str) -> (PathBuf, String) {
    let folder = scratch(name);
    let output = record(&folder, program);
    stdout(&output);
    (folder.join("case.safetensors"), String::from_utf8(output.stderr).unwrap())
}

/// Asserts that a run succeeded, and returns its stdout.
pub(crate) fn stdout(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{stderr}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Lists everything in which two traces differ: names, order, dtypes, shapes, strides and bits.
pub(crate) fn differences(actual: &Trace, expected: &Trace) -> Vec<String> {
    let mut differences = Vec::new();
    let strides = |name: &str| [actual.strides(name), expected.strides(name)];
    for (name, expected) in expected.iter() {
        let Some(actual) = actual.get(name) else {
            differences.push(format!("{name} is missing"));
            continue;
        };
        if (actual.dtype(), actual.shape()) != (expected.dtype(), expected.shape()) {
            differences.push(format!(
                "{name} is {} {:?}, not {} {:?}",
                actual.dtype(),
                actual.shape(),
                expected.dtype(),
                expected.shape()
            ));
        } else if strides(name)[0] != strides(name)[1] {
            differences
                .push(format!("{name} has strides {:?}, the second are expected", strides(name)));
        } else if actual.data() != expected.data() {
            let at = actual.data().iter().zip(expected.data()).position(|(a, b)| a != b);
            differences.push(format!("{name} differs at byte {}", at.unwrap()));
        }
    }
    for name in actual.names().filter(|name| expected.get(name).is_none()) {
        differences.push(format!("{name} is not expected"));
    }
    if differences.is_empty() && !actual.names().eq(expected.names()) {
        differences.push("the order differs".to_owned());
    }
    differences
}

pub(crate) fn assert_same(actual: &Trace, expected: &Trace) {
    assert_eq!(differences(actual, expected), Vec::<String>::new());
}

/// The fenced blocks of a page: the line before each, its language, and its text.
pub(crate) fn blocks(page: &str) -> Vec<(&str, &str, &str)> {
    let mut blocks = Vec::new();
    let mut rest = page;
    while let Some((before, after)) = rest.split_once("\n```") {
        let (language, after) = after.split_once('\n').unwrap();
        let (text, after) = after.split_once("```\n").unwrap();
        blocks.push((before.trim_end().rsplit('\n').next().unwrap(), language, text));
        rest = after;
    }
    blocks
}

/// The commands of a console block, each with the output that it shows.
pub(crate) fn examples(block: &str) -> Vec<(&str, &str)> {
    let starts = block.match_indices("$ ").map(|(at, _)| at);
    let starts = starts.filter(|&at| at == 0 || block[..at].ends_with('\n')).collect::<Vec<_>>();
    let ends = starts.iter().skip(1).copied().chain([block.len()]);
    let examples = starts.iter().zip(ends).map(|(&start, end)| &block[start + 2..end]);
    examples.map(|example| example.split_once('\n').unwrap_or((example, ""))).collect()
}

/// Asserts that a command printed what is shown: `…` stands for any number of lines, or for the rest of a line.
pub(crate) fn assert_shown(command: &str, shown: &str, printed: &str) {
    let mut lines = printed.trim_end().lines();
    let mut any = false;
    for line in shown.trim_end().lines() {
        if line == "…" {
            any = true;
            continue;
        }
        let fits = |printed: &str| match line.strip_suffix('…') {
            Some(start) => printed.starts_with(start.trim_end()),
            None => printed.trim_end() == line.trim_end(),
        };
        let found = if any { lines.any(fits) } else { lines.next().is_some_and(fits) };
        assert!(found, "$ {command}\nshows {line:?}, and prints\n{printed}");
        any = false;
    }
    let further = lines.next();
    assert!(any || further.is_none(), "$ {command}\ndoes not show {further:?} of\n{printed}");
}

/// Returns the libtorch that this crate was built with.
pub(crate) fn libtorch() -> PathBuf {
    env::var_os("LIBTORCH").map_or_else(|| Path::new(ROOT).join("libtorch"), PathBuf::from)
}

/// Lets cargo find below a folder what it built for this crate: in its target directory, with its profile. torch-sys
/// alone takes minutes.
pub(crate) fn share_build(folder: &Path) {
    let target = Path::new(ROOT).join("target");
    let config = format!(
        "[build]\ntarget-dir = {target:?}\n[profile.dev]\nopt-level = 0\ndebug = false\n\
         [profile.dev.package.\"*\"]\nopt-level = 0\ndebug = false\n\
         [profile.dev.package.safetensors]\nopt-level = 3\n\
         [profile.dev.package.serde_json]\nopt-level = 3\n\
         [profile.dev.package.sha2]\nopt-level = 3\n"
    );
    fs::create_dir_all(folder.join(".cargo")).unwrap();
    fs::write(folder.join(".cargo/config.toml"), config).unwrap();
}

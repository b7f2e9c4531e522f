//! The Python of the reference, with torch imported once for all that the tests run.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::os::unix::process::parent_id;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Output, Stdio};
use std::sync::LazyLock;

use super::{ROOT, stdout};

/// Where the server listens, which forks for every program. It is there until the process ends that it is for: cargo,
/// which runs one test file after the other, or this one where somebody runs it alone.
#[expect(clippy::zombie_processes, reason = "it ends by itself, after this process")]
static SERVER: LazyLock<PathBuf> = LazyLock::new(|| {
    let process = if env::var_os("CARGO").is_some() { parent_id() } else { process::id() };
    // A socket's path may have some hundred bytes, which that of a target directory can exceed.
    let socket = env::temp_dir().join(format!("tch-parity-tests-{process}"));
    if UnixStream::connect(&socket).is_ok() {
        return socket;
    }
    let _ = fs::remove_file(&socket);
    let mut command = Command::new(interpreter());
    command.arg(script()).arg(&socket).args(["serve", &process.to_string()]);
    let server = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut server = server.unwrap_or_else(|err| {
        panic!(
            "no PyTorch to compare with ({err}): run scripts/setup, or name in TCH_PARITY_PYTHON a Python \
             that has scripts/requirements.txt and python/ installed"
        )
    });
    let mut said = String::new();
    BufReader::new(server.stdout.take().unwrap()).read_line(&mut said).unwrap();
    assert_eq!(said, "ready\n", "the Python of the tests cannot import torch");
    socket
});

/// Returns the interpreter that TCH_PARITY_PYTHON names, or else that of `.venv`.
pub(crate) fn interpreter() -> PathBuf {
    let named = env::var_os("TCH_PARITY_PYTHON").map(PathBuf::from);
    named.unwrap_or_else(|| Path::new(ROOT).join(".venv/bin/python"))
}

fn script() -> PathBuf {
    Path::new(ROOT).join("tests/common/server.py")
}

/// Returns a command that runs the Python of the reference, with torch imported before it begins.
pub(crate) fn python() -> Command {
    let mut command = Command::new(interpreter());
    command.args(["-I", "-S"]).arg(script()).arg(&*SERVER).arg("run");
    command
}

/// Returns what a Python script of this repository prints under the reference's PyTorch.
pub(crate) fn pytorch(script: &str, args: &[&str]) -> String {
    stdout(&python().arg(Path::new(ROOT).join(script)).args(args).output().unwrap())
}

/// Runs a Python program that uses the recorder. It asks for no program of the model, which takes seconds.
pub(crate) fn record(folder: &Path, program: &str) -> Output {
    let program = format!(
        "import functools, sys\nfrom tch_parity import Recorder, compute_with\n\
         Recorder = functools.partial(Recorder, program=False)\n\
         import torch\nfrom torch import nn\ncompute_with('portable')\ntorch.manual_seed(0)\n{program}"
    );
    let mut command = python();
    command.args(["-c", &program]).current_dir(folder);
    command.output().unwrap()
}

//! Whatever a user hands in, `tch-parity` does it or says in one line why not: exit code 2, nothing on
//! stdout, no panic, no backtrace, nothing half-written.

mod common;

use std::ffi::OsStr;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{data, scratch, tch_parity};

fn assert_refused(command: &mut Command, says: &str) {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{command:?}\n{stderr}");
    assert!(output.stdout.is_empty(), "{command:?}");
    assert!(stderr.starts_with("error: ") && stderr.contains(says), "{command:?}\n{stderr}");
    assert_eq!(stderr.matches('\n').count(), 1, "{command:?}\n{stderr}");
}

fn assert_args_refused(args: &[&str], says: &str) {
    assert_refused(tch_parity().args(args), says);
}

/// A safetensors file of this header, made as the format's specification says.
fn safetensors(folder: &Path, name: &str, header: &str, data: &[u8]) -> PathBuf {
    let file = folder.join(name);
    let length = (header.len() as u64).to_le_bytes();
    fs::write(&file, [&length, header.as_bytes(), data].concat()).unwrap();
    file
}

fn show(file: impl AsRef<OsStr>) -> Command {
    let mut command = tch_parity();
    command.arg("show").arg(file);
    command
}

#[test]
fn wrong_arguments() {
    assert_args_refused(&[], "requires a subcommand");
    assert_args_refused(&["notebok"], "notebok");
    assert_args_refused(&["notebook", "--bogus"], "--bogus");
    assert_args_refused(&["show"], "FILE");
    for steps in ["0", "-3", "100001", "99999999999999999999", "1.5", "many"] {
        assert_args_refused(&["notebook", "--steps", steps], steps);
    }
    for lr in ["nan", "inf", "1e400", "-0.1", "fast", ""] {
        assert_args_refused(&["notebook", "--lr", lr], "--lr");
    }
}

#[test]
fn a_learning_rate_that_float32_cannot_hold() {
    assert_args_refused(
        &["notebook", "--lr", "1e300"],
        "error: step 1: value cannot be converted to type float without overflow",
    );
}

#[test]
fn files_that_cannot_be_read() {
    let folder = scratch("bad_input_unreadable");
    assert_refused(&mut show(folder.join("none")), "No such file");
    assert_refused(&mut show(&folder), "not a regular file");
    assert_refused(&mut show("/dev/zero"), "not a regular file");
    let file = data("notebook.safetensors");
    assert_refused(show(&file).args(["grad/z", "grad/q"]), "holds no tensor \"grad/q\"");
}

#[test]
fn files_that_are_damaged() {
    let folder = scratch("bad_input_damaged");
    let whole = fs::read(data("notebook.safetensors")).unwrap();
    let file = folder.join("truncated");
    for length in [0, 1, 7, 8, 9, 100, whole.len() / 2, whole.len() - 1] {
        fs::write(&file, &whole[..length]).unwrap();
        assert_refused(&mut show(&file), "not a safetensors file, or a damaged one");
    }
    fs::write(&file, [&whole[..], b"x"].concat()).unwrap();
    assert_refused(&mut show(&file), "not a safetensors file, or a damaged one");
    fs::write(&file, "model = ThreeLayerNet(2, 2, 3)\n").unwrap();
    assert_refused(&mut show(&file), "not a safetensors file, or a damaged one");
}

#[test]
fn files_that_hold_what_cannot_be_shown() {
    let folder = scratch("bad_input_unsupported");
    let tensor = |dtype: &str, shape: &str, bytes: usize| {
        let header =
            format!(r#"{{"t":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{bytes}]}}}}"#);
        show(safetensors(&folder, "one", &header, &vec![0; bytes]))
    };
    assert_refused(&mut tensor("U64", "[1]", 8), "t: dtype U64 is not supported");
    assert_refused(&mut tensor("F32", "[0,9223372036854775808]", 0), "t: out of range");
    assert_refused(&mut tensor("F32", "[0,4611686018427387904,4]", 0), "t: ");
    let deep = format!("[1{}]", ",1".repeat(99_999));
    assert_refused(
        &mut tensor("F32", &deep, 4),
        "t: tensor kind error: cannot print a tensor of 100000 dim",
    );
}

#[test]
fn files_that_record_an_order_of_other_names() {
    let folder = scratch("bad_input_order");
    for (metadata, says) in [
        (r#"{\"format\":1,\"order\":[\"a\",\"b\"]}"#, "names b"),
        (r#"{\"format\":1,\"order\":[\"a\",\"a\"]}"#, "names a twice"),
        (r#"{\"format\":1,\"order\":[]}"#, "leaves out a"),
        (r#"{\"format\":1,\"order\":[1]}"#, "expected a string"),
        (r#"{\"format\":1}"#, "missing field `order`"),
        (r#"{\"format\":1,\"order\":[\"a\"],\"runs\":1}"#, "unknown field `runs`"),
        (r#"{\"format\":2,\"anything\":[]}"#, "format 2 is unknown"),
        ("3", "in the metadata under tch-parity"),
        ("{", "in the metadata under tch-parity"),
    ] {
        let header = format!(
            r#"{{"__metadata__":{{"tch-parity":"{metadata}"}},"a":{{"dtype":"F32","shape":[],"data_offsets":[0,4]}}}}"#
        );
        assert_refused(&mut show(safetensors(&folder, "file", &header, &[0; 4])), says);
    }
}

#[test]
fn a_bool_of_another_byte_is_true_as_in_pytorch() {
    let header = r#"{"b":{"dtype":"BOOL","shape":[3],"data_offsets":[0,3]}}"#;
    let file = safetensors(&scratch("bad_input_bool"), "bool", header, &[2, 0, 1]);
    assert_eq!(common::stdout(&show(file).output().unwrap()), "b\ttensor([ True, False,  True])\n");
}

#[test]
fn recordings_that_cannot_be_written() {
    let folder = scratch("bad_input_record");
    let record = |file: &Path| {
        let mut command = tch_parity();
        command.args(["notebook", "--record"]).arg(file);
        command
    };
    assert_refused(&mut record(&folder.join("none/run")), "No such file");
    assert_refused(&mut record(&folder), "not a regular file");
    assert_refused(&mut record(Path::new("/dev/null")), "not a regular file");
    assert_refused(&mut record(&folder.join("n".repeat(300))), "File name too long");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn a_stdout_that_takes_no_more() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let output = tch_parity().arg("notebook").stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let output = output.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "error: stdout: No space left on device (os error 28)\n"
    );
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut show = show(data("tensor_str/tensors.safetensors"));
    let mut child = show.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take()); // as `| head -0`
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

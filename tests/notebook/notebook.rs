//! The notebook prints and computes what PyTorch does, to the byte and to the bit.

#![cfg(feature = "libtorch")]

use std::fs;
use std::path::Path;

use crate::common::{assert_same, data, pytorch, scratch, stdout, tch_parity};
use tch_parity::notebook::{LR, Notebook};
use tch_parity::{Replay, Trace};

#[test]
fn stdout_is_the_stored_text_and_stderr_is_empty() {
    let output = tch_parity().arg("notebook").output().unwrap();
    assert_eq!(stdout(&output), fs::read_to_string(data("notebook.txt")).unwrap());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn stdout_and_recording_are_what_pytorch_writes_now() {
    let folder = scratch("notebook_live");
    for args in [
        ["--lr", "0.1", "--steps", "1"],
        ["--lr", "0.7", "--steps", "20"],
        ["--lr", "1e30", "--steps", "3"],
    ] {
        let (ours, theirs) = (folder.join("ours.safetensors"), folder.join("theirs.safetensors"));
        let output =
            tch_parity().arg("notebook").args(args).arg("--record").arg(&ours).output().unwrap();
        let mut reference = vec!["notebook"];
        reference.extend(args);
        reference.extend(["--record", theirs.to_str().unwrap()]);
        assert_eq!(stdout(&output), pytorch("scripts/reference.py", &reference), "{args:?}");
        assert_same(&Trace::load(&ours).unwrap(), &Trace::load(&theirs).unwrap());
        assert!(
            fs::read(&ours).unwrap() == fs::read(&theirs).unwrap(),
            "{args:?}: other bytes in the file"
        );
    }
}

/// Runs the binary, since portable numerics are chosen for a whole process, before libtorch computes.
fn recorded(steps: &str) -> Trace {
    let file = scratch(&format!("notebook_{steps}")).join("run.safetensors");
    let args = ["notebook", "--steps", steps, "--record", file.to_str().unwrap()];
    stdout(&tch_parity().args(args).output().unwrap());
    Trace::load(&file).unwrap()
}

#[test]
fn every_tensor_of_20_steps_is_the_stored_one() {
    let stored = Trace::load(data("notebook.safetensors")).unwrap();
    assert_same(&recorded("20"), &stored);
    // This is the number of tensors that a run has to have, in case both sides lack the same ones.
    assert_eq!(stored.names().count(), 2 + 6 + 8 + 7 + 6 + 20 * 7);
}

#[test]
fn one_step_is_the_start_of_20() {
    let stored = Trace::load(data("notebook.safetensors")).unwrap();
    let one = recorded("1");
    assert_eq!(one.names().count(), 2 + 6 + 8 + 7 + 6 + 7);
    for (name, tensor) in one.iter() {
        assert_eq!(Some(tensor), stored.get(name), "{name}");
    }
}

#[test]
fn a_recording_is_read_as_it_was_written() {
    let file = scratch("notebook_record").join("run.safetensors");
    let trace = Notebook::run(LR, 2, tch::Device::Cpu).unwrap().trace;
    trace.save(&file).unwrap();
    assert_same(&Trace::load(&file).unwrap(), &trace);
    trace.save(&file).unwrap(); // over the first one
    assert_eq!(
        fs::read_dir(file.parent().unwrap()).unwrap().count(),
        1,
        "a temporary file was left"
    );
}

#[test]
fn reference_script_reproduces_what_is_stored() {
    let folder = scratch("notebook_stored");
    pytorch("scripts/reference.py", &["stored", "--out", folder.to_str().unwrap()]);
    let text = |path: &Path| fs::read_to_string(path).unwrap();
    assert_eq!(text(&folder.join("notebook.txt")), text(&data("notebook.txt")));
    let mut files = vec![Path::new("notebook.safetensors").to_owned()];
    for entry in fs::read_dir(data("cases")).unwrap() {
        files.push(Path::new("cases").join(entry.unwrap().file_name()));
    }
    assert!(files.len() >= 10);
    for file in files {
        // The two files differ only in their environments, which are those of the machines that wrote them.
        let [now, stored] =
            [folder.clone(), data("")].map(|folder| Replay::load(folder.join(&file)).unwrap());
        assert_eq!(now.run, stored.run, "{}", file.display());
        assert_same(&now.case.trace, &stored.case.trace);
    }
}

#[test]
fn the_notebooks_own_optimizer_would_step_nothing() {
    assert_eq!(
        pytorch("tests/pytorch.py", &["optimizer"]),
        "notebook: holds 0 of the model's 6 parameters, changed 0\n\
         ours: holds 6 of the model's 6 parameters, changed 6\n"
    );
}

//! The worksheet as a Jupyter notebook is valid, and its outputs are those that its cells have under PyTorch.

#![cfg(feature = "libtorch")]

mod common;

use std::path::PathBuf;

use common::{data, pytorch, scratch, stdout, tch_parity};

#[test]
fn notebooks_execute_to_the_outputs_that_they_hold() {
    let folder = scratch("jupyter");
    let mut files: Vec<PathBuf> = Vec::new();
    for case in ["", "cases/nesterov", "cases/float64", "cases/subnormal"] {
        let file = folder.join(format!("{}.ipynb", case.replace('/', "-")));
        let mut command = tch_parity();
        command.args(["worksheet", "--format", "ipynb", "--output"]).arg(&file);
        if !case.is_empty() {
            command.arg(data(&format!("{case}.safetensors")));
        }
        assert_eq!(stdout(&command.output().unwrap()), "");
        files.push(file);
    }
    let names = files.iter().map(|file| file.to_str().unwrap()).collect::<Vec<_>>();
    let expected =
        names.iter().map(|name| format!("{name}: 15 cells, 11 of code, 5 with outputs\n"));
    assert_eq!(pytorch("tests/notebook.py", &names), expected.collect::<String>());
}

/// Checks, as a control, that the test above detects a changed output.
#[test]
fn an_output_that_is_not_what_comes_out_is_seen() {
    let file = scratch("jupyter_control").join("changed.ipynb");
    let args = ["worksheet", "--format", "ipynb", "--output", file.to_str().unwrap()];
    stdout(&tch_parity().args(args).output().unwrap());
    let notebook = std::fs::read_to_string(&file).unwrap();
    let changed = notebook.replace("L \\t tensor(1.3133)", "L \\t tensor(1.3134)");
    assert_ne!(notebook, changed);
    std::fs::write(&file, changed).unwrap();
    let said = pytorch("tests/notebook.py", &[file.to_str().unwrap()]);
    assert_eq!(said.matches("DIFFERS in cell-9").count(), 1, "{said}");
}

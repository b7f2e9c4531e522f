//! The worksheet as a Jupyter notebook is valid, and its outputs are those that its cells have under PyTorch.

#![cfg(feature = "libtorch")]

use std::path::PathBuf;

use serde_json::{Value, json};
use tch_parity::{Environment, Trace};

use crate::common::{data, pytorch, scratch, seed, stdout, tch_parity};

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

/// Checks the line that builds the optimizer, which PyTorch has to accept.
#[test]
fn notebooks_of_runs_of_any_optimizer_execute() {
    let (folder, seed) = (scratch("jupyter_optimizers"), seed());
    println!("to repeat: TCH_PARITY_SEED={seed}");
    let out = folder.to_str().unwrap();
    pytorch("scripts/reference.py", &["random", "--count", "3", "--seed", &seed, "--out", out]);
    let cases = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let cases = cases.collect::<Vec<_>>();
    let files = cases.iter().map(|case| case.with_extension("ipynb")).collect::<Vec<_>>();
    for (case, file) in cases.iter().zip(&files) {
        let mut command = tch_parity();
        command.args(["worksheet", "--format", "ipynb", "--output"]).args([file, case]);
        assert_eq!(stdout(&command.output().unwrap()), "");
    }
    let names = files.iter().map(|file| file.to_str().unwrap()).collect::<Vec<_>>();
    let said = pytorch("tests/notebook.py", &names);
    assert_eq!(said.matches(": 15 cells, 11 of code, 5 with outputs\n").count(), 3, "{said}");
}

/// A group may take back what all groups share, so it writes out what is PyTorch's default, too.
#[test]
fn a_group_writes_out_what_it_has_of_its_own() {
    let stored = Trace::load(data("cases/nesterov.safetensors")).unwrap();
    let mut run = stored.run::<Value>().unwrap().unwrap();
    run["optimizer"]["groups"] = json!([
        { "parameters": ["fc1.weight", "fc2.weight"] },
        { "parameters": ["fc1.bias"], "momentum": 0.0, "nesterov": false, "foreach": true },
    ]);
    let mut trace = Trace::new();
    trace.describe(&run, &stored.environment::<Environment>().unwrap().unwrap()).unwrap();
    for (name, view) in stored.iter() {
        trace.push_view(name, &view).unwrap();
    }
    let file = scratch("jupyter_groups").join("groups.safetensors");
    trace.save(&file).unwrap();
    let mut command = tch_parity();
    command.args(["worksheet", "--format", "ipynb"]).arg(&file);
    let notebook = serde_json::from_str::<Value>(&stdout(&command.output().unwrap())).unwrap();
    let cells = notebook["cells"].as_array().unwrap().iter();
    let lines = cells.flat_map(|cell| cell["source"].as_array().unwrap());
    let source = lines.map(|line| line.as_str().unwrap()).collect::<String>();
    // In the order of the metadata, which `json!` sorts by name.
    let expected = "optimizer = torch.optim.SGD([\n    \
         {\"params\": [model.fc1.weight, model.fc2.weight]},\n    \
         {\"params\": [model.fc1.bias], \"momentum\": 0.0, \"nesterov\": False},\n\
         ], lr=0.05, momentum=0.9, nesterov=True, weight_decay=0.01)";
    assert!(source.contains(expected), "{source}");
}

/// Checks, as a control, that the first test detects a changed output.
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

//! What the tests of programs share: recorded models, `check`, and changes of a program.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value as Json;
use tch_parity::Trace;

use super::{pytorch, scratch, seed, tch_parity};

/// A change of a program.
pub(crate) type Edit = fn(&mut Json);

/// Returns the exit code of `check`, and what it writes.
pub(crate) fn check(path: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = tch_parity();
    let output = command.arg("check").arg(path).args(args).env_remove("GITHUB_ACTIONS").output();
    let output = output.unwrap();
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(!text.contains("panicked") && !text.contains("backtrace"), "{text}");
    (output.status.code(), text)
}

/// Records the models of `tests/programs.py` that are named, or all.
pub(crate) fn recorded(name: &str, models: &[&str]) -> PathBuf {
    let folder = scratch(name);
    let seed = (seed().parse::<u128>().unwrap_or(1) % 1_000_000).to_string();
    let args = [&[folder.to_str().unwrap(), &*seed], models].concat();
    pytorch("tests/programs.py", &args);
    folder
}

/// Returns the first node of an operator.
pub(crate) fn find<'a>(graph: &'a mut Json, operator: &str) -> &'a mut Json {
    let target = format!("torch.ops.aten.{operator}");
    nodes(graph).iter_mut().find(|node| node["target"] == target).unwrap()
}

pub(crate) fn nodes(graph: &mut Json) -> &mut Vec<Json> {
    graph["graph_module"]["graph"]["nodes"].as_array_mut().unwrap()
}

pub(crate) fn argument<'a>(node: &'a mut Json, name: &str) -> &'a mut Json {
    let inputs = node["inputs"].as_array_mut().unwrap();
    &mut inputs.iter_mut().find(|input| input["name"] == name).unwrap()["arg"]
}

/// Writes a case with another program, and returns its path.
pub(crate) fn edited(folder: &Path, name: &str, edit: impl Fn(&mut Json)) -> PathBuf {
    let case = Trace::load(folder.join(name).with_extension("safetensors")).unwrap();
    let mut graph = serde_json::from_slice(case.get("program/graph").unwrap().data()).unwrap();
    edit(&mut graph);
    with_graph(folder, name, &serde_json::to_vec(&graph).unwrap())
}

pub(crate) fn with_graph(folder: &Path, name: &str, graph: &[u8]) -> PathBuf {
    let case = Trace::load(folder.join(name).with_extension("safetensors")).unwrap();
    let other = copied(&case, |_| true, graph);
    let file = folder.join("edited").with_extension("safetensors");
    other.save(&file).unwrap();
    file
}

/// Returns the tensors and digests of a case whose names fit, with another program unless that is empty.
pub(crate) fn copied(case: &Trace, keep: impl Fn(&str) -> bool, graph: &[u8]) -> Trace {
    let mut other = Trace::new();
    for name in case.names().filter(|name| keep(name)) {
        let Some(view) = case.get(name) else {
            other.push_digest(name, case.digest(name).unwrap()).unwrap();
            continue;
        };
        let changed = name == "program/graph" && !graph.is_empty();
        let graph = TensorView::new(Dtype::U8, vec![graph.len()], graph).unwrap();
        other.push_view(name, if changed { &graph } else { &view }).unwrap();
    }
    let run = case.run::<Json>().unwrap().unwrap();
    let environment = case.environment::<Json>().unwrap().unwrap();
    other.describe(&run, &environment).unwrap();
    other
}

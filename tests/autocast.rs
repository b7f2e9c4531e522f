//! Runs under torch.autocast: what a case says of it decides the bits, and is checked. The models are in
//! `tests/models_under_autocast.py`, and `tests/models.rs` replays them.

#![cfg(feature = "libtorch")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use common::programs::{Edit, check, copied, edited, nodes, recorded};
use common::{python, scratch, stdout, tch_parity};
use serde_json::{Value as Json, json};
use tch_parity::{Case, Trace};

const NAMES: [&str; 6] = [
    "autocast_mlp",
    "autocast_of_one_weight_twice",
    "autocast_around_two_calls",
    "autocast_around_each_of_two_calls",
    "autocast_around_one_backward_of_two",
    "autocast_in_a_part",
];

static FOLDER: LazyLock<PathBuf> = LazyLock::new(|| recorded("autocast", &NAMES));

/// Writes a case in which something else is said of its program, and returns its path.
fn described(name: &str, file: &str, edit: impl Fn(&mut Json)) -> PathBuf {
    let case = Trace::load(FOLDER.join(name).with_extension("safetensors")).unwrap();
    let mut run = case.run::<Json>().unwrap().unwrap();
    edit(&mut run["program"]);
    let mut other = copied(&case, |_| true, &[]);
    other.describe(&run, &case.environment::<Json>().unwrap().unwrap()).unwrap();
    let path = FOLDER.with_file_name(file).with_extension("safetensors");
    other.save(&path).unwrap();
    path
}

fn remove(of: &mut Json, key: &str) {
    assert!(of.as_object_mut().unwrap().remove(key).is_some(), "{of}");
}

#[test]
fn each_thing_that_is_said_of_autocast_decides_bits() {
    let wrong: [(&str, Edit); 5] = [
        ("autocast_of_one_weight_twice", |program| program["autocast"]["cache"] = false.into()),
        ("autocast_around_two_calls", |program| remove(program, "in_one_autocast")),
        ("autocast_around_each_of_two_calls", |program| {
            program["in_one_autocast"] = json!({ "1": [2] });
        }),
        ("autocast_around_one_backward_of_two", |program| {
            remove(program, "backwards_in_autocast");
        }),
        ("autocast_around_one_backward_of_two", |program| {
            let passes = program["backwards_in_autocast"]["1"].as_array_mut().unwrap();
            assert!(passes.len() == 2 && passes[1].is_null(), "{passes:?}");
            passes.reverse();
        }),
    ];
    for (name, edit) in wrong {
        let (code, text) = check(&FOLDER.join(name).with_extension("safetensors"), &[]);
        assert_eq!(code, Some(0), "{name}: {text}");
        let (code, text) = check(&described(name, "autocast_said", edit), &[]);
        assert_eq!(code, Some(1), "{name}: {text}");
    }
    // Without autocast it gives float32, at which no gradient of bfloat16 begins.
    let path = described("autocast_of_one_weight_twice", "autocast_said", |program| {
        remove(program, "autocast");
    });
    let (code, text) = check(&path, &[]);
    assert!(code == Some(2) && text.contains("BFloat16 != float"), "{text}");
    // What a part of a program says decides as well.
    let cache = |graph: &mut Json| {
        let is_part = |node: &&mut Json| node["target"].as_str().unwrap().ends_with("autocast");
        let part = nodes(graph).iter_mut().find(is_part).unwrap();
        part["inputs"][3]["arg"]["as_bool"] = false.into();
    };
    let (code, text) = check(&edited(&FOLDER, "autocast_in_a_part", cache), &[]);
    fs::remove_file(FOLDER.join("edited.safetensors")).unwrap();
    assert_eq!(code, Some(1), "{text}");
}

#[test]
fn a_state_of_autocast_that_there_is_not_is_an_error_in_one_line() {
    let wrong: [(&str, Edit); 6] = [
        ("autocast to the dtype \"int8\"", |p| p["autocast"]["dtypes"]["cpu"] = "int8".into()),
        ("autocast on the device type \"tpu\"", |p| {
            p["autocast"]["dtypes"] = json!({ "tpu": "bfloat16" });
        }),
        ("missing field `dtypes`", |p| p["autocast"] = json!({ "cpu": "bfloat16" })),
        ("invalid type: string \"yes\"", |p| p["autocast"]["cache"] = "yes".into()),
        ("invalid type: map", |p| p["in_one_autocast"] = json!({ "1": {} })),
        ("autocast to the dtype \"bool\"", |p| {
            let state = json!({ "dtypes": { "cpu": "bool" }, "cache": true });
            p["backwards_in_autocast"] = json!({ "1": [state] });
        }),
    ];
    for (says, edit) in wrong {
        let (code, text) = check(&described("autocast_mlp", "autocast_wrong", edit), &[]);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(says) && text.lines().count() == 1, "{says}: {text}");
    }
    let parts: [(&str, usize, Json); 4] = [
        ("autocast on the device type \"tpu\"", 0, json!({ "as_string": "tpu" })),
        ("autocast to the dtype \"int32\"", 1, json!({ "as_scalar_type": 4 })),
        ("it does not say the state of autocast", 2, json!({ "as_int": 1 })),
        ("it has no graph", 4, json!({ "as_int": 1 })),
    ];
    for (says, at, value) in parts {
        let file = edited(&FOLDER, "autocast_in_a_part", |graph| {
            let is_part = |node: &&mut Json| node["target"].as_str().unwrap().ends_with("autocast");
            nodes(graph).iter_mut().find(is_part).unwrap()["inputs"][at]["arg"] = value.clone();
        });
        let (code, text) = check(&file, &[]);
        fs::remove_file(file).unwrap();
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(says) && text.lines().count() == 1, "{says}: {text}");
    }
}

#[test]
fn cases_under_autocast_are_replayed_side_by_side() {
    // libtorch has one cache of casted weights for all threads.
    let folder = scratch("autocast_side_by_side");
    for name in &NAMES[1..] {
        for number in 0..8 {
            let file = format!("{name}_{number}.safetensors");
            fs::copy(FOLDER.join(name).with_extension("safetensors"), folder.join(file)).unwrap();
        }
    }
    let (code, text) = check(&folder, &["--jobs", "8", "--criterion", "bitwise"]);
    assert!(code == Some(0) && text.contains("40 cases: 40 same"), "{text}");
}

#[test]
fn a_port_of_what_is_under_autocast_is_refused() {
    let refused = [
        ("autocast_mlp", "the model is called within torch.autocast, which tch does not have"),
        (
            "autocast_in_a_part",
            "tch has no torch.autocast for the CPU: it begins before the operator of the module fc, in the line `y = \
             m.fc(m.fc(x).relu())`",
        ),
    ];
    for (name, says) in refused {
        let file = FOLDER.join(name).with_extension("safetensors");
        let output = tch_parity().arg("port").arg(file).arg("--single-file").output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(says), "{said}");
        assert!(said.lines().count() == 1 && output.stdout.is_empty(), "{said}");
    }
}

#[test]
fn a_saved_program_with_autocast_in_it_runs() {
    let folder = scratch("autocast_saved");
    let script = r#"
import sys, warnings, torch
sys.path.insert(0, sys.argv[1])
from models import MODELS
import models_under_autocast
from safetensors.torch import save_file
from tch_parity import compute_with
warnings.simplefilter("ignore")
compute_with("portable")
net, x = MODELS["autocast_in_a_part"][0](), torch.randn(4, 6)
program = torch.export.export(net, (x,), strict=False)
torch.export.save(program, "model.pt2")
save_file({"args_0": x.detach()}, "inputs.safetensors")
module = program.module()
output = module(x.requires_grad_())
output.sum().backward()
gradients = {f"grad/{name}": p.grad for name, p in module.named_parameters()} | {"grad/input/args_0": x.grad}
save_file({"forward/output": output.detach(), **gradients}, "expected.safetensors")
"#;
    let tests = Path::new(common::ROOT).join("tests");
    stdout(&python().args(["-c", script]).arg(tests).current_dir(&folder).output().unwrap());
    let [inputs, expected, actual] =
        ["inputs", "expected", "actual"].map(|name| format!("{name}.safetensors"));
    let run =
        ["run", "model.pt2", "--inputs", &inputs, "--output", &actual, "--backward", "output"];
    stdout(&tch_parity().current_dir(&folder).args(run).output().unwrap());
    let compare = ["compare", &actual, &expected, "--criterion", "bitwise"];
    stdout(&tch_parity().current_dir(&folder).args(compare).output().unwrap());
}

#[test]
fn what_a_part_of_a_model_computes_is_in_the_case() {
    let case = Case::load(FOLDER.join("autocast_in_a_part.safetensors")).unwrap();
    let run = case.trace.run::<Json>().unwrap().unwrap();
    assert!(run["program"].get("autocast").is_none(), "{run}");
    assert!(case.trace.contains("grad/fc.weight"));
}

//! Small models that PyTorch records now are replayed by their programs to the bit. They have every operator of the
//! zoo's programs, and every type of argument.

#![cfg(feature = "libtorch")]

mod common;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use common::programs::{argument, check, edited, find, recorded};
use common::{ROOT, python, scratch, stdout, tch_parity};
use serde_json::{Value as Json, json};
use tch_parity::{Case, ProgramReplay};

/// The models, and the report of a `check` that requires the same bits, by the case.
static MODELS: LazyLock<(PathBuf, Json)> = LazyLock::new(|| {
    let folder = recorded("models", &[]);
    let report = scratch("models_report").join("report.json");
    let (code, text) =
        check(&folder, &["--criterion", "bitwise", "--json", report.to_str().unwrap()]);
    assert_eq!(code, Some(0), "{text}");
    let count = fs::read_dir(&folder).unwrap().count();
    assert!(count >= 40, "{count} models");
    assert!(text.contains(&format!("{count} cases: {count} same, 0 differ, 0 could not be")));
    (folder, serde_json::from_slice(&fs::read(&report).unwrap()).unwrap())
});

/// Returns the program of each model.
fn programs() -> BTreeMap<PathBuf, Json> {
    let program = |path: PathBuf| {
        let case = Case::load(&path).unwrap();
        let program = case.trace.get("program/graph").unwrap().data().to_vec();
        (path, serde_json::from_slice(&program).unwrap())
    };
    fs::read_dir(&MODELS.0).unwrap().map(|file| program(file.unwrap().path())).collect()
}

fn nodes(graph: &Json) -> &Vec<Json> {
    graph["nodes"].as_array().unwrap()
}

#[test]
fn recorded_models_are_replayed_by_their_programs_to_the_bit() {
    let folder = &MODELS.0;
    // With other kernels a run in float64 tells rounding from mistakes. Under autocast a rounding to bfloat16 decides now
    // and then which element max pooling takes, or whether a ReLU lets one through.
    let smooth = scratch("models_smooth");
    let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap());
    let names = files.map(|file| file.file_name().into_string().unwrap());
    for name in names.filter(|name| !name.starts_with("autocast_")) {
        fs::copy(folder.join(&name), smooth.join(&name)).unwrap();
    }
    let report = scratch("models_native").join("report.json");
    let accurate = ["--numerics", "native", "--criterion", "accurate", "--verbose", "--json"];
    let (code, text) = check(&smooth, &[&accurate[..], &[report.to_str().unwrap()]].concat());
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("accurate required: as asked") && text.contains("rms to float64"));
    let report: Json = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    let mut outputs = 0;
    for report in report["reports"].as_array().unwrap() {
        for tensor in report["tensors"].as_array().unwrap() {
            let name = tensor["name"].as_str().unwrap();
            // One of the models computes in bfloat16, and is that much further from the truth.
            let low = report["name"].as_str().unwrap().contains("/dtypes");
            if name.starts_with("forward/") && tensor["dtype"] == "F32" && !low {
                let rms = |of: &str| tensor["distances"][of]["rms"].as_f64().unwrap();
                let (distance, rounding) = (rms("expected"), rms("rounding"));
                assert!(distance <= 1e-5 + 100. * rounding, "{name}: {distance}, {rounding}");
                outputs += 1;
            }
        }
    }
    assert!(outputs > 100, "{outputs}");
    // What was compared is not nothing, and the operators are many.
    let mut operators = BTreeSet::new();
    for file in fs::read_dir(folder).unwrap() {
        let case = Case::load(file.unwrap().path()).unwrap();
        let replay = ProgramReplay::new(case).unwrap();
        operators.extend(replay.operators().unwrap());
        let computed = replay.run(tch::Device::Cpu).unwrap();
        let of = |section: &str| computed.names().filter(|name| name.contains(section)).count();
        assert!(of("forward/") > 1 && of("grad/") > 1 && of("/state/") > 0);
    }
    assert!(operators.len() > 90, "{}: {operators:?}", operators.len());
}

/// Returns the names of the tensors that an operator returns.
fn results(node: &Json) -> Vec<&str> {
    let outputs = node["outputs"].as_array().unwrap().iter();
    let tensors = outputs.flat_map(|output| match output["as_tensors"].as_array() {
        Some(list) => list.iter().collect(),
        None => vec![&output["as_tensor"]],
    });
    tensors.filter_map(|tensor| tensor["name"].as_str()).collect()
}

#[test]
fn every_operator_of_the_zoo_gives_the_bits_of_pytorch() {
    let bitwise = |report: &Json| {
        let tensors = report["tensors"].as_array().unwrap().iter();
        let same = tensors.filter(|tensor| tensor["verdict"] == "bitwise");
        let names = same.map(|tensor| tensor["name"].as_str().unwrap().to_owned());
        (PathBuf::from(report["name"].as_str().unwrap()), names.collect::<HashSet<_>>())
    };
    let reports = MODELS.1["reports"].as_array().unwrap().iter();
    let bitwise = reports.map(bitwise).collect::<BTreeMap<_, _>>();
    let mut run = BTreeSet::new();
    for (path, program) in programs() {
        let nodes = nodes(&program["graph_module"]["graph"]);
        for node in nodes {
            let target = node["target"].as_str().unwrap();
            let names = results(node);
            let is_same = |name: &&str| bitwise[&path].contains(&format!("operator/{name}"));
            // What is in new memory is nobody's, and what writes to it is compared. An operator that asserts something
            // returns no tensor.
            let writes = |other: &&Json| {
                other["inputs"][0]["arg"]["as_tensor"]["name"].as_str() == names.first().copied()
            };
            let writer =
                nodes.iter().find(writes).filter(|_| target.ends_with("empty.memory_format"));
            let results = writer.map_or(names.clone(), results);
            if names.is_empty() || results.iter().any(is_same) {
                run.insert(target.to_owned());
            }
        }
    }
    let list = fs::read_to_string(Path::new(ROOT).join("tests/zoo_operators.txt")).unwrap();
    let listed = list.lines().filter(|line| !line.starts_with('#')).collect::<Vec<_>>();
    let is_missing = |operator: &&&str| !run.contains(&format!("torch.ops.{operator}"));
    let missing = listed.iter().filter(is_missing).collect::<Vec<_>>();
    let (count, of) = (listed.len() - missing.len(), listed.len());
    println!("{count} of {of} operators of the zoo's programs gave PyTorch's bits");
    assert!(missing.is_empty() && of > 80, "{count} of {of} operators: {missing:?} are missing");
}

/// Adds the types of the arguments of a graph.
fn add_types(graph: &Json, types: &mut BTreeSet<String>) {
    for input in nodes(graph).iter().flat_map(|node| node["inputs"].as_array().unwrap()) {
        let (name, value) = input["arg"].as_object().unwrap().iter().next().unwrap();
        types.insert(name.clone());
        if name == "as_graph" {
            add_types(&value["graph"], types);
        }
    }
}

/// Exports a program of dynamic sizes, and compares what it returns. It returns the program.
fn dynamic() -> Json {
    let folder = scratch("models_dynamic");
    let script = r#"
import json, warnings, zipfile, torch
from safetensors.torch import save_file
from tch_parity import compute_with
warnings.simplefilter("ignore")
compute_with("portable")
class Net(torch.nn.Module):
    def forward(self, x):
        rows = x.shape[0]
        count = (x > 0).sum().item()
        torch._check(count >= 0)
        return x.sum() * x.new_ones((rows * 2, 3)) * (rows / 3), torch.arange(rows) + count
net, x = Net(), torch.tensor([[1.0, -2.0], [3.0, 4.0], [-5.0, 6.0]])
sizes = {"x": {0: torch.export.Dim("rows", min=2, max=9)}}
torch.export.save(torch.export.export(net, (torch.randn(5, 2),), strict=False, dynamic_shapes=sizes), "model.pt2")
save_file({"x": x}, "inputs.safetensors")
save_file(dict(zip(("forward/output[0]", "forward/output[1]"), net(x))), "expected.safetensors")
with zipfile.ZipFile("model.pt2") as files:
    print(files.read(next(name for name in files.namelist() if name.endswith("models/model.json"))).decode())
"#;
    let output = python().args(["-c", script]).current_dir(&folder).output().unwrap();
    let program = serde_json::from_str(&stdout(&output)).unwrap();
    let [inputs, expected, actual] =
        ["inputs", "expected", "actual"].map(|name| format!("{name}.safetensors"));
    let run = ["run", "model.pt2", "--inputs", &inputs, "--output", &actual];
    stdout(&tch_parity().current_dir(&folder).args(run).output().unwrap());
    let compare = ["compare", &actual, &expected, "--criterion", "bitwise"];
    stdout(&tch_parity().current_dir(&folder).args(compare).output().unwrap());
    program
}

#[test]
fn every_type_of_argument_runs_or_is_refused() {
    let mut run = BTreeSet::new();
    for program in programs().values().chain([&dynamic()]) {
        add_types(&program["graph_module"]["graph"], &mut run);
    }
    let folder = recorded("models_arguments", &["convolutions"]);
    let linear = |argument_of: &dyn Fn(&Json) -> Json| {
        let file = edited(&folder, "convolutions", |graph| {
            let given = argument(find(graph, "linear.default"), "input");
            *given = argument_of(given);
        });
        check(&file, &["--criterion", "bitwise"])
    };
    // PyTorch reads it, and writes it nowhere.
    let (code, text) = linear(&|given| json!({ "as_optional_tensor": given }));
    assert_eq!(code, Some(0), "{text}");
    run.insert("as_optional_tensor".to_owned());
    let refused = [
        ("as_strings", json!(["a"])),
        ("as_sym_bools", json!([{ "as_bool": true }])),
        ("as_sym_floats", json!([{ "as_float": 1.5 }])),
        ("as_operator", json!("torch.ops.aten.relu.default")),
        ("as_custom_obj", json!({ "name": "a", "class_fqn": "b" })),
        ("as_nested_tensors", json!([[{ "name": "conv2d" }]])),
        ("as_int_lists", json!([[1]])),
        ("as_float_lists", json!([[1.5]])),
        ("as_string_to_argument", json!({ "a": { "as_int": 1 } })),
    ];
    for (name, value) in &refused {
        let (code, text) = linear(&|_| json!({ *name: value }));
        assert_eq!(code, Some(2), "{text}");
        let says = format!("an argument of the type {name} is not supported");
        let operator = "the operator torch.ops.aten.linear.default in 8 (linear.py:";
        let argument = format!("): input: {says}");
        assert!(text.contains(operator) && text.contains(&argument), "{text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    let script =
        "from torch._export.serde.schema import Argument; print(*Argument.__annotations__)";
    let all = stdout(&python().args(["-c", script]).output().unwrap());
    let all = all.split_whitespace().map(str::to_owned).collect::<BTreeSet<_>>();
    let refused = refused.iter().map(|(name, _)| (*name).to_owned()).collect::<BTreeSet<_>>();
    assert_eq!(&run | &refused, all);
    assert!(run.is_disjoint(&refused));
    let page = fs::read_to_string(Path::new(ROOT).join("docs/programs.md")).unwrap();
    let listed = |row: &str| {
        let line = page.lines().find(|line| line.starts_with(row)).unwrap();
        line.split('`').filter(|name| name.starts_with("as_")).map(str::to_owned).collect()
    };
    assert_eq!(run, listed("| run |"));
    assert_eq!(refused, listed("| refused |"));
}

#[test]
fn replays_have_the_same_bits_whatever_is_said_of_the_cpu_and_of_threads() {
    let names = ["convolutions", "lstm", "encoder_layer", "linear_algebra", "large_layers"];
    let files = names.map(|name| MODELS.0.join(name).with_extension("safetensors"));
    let report = scratch("models_varied").join("report.json");
    let check = |mkl: &str, onednn: &str, threads: &str, numerics: &str| {
        let mut command = tch_parity();
        command.arg("check").args(&files).args(["--numerics", numerics]);
        command.args(["--criterion", "bitwise", "--json"]).arg(&report);
        command.env("MKL_ENABLE_INSTRUCTIONS", mkl).env("ONEDNN_MAX_CPU_ISA", onednn);
        command.env("OMP_NUM_THREADS", threads).env("ATEN_CPU_CAPABILITY", "avx2");
        let code = command.output().unwrap().status.code();
        (code, fs::read_to_string(&report).unwrap())
    };
    let sets = [("SSE4_2", "SSE41"), ("AVX2", "AVX2"), ("AVX512", "AVX512_CORE")];
    for (mkl, onednn) in sets {
        for threads in ["1", "2"] {
            let (code, report) = check(mkl, onednn, threads, "portable");
            assert_eq!(code, Some(0), "{mkl}, {threads} threads: {report}");
        }
    }
    // As a control, native bits are others, and those of one instruction set are not those of another one, unless the
    // CPU has but one.
    let native = sets.map(|(mkl, onednn)| check(mkl, onednn, "1", "native"));
    if native.iter().all(|(code, report)| *code == Some(0) || *report == native[0].1) {
        eprintln!("NOTE: the instruction sets change nothing here, natively either");
    }
}

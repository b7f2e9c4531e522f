//! Programs of torch.export: models that PyTorch records now are replayed by their programs to the bit, and what is
//! wrong with a program is seen or said.

#![cfg(feature = "libtorch")]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use common::{python, pytorch, scratch, seed, stdout, tch_parity};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value as Json, json};
use tch::{Kind, Tensor, no_grad};
use tch_parity::{Case, Numerics, Program, ProgramReplay, Trace, Value, call};

/// A change of a program.
type Edit = fn(&mut Json);

/// Returns the exit code of `check`, and what it writes.
fn check(path: &Path, args: &[&str]) -> (Option<i32>, String) {
    let mut command = tch_parity();
    let output = command.arg("check").arg(path).args(args).env_remove("GITHUB_ACTIONS").output();
    let output = output.unwrap();
    let text =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap()).concat();
    assert!(!text.contains("panicked") && !text.contains("backtrace"), "{text}");
    (output.status.code(), text)
}

/// Records the models of `tests/programs.py` that are named, or all.
fn recorded(name: &str, models: &[&str]) -> PathBuf {
    let folder = scratch(name);
    let seed = (seed().parse::<u128>().unwrap_or(1) % 1_000_000).to_string();
    let args = [&[folder.to_str().unwrap(), &*seed], models].concat();
    pytorch("tests/programs.py", &args);
    folder
}

#[test]
fn recorded_models_are_replayed_by_their_programs_to_the_bit() {
    let folder = recorded("programs", &[]);
    let (code, text) = check(&folder, &["--criterion", "bitwise"]);
    assert_eq!(code, Some(0), "{text}");
    let count = fs::read_dir(&folder).unwrap().count();
    assert!(count >= 30, "{count} models");
    assert!(text.contains(&format!("{count} cases: {count} same, 0 differ, 0 could not be")));
    // With other kernels a run in float64 tells rounding from mistakes.
    let report = folder.join("report.json");
    let accurate = ["--numerics", "native", "--criterion", "accurate", "--verbose", "--json"];
    let (code, text) = check(&folder, &[&accurate[..], &[report.to_str().unwrap()]].concat());
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("accurate required: as asked") && text.contains("rms to float64"));
    let report: Json = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    fs::remove_file(folder.join("report.json")).unwrap();
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
    for file in fs::read_dir(&folder).unwrap() {
        let case = Case::load(file.unwrap().path()).unwrap();
        let replay = ProgramReplay::new(case).unwrap();
        operators.extend(replay.operators().unwrap());
        let computed = replay.run(tch::Device::Cpu).unwrap();
        let of = |section: &str| computed.names().filter(|name| name.contains(section)).count();
        assert!(of("forward/") > 1 && of("grad/") > 1 && of("/state/") > 0);
    }
    assert!(operators.len() > 90, "{}: {operators:?}", operators.len());
}

#[test]
fn a_wrong_program_is_traced_to_its_operator() {
    let models = ["convolutions", "encoder_layer", "in_place", "losses_and_distances"];
    let folder = recorded("programs_wrong", &models);
    // Of each: the model, what is the first to differ, and where to look.
    let wrong: [(&str, &str, &str, &str, Edit); 12] = [
        ("another-operator", "convolutions", "operator/relu_", "aten::sigmoid_ in 2", |graph| {
            find(graph, "relu_.default")["target"] = "torch.ops.aten.sigmoid_.default".into();
        }),
        ("eps", "convolutions", "operator/batch_norm", "aten::batch_norm in 1", |graph| {
            argument(find(graph, "batch_norm.default"), "eps")["as_float"] = 1e-3.into();
        }),
        ("momentum", "convolutions", "step/1/1.running_mean", "aten::batch_norm in 1", |graph| {
            argument(find(graph, "batch_norm.default"), "momentum")["as_float"] = 0.2.into();
        }),
        ("mode", "convolutions", "operator/batch_norm", "aten::batch_norm in 1", |graph| {
            argument(find(graph, "batch_norm.default"), "training")["as_bool"] = false.into();
        }),
        ("bias", "convolutions", "operator/linear", "aten::linear in 8", |graph| {
            let none = json!({ "as_none": true });
            *argument(find(graph, "linear.default"), "bias") = none;
        }),
        ("swapped", "losses_and_distances", "operator/kl_div", "aten::kl_div", |graph| {
            let node = find(graph, "kl_div.default");
            let input = argument(node, "self").clone();
            let target = std::mem::replace(argument(node, "target"), input);
            *argument(node, "self") = target;
        }),
        ("dimension", "losses_and_distances", "operator/softmax", "aten::softmax.int", |graph| {
            argument(find(graph, "softmax.int"), "dim")["as_int"] = 0.into();
        }),
        ("alpha", "in_place", "operator/add_", "aten::add_.Tensor", |graph| {
            argument(find(graph, "add_.Tensor"), "alpha")["as_float"] = 0.25.into();
        }),
        ("left-out", "in_place", "operator/mul_", "no operator computes mul_", |graph| {
            let nodes = nodes(graph);
            nodes.retain(|node| node["target"] != "torch.ops.aten.mul_.Tensor");
            argument(find(graph, "add_.Tensor"), "self")["as_tensor"]["name"] = "linear".into();
        }),
        ("index", "encoder_layer", "operator/select", "aten::select.int in self_attn", |graph| {
            argument(find(graph, "select.int"), "index")["as_int"] = 1.into();
        }),
        ("axes", "encoder_layer", "operator/permute", "aten::permute in self_attn", |graph| {
            argument(find(graph, "permute.default"), "dims")["as_ints"] = json!([2, 1, 0, 3]);
        }),
        ("probability", "encoder_layer", "operator/dropout", "aten::dropout in", |graph| {
            argument(find(graph, "dropout.default"), "p")["as_float"] = 0.2.into();
        }),
    ];
    let edited_folder = scratch("programs_wrong_edited");
    for (what, model, _, _, edit) in &wrong {
        let file = edited(&folder, model, edit);
        fs::rename(file, edited_folder.join(what).with_extension("safetensors")).unwrap();
    }
    // A case without the digests of operators leads to the module.
    let file = edited(&folder, "convolutions", wrong[0].4);
    let case = Trace::load(&file).unwrap();
    let without = copied(&case, |name| !name.contains("operator/"), &[]);
    without.save(edited_folder.join("without.safetensors")).unwrap();
    let (code, text) = check(&edited_folder, &[]);
    assert_eq!(code, Some(1), "{text}");
    // With other kernels, the run in float64 is as wrong as the replay, and the recording is far from both.
    let (_, native) = check(&edited_folder, &["--numerics", "native"]);
    assert!(native.contains("13 cases: 0 same, 13 differ, 0 could"), "{native}");
    assert!(native.contains("From the run in float64, the actual is"), "{native}");
    let lines = text.lines().collect::<Vec<_>>();
    let origin = |what: &str| {
        let verdict = format!("DIFFERS: {}/{what}.safetensors ", edited_folder.display());
        let at = lines.iter().position(|line| line.starts_with(&verdict));
        lines[at.unwrap_or_else(|| panic!("{what}: {text}")) - 1]
    };
    for (what, _, first, look, _) in &wrong {
        let origin = origin(what);
        assert!(origin.starts_with(&format!("{first} is the first to differ")), "{what}: {origin}");
        assert!(origin.contains(": look at ") && origin.contains(look), "{what}: {origin}");
    }
    let relu = "; operator/batch_norm agrees: look at aten::sigmoid_ in 2 (activation.py:";
    let schema = ": return F.relu(input, inplace=self.inplace)): aten::sigmoid_(Tensor(a!) self) -> Tensor(a!)";
    let origin_of_relu = origin("another-operator");
    assert!(origin_of_relu.contains(relu) && origin_of_relu.ends_with(schema), "{origin_of_relu}");
    assert!(origin("without").starts_with("forward/2 is the first to differ; "), "{text}");
}

#[test]
fn a_program_that_cannot_be_run_is_an_error_in_one_line() {
    let folder = recorded("programs_refused", &["convolutions", "lbfgs", "autocast"]);
    for (name, says) in [
        ("lbfgs", "since the model was called after an optimizer's step within step 1"),
        ("autocast", "since torch.export leaves out the casts of autocast"),
    ] {
        let (code, text) = check(&folder.join(name).with_extension("safetensors"), &[]);
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(says) && text.lines().count() == 1, "{text}");
    }
    let (code, text) = check(&folder.join("convolutions.safetensors"), &["--program"]);
    assert_eq!(code, Some(0), "{text}");
    let notebook = Path::new("tests/data/cases/zero.safetensors");
    let (code, text) = check(notebook, &["--program"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("the case holds no program to run"), "{text}");
    let edits: [(&str, Edit); 11] = [
        ("libtorch has no such operator", |graph| {
            find(graph, "relu_.default")["target"] = "torch.ops.aten.relux.default".into();
        }),
        ("it is not supported", |graph| {
            find(graph, "relu_.default")["target"] = "os.system".into();
        }),
        ("none that opens files", |graph| {
            find(graph, "relu_.default")["target"] = "torch.ops.aten.from_file.default".into();
        }),
        ("only operators of aten are run", |graph| {
            find(graph, "relu_.default")["target"] = "torch.ops.own.relu.default".into();
        }),
        ("has no argument \"epsilon\"", |graph| {
            find(graph, "batch_norm.default")["inputs"][7]["name"] = "epsilon".into();
        }),
        ("no value is named", |graph| {
            let node = find(graph, "linear.default");
            argument(node, "input")["as_tensor"]["name"] = "nothing".into();
        }),
        ("two values are named", |graph| {
            find(graph, "relu_.default")["outputs"][0]["as_tensor"]["name"] = "conv2d".into();
        }),
        ("version 9.0 of torch.export's schema", |graph| {
            graph["schema_version"] = serde_json::json!({ "major": 9, "minor": 0 });
        }),
        ("unknown variant `as_custom_obj`", |graph| {
            let node = find(graph, "linear.default");
            *argument(node, "input") = serde_json::json!({ "as_custom_obj": {} });
        }),
        ("the parameter 0.wait", |graph| {
            graph["graph_module"]["signature"]["input_specs"][0]["parameter"]["parameter_name"] =
                "0.wait".into();
        }),
        ("argument eps: it takes a float", |graph| {
            let node = find(graph, "batch_norm.default");
            *argument(node, "eps") = serde_json::json!({ "as_string": "x" });
        }),
    ];
    for (says, edit) in edits {
        let file = edited(&folder, "convolutions", edit);
        let (code, text) = check(&file, &[]);
        assert_eq!(code, Some(2), "{says}: {text}");
        assert!(text.contains(says) && text.lines().count() == 1, "{says}: {text}");
    }
    let mut random = common::Random::new(&seed());
    let case = Trace::load(folder.join("convolutions.safetensors")).unwrap();
    let graph = case.get("program/graph").unwrap().data().to_vec();
    for _ in 0..60 {
        let mut damaged = graph.clone();
        let (at, byte) = (random.below(damaged.len()), random.below(256) as u8);
        damaged[at] = byte;
        let file = with_graph(&folder, "convolutions", &damaged);
        check(&file, &[]);
    }
}

/// Returns the first node of an operator.
fn find<'a>(graph: &'a mut Json, operator: &str) -> &'a mut Json {
    let target = format!("torch.ops.aten.{operator}");
    nodes(graph).iter_mut().find(|node| node["target"] == target).unwrap()
}

fn nodes(graph: &mut Json) -> &mut Vec<Json> {
    graph["graph_module"]["graph"]["nodes"].as_array_mut().unwrap()
}

fn argument<'a>(node: &'a mut Json, name: &str) -> &'a mut Json {
    let inputs = node["inputs"].as_array_mut().unwrap();
    &mut inputs.iter_mut().find(|input| input["name"] == name).unwrap()["arg"]
}

/// Writes a case with another program, and returns its path.
fn edited(folder: &Path, name: &str, edit: impl Fn(&mut Json)) -> PathBuf {
    let case = Trace::load(folder.join(name).with_extension("safetensors")).unwrap();
    let mut graph = serde_json::from_slice(case.get("program/graph").unwrap().data()).unwrap();
    edit(&mut graph);
    with_graph(folder, name, &serde_json::to_vec(&graph).unwrap())
}

fn with_graph(folder: &Path, name: &str, graph: &[u8]) -> PathBuf {
    let case = Trace::load(folder.join(name).with_extension("safetensors")).unwrap();
    let other = copied(&case, |_| true, graph);
    let file = folder.join("edited").with_extension("safetensors");
    other.save(&file).unwrap();
    file
}

/// Returns the tensors and digests of a case whose names fit, with another program unless that is empty.
fn copied(case: &Trace, keep: impl Fn(&str) -> bool, graph: &[u8]) -> Trace {
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

/// Exports a model of dynamic sizes, and returns the folder with the program and what PyTorch computed.
fn exported() -> PathBuf {
    let folder = scratch("programs_exported");
    let script = r#"
import sys, warnings, torch
from torch import nn
from safetensors.torch import save_file
from tch_parity import compute_with
warnings.simplefilter("ignore")
compute_with("portable")
torch.manual_seed(0)
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc, self.bn = nn.Linear(4, 6), nn.BatchNorm1d(6)
    def forward(self, x, y):
        rows, columns = x.shape
        z = self.bn(self.fc(x)).view(rows * 2, 3)
        return z.repeat(1, y.shape[0]).sum(1) * y.new_ones((rows * 2,)) * rows + y.sum(), torch.arange(rows) + columns
net = Net()
DIM = torch.export.Dim
sizes = {"x": {0: DIM("rows", min=2, max=9)}, "y": {0: DIM("length", min=2, max=100)}}
program = torch.export.export(net, (torch.randn(5, 4), torch.randn(4)), strict=False, dynamic_shapes=sizes)
torch.export.save(program, "model.pt2")
x, y = torch.randn(7, 4, requires_grad=True), torch.randn(6)
save_file({"x": x.detach(), "input/y": y}, "inputs.safetensors")
first, second = net(x, y)
first.sum().backward()
expected = {"forward/output[0]": first.detach(), "forward/output[1]": second, "grad/input/x": x.grad}
expected |= {f"grad/{name}": p.grad for name, p in net.named_parameters()}
expected |= {f"buffer/{name}": b for name, b in net.named_buffers()}
save_file({name: tensor.contiguous() for name, tensor in expected.items()}, "expected.safetensors")

import zipfile
with zipfile.ZipFile("model.pt2") as files:
    entries = [(name, files.read(name)) for name in files.namelist()]
json = next(name for name, _ in entries if name.endswith("/models/model.json"))
def damaged(name, entries, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(name, "w", compression) as files:
        for entry, content in entries:
            files.writestr(entry, content)
damaged("twice.pt2", [*entries, (json, b"{}")])
damaged("outside.pt2", [*entries, ("../x", b"x")])
damaged("without.pt2", [entry for entry in entries if entry[0] != json])
zeros = bytes(50_000_000)
damaged("bomb.pt2", [(name, zeros if name == json else content) for name, content in entries], zipfile.ZIP_DEFLATED)
data = bytearray(open("model.pt2", "rb").read())
data[data.find(b"schema_version")] ^= 1
open("sum.pt2", "wb").write(data)
open("cut.pt2", "wb").write(data[:-100])
"#;
    let output = python().args(["-c", script]).current_dir(&folder).output().unwrap();
    stdout(&output);
    folder
}

#[test]
fn a_saved_program_runs_at_the_sizes_that_it_allows() {
    Numerics::Portable.restart_with().unwrap();
    let folder = exported();
    let run = |model: &str, args: &[&str]| {
        let mut command = tch_parity();
        command.current_dir(&folder).args(["run", model, "--inputs", "inputs.safetensors"]);
        let output = command.args(["--output", "out.safetensors"]).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let ran = run("model.pt2", &["--backward", "output[0]"]);
    assert_eq!(ran, (Some(0), String::new()));
    let mut compare = tch_parity();
    let compared = compare.current_dir(&folder).args(["compare", "out.safetensors"]);
    let compared =
        compared.args(["expected.safetensors", "--criterion", "bitwise", "--partial=expected"]);
    stdout(&compared.output().unwrap());

    let (code, error) = run("model.pt2", &["--backward", "output"]);
    assert_eq!(code, Some(2));
    assert!(error.contains(r#"the outputs are ["output[0]", "output[1]"]"#), "{error}");
    let program = Program::load(folder.join("model.pt2")).unwrap();
    assert_eq!(program.inputs().collect::<Vec<_>>(), ["x", "y"]);
    let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, tch::Device::Cpu));
    for (inputs, says) in [
        (vec![ones(&[7, 4])], "the program takes 2 tensors (x, y), and 1 are given"),
        (vec![ones(&[7, 5]), ones(&[4])], "the size of dimension 1 of the input x is 5, not 4"),
        (vec![ones(&[10, 4]), ones(&[4])], "is 10, and at most 9 is allowed"),
        (vec![ones(&[1, 4]), ones(&[4])], "is 1, and at least 2 is allowed"),
        (vec![ones(&[7]), ones(&[4])], "the input x has 1 dimensions, not 2"),
        (vec![ones(&[7, 4]).to_kind(Kind::Double), ones(&[4])], "dtype Double, not Float"),
    ] {
        let error = format!("{:#}", program.run(&inputs).unwrap_err());
        assert!(error.contains(says), "{error}");
    }

    // Damaged archives are errors.
    let bytes = fs::read(folder.join("model.pt2")).unwrap();
    let mut random = common::Random::new(&seed());
    for at in 0..40 {
        let mut damaged = bytes.clone();
        match at {
            0 => damaged.truncate(bytes.len() / 2),
            1 => damaged.clear(),
            _ => {
                let place = random.below(damaged.len());
                damaged[place] ^= 1 << random.below(8);
            }
        }
        fs::write(folder.join("damaged.pt2"), damaged).unwrap();
        let (code, error) = run("damaged.pt2", &[]);
        // A bit that no reader looks at, such as that of a date, is no damage.
        let lines = error.lines().count();
        assert!(code == Some(2) && lines == 1 || code == Some(0) && lines == 0, "{at}: {error}");
        assert!(at > 1 || code == Some(2), "{at}: {error}");
    }
    for (file, says) in [
        ("twice.pt2", "two entries"),
        ("outside.pt2", "an entry is named \"../x\""),
        ("without.pt2", "models/model.json"),
        ("bomb.pt2", "model.json"),
        ("sum.pt2", "its sum (CRC-32)"),
        ("cut.pt2", "it is not a program of torch.export.save"),
    ] {
        let (code, error) = run(file, &[]);
        assert!(code == Some(2) && error.lines().count() == 1, "{file}: {error}");
        assert!(error.contains(says), "{file}: {error}");
    }
    let (code, error) = run("inputs.safetensors", &[]);
    assert_eq!(code, Some(2));
    assert!(error.contains("it is not a program of torch.export.save"), "{error}");
}

#[test]
fn any_operator_can_be_called_by_its_name() {
    let x = || Value::Tensor(Tensor::from_slice(&[3f32, -4.]));
    let one = |values: Vec<Value>| match &values[..] {
        [Value::Tensor(tensor)] => tensor.shallow_clone(),
        other => panic!("{other:?}"),
    };
    let sum =
        one(call("aten::add", "Tensor", &[("self", x()), ("other", Value::Float(0.5))]).unwrap());
    assert_eq!(sum.kind(), Kind::Float, "a number has no influence on the dtype");
    let norm = one(
        call("aten::linalg_vector_norm", "", &[("self", x()), ("ord", Value::Int(1))]).unwrap()
    );
    assert_eq!(no_grad(|| norm.double_value(&[])), 7.);
    let split =
        call("aten::split", "Tensor", &[("self", x()), ("split_size", Value::Int(1))]).unwrap();
    assert!(matches!(&split[..], [Value::Tensors(parts)] if parts.len() == 2), "{split:?}");
    let size = call("aten::size", "int", &[("self", x()), ("dim", Value::Int(0))]).unwrap();
    assert!(matches!(size[..], [Value::Int(2)]), "{size:?}");
    for (name, overload, arguments, says) in [
        ("aten::ad", "", vec![], "libtorch has no such operator"),
        ("aten::add", "Tensor", vec![("self", x())], "argument other is missing"),
        (
            "aten::relu",
            "",
            vec![("self", x()), ("x", x())],
            "it has no argument \"x\", or has it twice: aten::relu(Tensor self)",
        ),
        (
            "aten::relu",
            "",
            vec![("self", Value::Text("x".to_owned()))],
            "argument self: it takes a Tensor",
        ),
        ("aten::mm", "", vec![("self", x()), ("mat2", x())], "self must be a matrix"),
    ] {
        let error = format!("{:#}", call(name, overload, &arguments).unwrap_err());
        assert!(error.contains(says), "{error}");
    }
}

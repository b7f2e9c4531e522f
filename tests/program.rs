//! Programs of torch.export: what is wrong with one is seen or said, and one that is saved runs.

#![cfg(feature = "libtorch")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::programs::{Edit, argument, check, copied, edited, find, nodes, recorded, with_graph};
use common::{python, scratch, seed, stdout, tch_parity};
use serde_json::{Value as Json, json};
use tch::{Kind, Tensor, no_grad};
use tch_parity::{Numerics, Program, Trace, Value, call};

#[test]
fn a_wrong_program_is_traced_to_its_operator() {
    let models = [
        "convolutions",
        "encoder_layer",
        "frozen_and_without_gradients",
        "in_place",
        "losses_and_distances",
    ];
    let folder = recorded("programs_wrong", &models);
    // Of each: the model, what is the first to differ, and where to look.
    let part = "frozen_and_without_gradients";
    let wrong: [(&str, &str, &str, &str, Edit); 13] = [
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
        ("within", part, "operator/submod_1.abs_1", "aten::neg (models.py:", |graph| {
            let runs = "torch.ops.higher_order.wrap_with_set_grad_enabled";
            let node = nodes(graph).iter_mut().find(|node| node["target"] == runs).unwrap();
            let part = node["inputs"][1]["arg"]["as_graph"]["graph"]["nodes"].as_array_mut();
            let abs =
                part.unwrap().iter_mut().find(|n| n["target"] == "torch.ops.aten.abs.default");
            abs.unwrap()["target"] = "torch.ops.aten.neg.default".into();
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
    // What the optimizer computes in the first step comes before the operators of the second.
    let mut bytes = fs::read(folder.join("convolutions.safetensors")).unwrap();
    let lr = br#"lr\":0.0"#;
    let at = bytes.windows(lr.len()).position(|part| part == lr).unwrap();
    let digit = &mut bytes[at + lr.len()];
    *digit = if *digit == b'9' { b'8' } else { *digit + 1 };
    fs::write(edited_folder.join("rate.safetensors"), bytes).unwrap();
    let (code, text) = check(&edited_folder, &[]);
    assert_eq!(code, Some(1), "{text}");
    // With other kernels, the run in float64 is as wrong as the replay, and the recording is far from both.
    let (_, native) = check(&edited_folder, &["--numerics", "native"]);
    assert!(native.contains("15 cases: 0 same, 15 differ, 0 could"), "{native}");
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
    assert!(origin("rate").starts_with("step/1/0.weight is the first to differ; "), "{text}");
}

#[test]
fn a_bit_that_differs_is_seen_in_a_file_that_the_replay_does_not_copy() {
    let file = recorded("programs_large", &["large_layers"]).join("large_layers.safetensors");
    let recorded = fs::read(&file).unwrap();
    let header = u64::from_le_bytes(recorded[..8].try_into().unwrap()) as usize;
    assert!(recorded.len() > 1 << 20, "{} bytes are not mapped", recorded.len());
    let entries: Json = serde_json::from_slice(&recorded[8..][..header]).unwrap();
    let mut random = common::Random::new(&seed());
    let (code, text) = check(&file, &["--verbose"]);
    assert_eq!(code, Some(0), "{text}");
    for name in ["forward/0", "grad/0.weight", "step/1/0.weight", "step/2/0.weight"] {
        let mut changed = recorded.clone();
        let offsets = entries[name]["data_offsets"].as_array().unwrap();
        let [start, end] = [0, 1].map(|at| offsets[at].as_u64().unwrap() as usize);
        changed[8 + header + start + random.below(end - start)] ^= 1;
        fs::write(&file, changed).unwrap();
        let (code, text) = check(&file, &[]);
        assert_eq!(code, Some(1), "{name}: {text}");
        assert!(text.contains(&format!("\n{name} ")) && text.contains(" (1 of "), "{name}: {text}");
    }
}

#[test]
fn a_program_that_cannot_be_run_is_an_error_in_one_line() {
    let folder = recorded("programs_refused", &["convolutions", "lbfgs"]);
    let says = "since the model was called after an optimizer's step within step 1";
    let (code, text) = check(&folder.join("lbfgs.safetensors"), &[]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains(says) && text.lines().count() == 1, "{text}");
    let (code, text) = check(&folder.join("convolutions.safetensors"), &["--program"]);
    assert_eq!(code, Some(0), "{text}");
    let notebook = Path::new("tests/data/cases/zero.safetensors");
    let (code, text) = check(notebook, &["--program"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("the case holds no program to run"), "{text}");
    let edits: [(&str, Edit); 13] = [
        (": return F.relu(input, inplace=self.inplace)): libtorch has no such operator", |graph| {
            find(graph, "relu_.default")["target"] = "torch.ops.aten.relux.default".into();
        }),
        ("exported.run_decompositions() returns a program without it", |graph| {
            find(graph, "relu_.default")["target"] =
                "torch._functorch.predispatch.lazy_load_decompositions".into();
        }),
        ("the operator torch.ops.aten.relux.default in 2 (activation.py:", |graph| {
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
        ("an argument of the type as_custom_obj is not supported", |graph| {
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

class Writes(nn.Module):
    """It writes to its input, draws random numbers and returns complex numbers."""
    def forward(self, x):
        x.mul_(2)
        y = nn.functional.dropout(x.relu(), 0.5, True)
        return y, torch.complex(y.double(), x.double())
image = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
torch.export.save(torch.export.export(Writes(), (image.clone(),), strict=False), "writes.pt2")
save_file({"x": image.contiguous()}, "image.safetensors")
leaf = image.contiguous().requires_grad_()
torch.manual_seed(-1)
y, z = Writes()(leaf.clone())
y.sum().backward()
parts = {"forward/output[1][real]": z.real, "forward/output[1][imag]": z.imag}
written = {"forward/output[0]": y, **parts, "grad/input/x": leaf.grad}
save_file({name: tensor.detach().contiguous() for name, tensor in written.items()}, "written.safetensors")

decomposed = torch.export.export(nn.BatchNorm1d(4), (torch.randn(5, 4),), strict=False).run_decompositions()
torch.export.save(decomposed, "decomposed.pt2")
norm, rows = nn.BatchNorm1d(4), torch.randn(5, 4)
save_file({"input": rows}, "rows.safetensors")
normed = {"forward/output": norm(rows).detach(), **{f"buffer/{name}": b for name, b in norm.named_buffers()}}
save_file(normed, "normed.safetensors")

class Nested(nn.Module):
    def forward(self, batch, *rest):
        return {"logits": batch["x"] * 2, "rest/": (batch["m"][0].relu(), 3, rest[0] + 1)}
x, m, y = torch.randn(3, requires_grad=True), torch.randn(3), torch.randn(3)
torch.export.save(torch.export.export(Nested(), ({"x": x.detach(), "m": [m]}, y), strict=False), "nested.pt2")
save_file({"batch_x": x.detach(), "batch_m_0": m, "rest_0": y, "grad/output[logits]": m.clone()}, "nested.safetensors")
(x * 2).backward(m)
returned = {"forward/output[logits]": x.detach() * 2, "forward/output[rest%2F][0]": m.relu(), "forward/output[rest%2F][2]": y + 1}
save_file({**returned, "grad/input/batch_x": x.grad}, "returned.safetensors")

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
damaged("other.pt2", [(name.replace("models/model.", "models/other."), content) for name, content in entries])
damaged("format.pt2", [(name, b"zip" if name.endswith("archive_format") else content) for name, content in entries])
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
    let run_with = |model: &str, inputs: &str, args: &[&str]| {
        let mut command = tch_parity();
        command.current_dir(&folder).args(["run", model, "--inputs", inputs]);
        let output = command.args(["--output", "out.safetensors"]).args(args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let run = |model: &str, args: &[&str]| run_with(model, "inputs.safetensors", args);
    let compare = |expected: &str| {
        let mut command = tch_parity();
        command.current_dir(&folder).args(["compare", "out.safetensors", expected]);
        command.args(["--criterion", "bitwise", "--partial=expected"]).output().unwrap()
    };
    let ran = run("model.pt2", &["--backward", "output[0]"]);
    assert_eq!(ran, (Some(0), String::new()));
    stdout(&compare("expected.safetensors"));
    let ran = run_with("nested.pt2", "nested.safetensors", &["--backward", "output[logits]"]);
    assert_eq!(ran, (Some(0), String::new()));
    stdout(&compare("returned.safetensors"));
    for (seed, same) in [("-1", true), ("18446744073709551615", true), ("8", false)] {
        let options = ["--backward", "output[0]", "--seed", seed];
        let ran = run_with("writes.pt2", "image.safetensors", &options);
        assert_eq!(ran, (Some(0), String::new()));
        assert_eq!(compare("written.safetensors").status.success(), same);
    }
    // Its buffers are outputs of the graph.
    let ran = run_with("decomposed.pt2", "rows.safetensors", &[]);
    assert_eq!(ran, (Some(0), String::new()));
    stdout(&compare("normed.safetensors"));
    let mut twice = Trace::load(folder.join("rows.safetensors")).unwrap();
    let ones = Tensor::ones([5, 4], (Kind::Float, tch::Device::Cpu));
    twice.push("input/input", &ones).unwrap();
    twice.save(folder.join("twice.safetensors")).unwrap();
    let (code, error) = run_with("decomposed.pt2", "twice.safetensors", &[]);
    assert_eq!(code, Some(2));
    assert!(error.contains("it has input and input/input, which are one input"), "{error}");
    let (code, error) = run_with("model.pt2", "image.safetensors", &[]);
    assert_eq!(code, Some(2));
    assert!(error.contains("it lacks y of what the program takes (x, y)"), "{error}");
    let (code, error) = run_with("writes.pt2", "image.safetensors", &["--seed", "1.5"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("torch.manual_seed takes whole numbers from -0x8000"), "{error}");
    // A name that is misspelt, and a gradient that is not taken.
    let rows = Tensor::ones([5, 4], (Kind::Float, tch::Device::Cpu));
    for (name, args, says) in [
        ("rows", &[][..], "it has rows, which the program does not take: it takes input, each"),
        (
            "grad/output",
            &[],
            "it has grad/output, which is taken with --backward NAME alone: the program returns output\n",
        ),
        (
            "grad/outptu",
            &["--backward", "output"],
            "it has grad/outptu, and --backward takes grad/output alone: the program returns output\n",
        ),
        (
            "grad/output[0]",
            &["--backward", "output"],
            "it has grad/output[0], and --backward takes grad/output alone",
        ),
    ] {
        let mut inputs = Trace::load(folder.join("rows.safetensors")).unwrap();
        inputs.push(name, &rows).unwrap();
        inputs.save(folder.join("misspelt.safetensors")).unwrap();
        let (code, error) = run_with("decomposed.pt2", "misspelt.safetensors", args);
        assert_eq!((code, error.lines().count()), (Some(2), 1), "{error}");
        assert!(error.contains(says), "{error}");
    }

    let (code, error) = run("model.pt2", &["--backward", "output"]);
    assert_eq!(code, Some(2));
    let says = "--backward output: the program returns output[0], output[1]\n";
    assert!(error.ends_with(says), "{error}");
    let program = Program::load(folder.join("model.pt2")).unwrap();
    assert_eq!(program.inputs().collect::<Vec<_>>(), ["x", "y"]);
    let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, tch::Device::Cpu));
    for (inputs, says) in [
        (vec![ones(&[7, 4])], "the program takes 2 tensors (x, y), and 1 are given"),
        (vec![ones(&[7, 5]), ones(&[4])], "the size of dimension 1 of the input x is 5, not 4"),
        (vec![ones(&[10, 4]), ones(&[4])], "is 10, and at most 9 is allowed"),
        (vec![ones(&[7]), ones(&[4])], "the input x has 1 dimensions, not 2"),
        (
            vec![ones(&[7, 4]).to_kind(Kind::Double), ones(&[4])],
            "dtype torch.float64, not torch.float32",
        ),
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
        ("other.pt2", "the archive has no models/model.json, and it has models/other.json"),
        ("format.pt2", r#"its archive_format is "zip", and PyTorch reads "pt2" alone"#),
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

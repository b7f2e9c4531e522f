//! The recording of any module in PyTorch, and the comparison of its port.

#![cfg(feature = "libtorch")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{ROOT, python, record, recorded_file, scratch, stdout, tch_parity};
use tch::nn::{self, Module, OptimizerConfig, VarStore};
use tch::{Device, Kind, Tensor};
use tch_parity::{Case, Criterion, Names, Parity, Recorder, Trace, assert_parity, compare};

fn example(name: &str) -> PathBuf {
    Path::new(ROOT).join("examples").join(name)
}

fn recorded(name: &str, program: &str) -> (Case, String) {
    let (file, said) = recorded_file(name, program);
    (Case::load(file).unwrap(), said)
}

fn error_of(name: &str, program: &str) -> String {
    let folder = scratch(name);
    let output = record(&folder, program);
    assert!(!output.status.success(), "{program}");
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 0, "nothing is left behind");
    String::from_utf8_lossy(&output.stderr).trim_end().lines().last().unwrap().to_owned()
}

#[test]
fn the_stored_cases_are_what_the_recorders_write() {
    for name in ["mlp", "convnet", "encoder", "llama"] {
        let file = scratch(&format!("port_{name}")).join("case.safetensors");
        stdout(&python().arg(example(&format!("{name}.py"))).arg(&file).output().unwrap());
        let [now, stored] =
            [file, example(&format!("{name}.safetensors"))].map(|file| Trace::load(&file).unwrap());
        common::assert_same(&now, &stored);
    }
}

#[test]
fn calls_and_outputs_of_every_kind_have_a_name() {
    let (case, said) = recorded(
        "port_names",
        r#"
class Inner(nn.Module):
    def forward(self, x):
        return x * 2, {"half": x / 2, "why": "no tensor"}

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.ModuleList([Inner()])
        self.fc = nn.Linear(3, 3)
        self.unused = nn.Linear(3, 3)
        self.relu = nn.ReLU(inplace=True)
        self.skipped = nn.Tanh()

    def forward(self, x, scale, **more):
        bias = more["bias"]
        twice, parts = self.inner[0](x)
        return self.skipped(self.relu(self.fc(self.fc(twice) + parts["half"] * scale)) + bias)

net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
with Recorder("case.safetensors", net, optimizer=optimizer, loss=nn.MSELoss(), skip="skip*") as rec:
    for _ in range(2):
        rec.step(torch.randn(2, 3, requires_grad=True), 3.0, torch.randn(2, 3), bias=torch.ones(3))
"#,
    );
    let names = case.trace.names().collect::<Vec<_>>();
    let from = names.iter().position(|name| *name == "input/x").unwrap();
    let to = names.iter().position(|name| *name == "step/1/L").unwrap();
    assert_eq!(
        names[from..to],
        [
            "input/x",
            "input/bias",
            "input/target",
            "forward/inner.0[0]",
            "forward/inner.0[1][half]",
            "forward/fc",
            "forward/fc@2",
            "forward/relu",
            "forward/output",
            "forward/L",
            "grad/output",
            "grad/relu",
            "grad/fc@2",
            "grad/fc.weight",
            "grad/fc.bias",
            "grad/fc",
            "grad/inner.0[1][half]",
            "grad/inner.0[0]",
            "grad/input/x",
        ]
    );
    assert_eq!(names.iter().filter(|name| name.starts_with("step/2/forward/")).count(), 7);
    let line =
        |name| format!("recorder: not recorded: grad/unused.{name}: backward computed none\n");
    assert_eq!(said, ["weight", "bias"].map(line).concat());
    let run = case.trace.run::<serde_json::Value>().unwrap().unwrap();
    assert_eq!(
        (&run["model"], &run["loss"], &run["steps"]),
        (&"Net".into(), &"MSELoss".into(), &2.into())
    );
    let not_recorded =
        run["not_recorded"].as_array().unwrap().iter().filter_map(|line| line.as_str());
    let asked_for = not_recorded.filter(|line| !line.ends_with("left out by only= or skip="));
    assert_eq!(asked_for.count(), said.lines().count());
}

#[test]
fn a_port_may_record_a_module_that_only_and_skip_left_out() {
    let record = |name: &str, args: &str| {
        let program = format!(
            "net = nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1), nn.Flatten(0))\n\
             with Recorder('case.safetensors', net, loss=nn.MSELoss(){args}) as rec:\n    \
             rec.step(torch.ones(4, 3), torch.ones(4))"
        );
        recorded(name, &program)
    };
    let (all, said) = record("port_all", "");
    assert_eq!(said, "");
    for (name, args) in
        [("port_only", ", only=['0', 'output']"), ("port_skip", ", skip=['[12]', '3']")]
    {
        let (few, said) = record(name, args);
        assert_eq!(said, "", "what was asked for needs no warning");
        let comparison = compare(&all.trace, &few.trace, Criterion::Bitwise);
        assert!(comparison.passes());
        let left_out = comparison.not_compared.iter().map(|left_out| &*left_out.name);
        let modules = ["forward/1", "forward/2", "forward/3", "grad/3", "grad/2", "grad/1"];
        let left_out = left_out.collect::<Vec<_>>();
        assert!(
            modules.iter().all(|name| left_out.contains(name)) && left_out.len() == 6,
            "{left_out:?}"
        );
        let why = "the expected side does not have it: left out by only= or skip=";
        assert!(comparison.not_compared.iter().all(|left_out| left_out.why() == why));
    }
}

#[test]
fn half_precision_and_forward_passes_alone_are_recorded() {
    for (dtype, kind) in [("float16", Kind::Half), ("bfloat16", Kind::BFloat16)] {
        let program = format!(
            "net = nn.Linear(4, 2).to(torch.{dtype})\nwith Recorder('case.safetensors', net) as rec:\n    \
             rec.forward(torch.randn(3, 4, dtype=torch.{dtype}))\n"
        );
        let (case, said) = recorded(&format!("port_{dtype}"), &program);
        assert_eq!(said, "");
        let mut vs = VarStore::new(Device::Cpu);
        let fc = nn::linear(vs.root(), 4, 2, Default::default());
        assert!(
            case.load_parameters(&vs)
                .unwrap_err()
                .to_string()
                .contains(&format!("is {kind:?} in the case"))
        );
        vs.set_kind(kind);
        let fc = nn::Linear { ws: fc.ws.to_kind(kind), ..fc };
        let _ = fc;
        let [weight, bias] =
            ["param/weight", "param/bias"].map(|name| case.trace.tensor(name).unwrap());
        let rec = Recorder::new();
        let x = case.input(1, "input").unwrap();
        let _ = rec.output("output", x.linear(&weight, Some(&bias))).unwrap();
        assert_parity(&rec.into_trace(), &case).unwrap();
    }
}

#[test]
fn the_recorder_says_what_it_cannot_do_and_writes_nothing() {
    let net = "net = nn.Linear(2, 1)\nx, y = torch.ones(3, 2), torch.ones(3, 1)\n";
    let with = |options: &str, body: &str| {
        format!("{net}with Recorder('case.safetensors', net{options}) as rec:\n    {body}\n")
    };
    for (name, program, says) in [
        (
            "nothing",
            with("", "pass"),
            "nothing was recorded into case.safetensors: call step() or forward(), or within watch() the",
        ),
        ("no_loss", with("", "rec.step(x)"), "the loss is no tensor of one element"),
        ("no_target", with(", loss=nn.MSELoss()", "rec.step()"), "the target is missing"),
        ("only", with(", only='fc*'", "rec.forward(x)"), "no module of Linear is recorded"),
        ("failed", with(", loss=nn.MSELoss()", "rec.step(x, y); raise ValueError('mine')"), "mine"),
        (
            "no_grad",
            format!(
                "{net}net.requires_grad_(False)\nwith Recorder('case.safetensors', net, loss=nn.MSELoss()) as rec:\n    rec.step(x, y)"
            ),
            "the loss depends on nothing that requires grad",
        ),
        (
            "late",
            format!(
                "{net}import os\nfor name in ('ATEN_CPU_CAPABILITY', 'MKL_CBWR'): os.environ.pop(name)\nimport subprocess; print(subprocess.run([sys.executable, '-c', 'import torch; from tch_parity import compute_with; torch.ones(9) @ torch.ones(9); torch.randn(9).exp(); compute_with(\"portable\")'], check=True))"
            ),
            "returned non-zero exit status 1",
        ),
    ] {
        let error = error_of(&format!("port_error_{name}"), &program);
        assert!(error.contains(says), "{says}\n{error}");
    }
}

/// Runs one step of the port of `examples/mlp.py`. The arguments can introduce mistakes.
fn mlp(case: &Case, norm_eps: f64, fc1: impl Fn(&nn::Linear, &Tensor) -> Tensor) -> Trace {
    let vs = VarStore::new(Device::Cpu);
    let root = vs.root();
    let first = nn::linear(&root / "fc1", 6, 16, Default::default());
    let config = nn::LayerNormConfig { eps: norm_eps, ..Default::default() };
    let norm = nn::layer_norm(&root / "norm", vec![16], config);
    let second = nn::linear(&root / "fc2", 16, 3, Default::default());
    case.load_parameters(&vs).unwrap();
    let rec = Recorder::new();
    let x = rec.output("fc1", fc1(&first, &case.input(1, "x").unwrap())).unwrap();
    let x = rec.output("norm", norm.forward(&x)).unwrap();
    let x = rec.output("fc2", second.forward(&x.gelu("none"))).unwrap();
    let loss = x.cross_entropy_for_logits(&case.input(1, "target").unwrap());
    loss.backward();
    rec.finish(&loss, &vs).unwrap()
}

fn plain(fc: &nn::Linear, x: &Tensor) -> Tensor {
    fc.forward(x)
}

#[test]
fn a_mistake_is_found_where_it_was_made() {
    let case = Case::load(example("mlp.safetensors")).unwrap();
    let first_step = Parity { steps: Some(1), ..Default::default() };
    first_step.assert(&mlp(&case, 1e-3, plain), &case).unwrap();
    let report = Parity::default().report(&mlp(&case, 1e-5, plain), &case).unwrap();
    assert_eq!(report.origin.unwrap(), "forward/norm is the first to differ; forward/fc1 agrees");
    let panic = std::panic::catch_unwind(|| assert_parity(&mlp(&case, 1e-5, plain), &case));
    let message = *panic.unwrap_err().downcast::<String>().unwrap();
    assert!(message.contains("\nforward/norm is the first to differ"), "{message}");
    assert!(
        message.ends_with("required: another environment")
            || message.contains("DIFFERS: this port ("),
        "{message}"
    );
    assert!(
        message.contains(
            "\nnot compared: forward/gelu forward/output grad/output grad/gelu step/*/L "
        ),
        "{message}"
    );
}

#[test]
fn what_is_not_recorded_is_a_failure_if_strict() {
    let case = Case::load(example("mlp.safetensors")).unwrap();
    let actual = mlp(&case, 1e-3, plain);
    let strict = Parity { strict: true, ..Default::default() };
    let report = strict.report(&actual, &case).unwrap();
    assert!(!report.comparison.passes() && report.text().contains("forward/gelu: it is missing"));
    assert!(!report.text().contains("input/x"), "what is given need not be recorded");
    // The same holds for files.
    let file = scratch("port_strict").join("actual.safetensors");
    actual.save(&file).unwrap();
    let compare = |args: &[&str]| {
        let mut command = tch_parity();
        command
            .arg("compare")
            .arg(&file)
            .arg(example("mlp.safetensors"))
            .args(args)
            .output()
            .unwrap()
    };
    assert_eq!(compare(&[]).status.code(), Some(1));
    assert!(stdout(&compare(&["--partial"])).contains("not compared: param/fc1.weight "));
}

#[test]
fn a_transposed_result_is_hinted_at_and_not_accepted() {
    let rows = Tensor::arange(24, (Kind::Float, Device::Cpu)).view([2, 3, 4]);
    let square = Tensor::arange(9, (Kind::Int64, Device::Cpu)).view([3, 3]);
    let trace = |tensors: [&Tensor; 3]| {
        let mut trace = Trace::new();
        for (name, tensor) in ["w", "s", "z"].iter().zip(tensors) {
            trace.push(*name, tensor).unwrap();
        }
        trace
    };
    let wrong = rows.permute([2, 0, 1]);
    let actual = trace([&wrong, &square.transpose(0, 1), &rows.zeros_like()]);
    let compared = compare(&actual, &trace([&rows, &square, &rows]), Criterion::Close);
    let hints = compared.tensors.iter().map(|tensor| tensor.hint.as_deref()).collect::<Vec<_>>();
    assert_eq!(
        hints,
        [
            Some("with its dimensions permuted by [1, 2, 0] it is bitwise the same"),
            Some("its transpose is bitwise the same"),
            None
        ]
    );
    assert!(compared.tensors.iter().all(|tensor| !tensor.passes));
    assert!(wrong.permute([1, 2, 0]).equal(&rows), "the dims are those of torch.permute");
}

#[test]
fn parameters_that_do_not_fit_are_all_named_and_none_is_set() {
    let case = Case::load(example("mlp.safetensors")).unwrap();
    let vs = VarStore::new(Device::Cpu);
    let root = vs.root();
    let fc1 = nn::linear(&root / "fc1", 6, 16, Default::default());
    let _ = nn::linear(&root / "fc2", 16, 4, Default::default());
    let _ = nn::linear(&root / "head", 1, 1, Default::default());
    let before = fc1.ws.copy();
    assert_eq!(
        case.load_parameters(&vs).unwrap_err().to_string(),
        "the parameters do not fit the case: fc2.bias is [3] in the case, and [4] here; \
         fc2.weight is [3, 16] in the case, and [4, 16] here; head.bias is not in the case; \
         head.weight is not in the case; norm.weight is not in the VarStore; norm.bias is not in the VarStore"
    );
    assert!(fc1.ws.equal(&before));
    let error = case.input(2, "y").unwrap_err().to_string();
    assert!(error.contains(
        r#"no step/2/input/y in this case, whose inputs of that step are ["x", "target"]"#
    ));
}

#[test]
fn a_ports_own_names_are_mapped() {
    let case = Case::load(example("encoder.safetensors")).unwrap();
    let names =
        Names::new(["self_attn.out_proj=attention.output", "self_attn=attention", "norm1=ln_1"]);
    let case = case.renamed(&names.unwrap()).unwrap();
    for name in [
        "param/attention.in_proj_weight",
        "step/2/attention.output.weight",
        "forward/attention[0]",
        "step/3/grad/ln_1.weight",
        "input/src",
    ] {
        assert!(case.trace.get(name).is_some(), "{name}");
    }
    // A * matches a whole part of a name, and linear1 is one.
    let part = Names::new(["linear.*=ff.*"]).unwrap();
    let error = Case::load(example("encoder.safetensors")).unwrap().renamed(&part).unwrap_err();
    assert!(error.to_string().contains("matches no tensor"), "{error}");
    let twice = Names::new(["norm1=norm2"]).unwrap();
    let error = Case::load(example("encoder.safetensors")).unwrap().renamed(&twice).unwrap_err();
    assert!(error.to_string().contains("would both be named param/norm2.weight"), "{error}");
    for (rule, says) in [
        ("a", "is not EXPECTED=ACTUAL"),
        ("=b", "no name on one side"),
        ("a=*", "more * on the right"),
    ] {
        let mut command = tch_parity();
        let file = example("mlp.safetensors");
        let output =
            command.args(["compare", "--rename", rule]).args([&file, &file]).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr.contains(says) && stderr.matches('\n').count() == 1, "{stderr}");
    }
    // In the comparison of files, the port's comes first, then PyTorch's.
    let folder = scratch("port_renamed");
    let mut port = Trace::new();
    let source = Trace::load(example("mlp.safetensors")).unwrap();
    for (name, view) in source.iter() {
        port.push_view(name.replace("fc1", "first"), &view).unwrap();
    }
    port.save(folder.join("port")).unwrap();
    let mut command = tch_parity();
    command.arg("compare").arg(folder.join("port")).arg(example("mlp.safetensors"));
    assert_eq!(command.output().unwrap().status.code(), Some(1));
    stdout(&command.args(["--rename", "fc1=first"]).output().unwrap());
}

#[test]
fn the_recorder_in_rust_names_what_is_wrong() {
    let vs = VarStore::new(Device::Cpu);
    let fc = nn::linear(vs.root() / "fc", 2, 1, Default::default());
    let x = Tensor::ones([3, 2], (Kind::Float, Device::Cpu));
    let rec = Recorder::new();
    let y = rec.output("fc", fc.forward(&x)).unwrap();
    assert!(
        rec.output("fc", y.shallow_clone())
            .unwrap_err()
            .to_string()
            .contains("two tensors named forward/fc")
    );
    let loss = y.mean(Kind::Float);
    let error = rec.finish(&loss, &vs).unwrap_err().to_string();
    assert_eq!(
        error,
        "no gradient in step 1: backward was never run, or was run from another loss"
    );
    // A case of another model and one of another format are refused.
    let mut check = tch_parity();
    let program = "with Recorder('case.safetensors', nn.Linear(1, 1), program=False) as rec:\n    \
                   rec.forward(torch.ones(1, 1))\n";
    let (file, _) = recorded_file("port_no_program", program);
    let output = check.arg("check").arg(file).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        stderr.contains("the case holds no program to run. Record it again")
            && stderr.matches('\n').count() == 1,
        "{stderr}"
    );
    let error = Case::load(common::data("tensor_str/tensors.safetensors")).unwrap_err();
    assert!(format!("{error:#}").contains("no metadata that says what was run"), "{error:#}");
}

#[test]
fn a_recording_in_rust_is_what_the_format_says() {
    let vs = VarStore::new(Device::Cpu);
    let fc = nn::linear(vs.root() / "fc", 2, 1, Default::default());
    let mut optimizer = nn::Sgd::default().build(&vs, 0.1).unwrap();
    let rec = Recorder::new();
    for _ in 0..2 {
        optimizer.zero_grad();
        let x = Tensor::ones([3, 2], (Kind::Float, Device::Cpu));
        let loss = rec.output("fc", fc.forward(&x)).unwrap().mean(Kind::Float);
        loss.backward();
        rec.gradients(&loss, &vs).unwrap();
        optimizer.step();
        rec.step(&vs).unwrap();
    }
    let trace = rec.into_trace();
    assert_eq!(
        trace.names().collect::<Vec<_>>(),
        [
            "forward/fc",
            "forward/L",
            "grad/fc",
            "grad/fc.bias",
            "grad/fc.weight",
            "step/1/L",
            "step/1/fc.bias",
            "step/1/fc.weight",
            "step/2/forward/fc",
            "step/2/forward/L",
            "step/2/grad/fc",
            "step/2/grad/fc.bias",
            "step/2/grad/fc.weight",
            "step/2/L",
            "step/2/fc.bias",
            "step/2/fc.weight",
        ]
    );
    let value = |name: &str| f64::try_from(trace.tensor(name).unwrap()).unwrap();
    assert_eq!(value("forward/L"), value("step/1/L"));
    assert!(value("step/2/L") < value("step/1/L"));
}

#[test]
fn the_examples_have_the_same_bits_whatever_is_said_of_the_cpu() {
    for (mkl, onednn) in [("SSE4_2", "SSE41"), ("AVX2", "AVX2"), ("AVX512", "AVX512_CORE")] {
        for name in ["mlp", "convnet", "encoder"] {
            let mut run = Command::new(env!("CARGO"));
            run.args(["run", "--quiet", "--example", name]).current_dir(ROOT);
            run.env("MKL_ENABLE_INSTRUCTIONS", mkl).env("ONEDNN_MAX_CPU_ISA", onednn);
            let report = stdout(&run.output().unwrap());
            assert!(report.contains("bitwise required: both use portable numerics"), "{report}");
        }
    }
}

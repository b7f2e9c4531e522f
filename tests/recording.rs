//! What the Python package records: any loop, and what a port reads of it.

#![cfg(feature = "libtorch")]

mod common;

use std::path::Path;

use common::{ROOT, python, recorded_file, scratch, tch_parity};
use serde_json::json;
use tch::nn::{self, OptimizerConfig};
use tch::{Device, Kind, Tensor};
use tch_parity::{Case, Numerics, Parity, Recorder};

#[test]
fn of_sixty_loops_every_recorded_value_is_that_of_plain_autograd() {
    unittest("test_recorder.py");
}

#[test]
fn what_the_recorder_once_lost_or_could_not_write_is_right_or_refused() {
    unittest("test_faults.py");
}

fn unittest(file: &str) {
    let file = Path::new(ROOT).join("python/tests").join(file);
    let output = python().args(["-W", "ignore"]).arg(file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.ends_with("\nOK\n"), "{said}");
}

/// A loop of its own with dropout, an argument that is no tensor, and a schedule.
const DROPOUT: &str = r#"
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.drop, self.fc2 = nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 1)

    def forward(self, x, scale):
        return self.fc2(self.drop(self.fc1(x)) * scale)

net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
with Recorder('case.safetensors', net, optimizer=optimizer) as rec:
    for scale in (2.0, 3.0):
        torch.rand(3)  # something else draws between the steps
        x = torch.randn(8, 4)
        with rec.watch():
            optimizer.zero_grad()
            rec.loss(net(x, scale).square().mean()).backward()
            optimizer.step()
            schedule.step()
"#;

#[test]
fn a_port_with_dropout_draws_the_recorded_numbers() {
    Numerics::Portable.restart_with().unwrap();
    let (file, said) = recorded_file("recording_dropout", DROPOUT);
    assert_eq!(said, "");
    let case = Case::load(file).unwrap();
    let vs = nn::VarStore::new(Device::Cpu);
    let fc1 = nn::linear(vs.root() / "fc1", 4, 16, Default::default());
    let fc2 = nn::linear(vs.root() / "fc2", 16, 1, Default::default());
    let port = |restore: bool| {
        case.load_parameters(&vs).unwrap();
        let mut optimizer = nn::Sgd::default().build(&vs, 0.1).unwrap();
        let rec = Recorder::new();
        for step in 1..=2 {
            if restore {
                case.restore_rng(step).unwrap();
            }
            optimizer.zero_grad();
            let scale = case.argument(step, "scale").unwrap().as_f64().unwrap();
            let x = rec.output("fc1", case.input(step, "x").unwrap().apply(&fc1)).unwrap();
            let x = rec.output("drop", x.dropout(0.5, true)).unwrap() * scale;
            let x = rec.output("fc2", x.apply(&fc2)).unwrap();
            let loss = x.square().mean(Kind::Float);
            loss.backward();
            rec.gradients(&loss, &vs).unwrap();
            optimizer.step();
            rec.step(&vs).unwrap();
            optimizer.set_lr(0.05);
        }
        Parity::default().report(&rec.into_trace(), &case).unwrap()
    };
    let report = port(true);
    assert!(report.comparison.passes(), "{}", report.text());
    assert!(!port(false).comparison.passes(), "other numbers are drawn");
    assert_eq!(case.argument(2, "scale").unwrap(), json!(3.0));
    let error = case.argument(3, "scale").unwrap_err().to_string();
    assert_eq!(error, "no argument step/3/input/scale in this case: that step's are []");
    let error = case.argument(1, "x").unwrap_err().to_string();
    let said = "no argument input/x in this case: it is a tensor, for Case::input; that step's are [\"scale\"]";
    assert_eq!(error, said);
    assert!(case.restore_rng_of_call(2, 2).is_ok(), "a call that drew nothing");
    let error = case.restore_rng(3).unwrap_err().to_string();
    assert_eq!(error, "no step 3 in this case, which has steps 1 to 2");
}

#[test]
fn a_state_that_is_none_of_a_generator_is_an_error() {
    let program = format!(
        "{DROPOUT}\nfrom tch_parity import Trace\nt = Trace()\n\
         t.push('rng', torch.zeros(7, dtype=torch.uint8))\nt.push('step/2/rng', torch.zeros(2))\n\
         t.describe({{'model': 'Net'}}, rec.environment)\nt.save('case.safetensors')"
    );
    let (file, _) = recorded_file("recording_rng", &program);
    let case = Case::load(file).unwrap();
    for step in [1, 2] {
        assert!(case.restore_rng(step).is_err());
    }
}

#[test]
fn gradients_can_be_asked_for_again_after_backward() {
    let vs = nn::VarStore::new(Device::Cpu);
    let fc = nn::linear(vs.root() / "fc", 2, 1, Default::default());
    let rec = Recorder::new();
    let x = rec.output("fc", Tensor::ones([3, 2], (Kind::Float, Device::Cpu)).apply(&fc)).unwrap();
    let loss = x.mean(Kind::Float);
    let error = rec.gradients(&loss, &vs).unwrap_err().to_string();
    assert!(error.contains("backward was never run"), "{error}");
    loss.backward();
    rec.gradients(&loss, &vs).unwrap();
    let trace = rec.into_trace();
    let names = trace.names().collect::<Vec<_>>();
    assert_eq!(names, ["forward/fc", "forward/L", "grad/fc", "grad/fc.bias", "grad/fc.weight"]);
}

#[test]
fn a_sparse_gradient_is_its_indices_and_values() {
    Numerics::Portable.restart_with().unwrap();
    let (file, said) = recorded_file(
        "recording_sparse",
        "net = nn.Embedding(7, 3, sparse=True)\nx = torch.tensor([5, 1, 5])\n\
         with Recorder('case.safetensors', net) as rec, rec.watch():\n    \
         rec.loss(net(x).square().mean()).backward()",
    );
    assert_eq!(said, "");
    let case = Case::load(file).unwrap();
    let vs = nn::VarStore::new(Device::Cpu);
    let weight = vs.root().zeros("weight", &[7, 3]);
    case.load_parameters(&vs).unwrap();
    let rec = Recorder::new();
    let embedded = Tensor::embedding(&weight, &case.input(1, "input").unwrap(), -1, false, true);
    let loss = rec.output("output", embedded).unwrap().square().mean(Kind::Float);
    loss.backward();
    rec.gradients(&loss, &vs).unwrap();
    rec.step(&vs).unwrap();
    let trace = rec.into_trace();
    assert_eq!(trace.get("grad/weight[indices]").unwrap().shape(), [1, 2]);
    let report = Parity::default().report(&trace, &case).unwrap();
    assert!(report.comparison.passes(), "{}", report.text());
}

#[test]
fn a_tensor_of_complex128_is_its_real_and_imaginary_part() {
    Numerics::Portable.restart_with().unwrap();
    let (file, _) = recorded_file(
        "recording_complex128",
        "net = nn.Linear(3, 2).to(torch.complex128)\nx = torch.randn(4, 3, dtype=torch.complex128)\n\
         optimizer = torch.optim.SGD(net.parameters(), 0.1)\n\
         with Recorder('case.safetensors', net) as rec, rec.watch():\n    \
         rec.loss(net(x).abs().square().mean()).backward()\n    optimizer.step()",
    );
    let case = Case::load(file).unwrap();
    let vs = nn::VarStore::new(Device::Cpu);
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::ComplexDouble, Device::Cpu));
    let [weight, bias] = [("weight", &[2, 3][..]), ("bias", &[2])]
        .map(|(name, shape)| vs.root().add(name, zeros(shape), true));
    case.load_parameters(&vs).unwrap();
    let named = case.named_parameters(&vs);
    assert!(named.iter().map(|(name, _)| name.as_str()).eq(["weight", "bias"]));
    let rec = Recorder::new();
    let x = case.input(1, "input").unwrap();
    let loss = rec.output("output", x.linear(&weight, Some(&bias))).unwrap();
    let loss = loss.abs().square().mean(Kind::Double);
    loss.backward();
    rec.gradients(&loss, &vs).unwrap();
    tch::no_grad(|| {
        for (_, mut parameter) in named {
            let gradient = parameter.grad();
            let _ = parameter.f_sub_(&(gradient * 0.1)).unwrap();
        }
    });
    rec.step(&vs).unwrap();
    let trace = rec.into_trace();
    assert_eq!(trace.get("grad/weight[imag]").unwrap().shape(), [2, 3]);
    let report = Parity::default().report(&trace, &case).unwrap();
    assert!(report.comparison.passes(), "{}", report.text());
}

#[test]
fn the_file_of_a_port_says_where_it_was_computed() {
    Numerics::Portable.restart_with().unwrap();
    let case = Path::new(ROOT).join("examples/mlp.safetensors");
    let vs = nn::VarStore::new(Device::Cpu);
    let _ = vs.root().zeros("w", &[1]);
    let rec = Recorder::new();
    rec.step(&vs).unwrap();
    let port = scratch("recording_environment").join("port.safetensors");
    rec.into_trace().save(&port).unwrap();
    let output = tch_parity().arg("compare").args([&port, &case]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.ends_with("bitwise required: both use portable numerics)\n"), "{text}");
}

#[test]
fn the_reference_says_in_one_line_what_is_wrong() {
    for (args, says) in [
        (["--lr", "-1"], "Invalid learning rate: -1.0"),
        (["--record", "/nonexistent/x"], "there is no folder /nonexistent"),
        (["--record", "/dev/null"], "/dev/null is no regular file"),
    ] {
        let mut reference = python();
        reference.arg(Path::new(ROOT).join("scripts/reference.py")).arg("notebook").args(args);
        let output = reference.output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert_eq!(String::from_utf8_lossy(&output.stderr), format!("reference.py: {says}\n"));
    }
}

//! A value that is overwritten in place keeps its own gradient, or says why it has none, on either side.

#![cfg(feature = "libtorch")]

mod common;

use common::recorded_file;
use serde_json::Value;
use tch::nn::{self, ModuleT, OptimizerConfig, VarStore};
use tch::{Device, Kind, Tensor};
use tch_parity::report::Report;
use tch_parity::{Case, Numerics, Parity, Recorder, Trace};

/// The reason that the recorders give.
const WHY: &str =
    "overwritten in place after the module returned it, so that its gradient is another value's";

/// The residual block of torchvision, twice, in place or not.
fn recorded(name: &str, in_place: bool) -> Case {
    let (add, inplace) = if in_place { ("out += x", "True") } else { ("out = out + x", "False") };
    let program = format!(
        r#"
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.conv2, self.bn2 = nn.Conv2d(3, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace={inplace})

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        {add}
        return self.relu(out)

net = Block()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
with Recorder('case.safetensors', net, optimizer=optimizer, loss=nn.MSELoss()) as rec:
    for _ in range(2):
        rec.step(torch.randn(2, 3, 5, 5), torch.randn(2, 3, 5, 5))
"#
    );
    Case::load(recorded_file(name, &program).0).unwrap()
}

fn port(case: &Case, in_place: bool) -> Trace {
    let vs = VarStore::new(Device::Cpu);
    let root = vs.root();
    let config = nn::ConvConfig { padding: 1, bias: false, ..Default::default() };
    let [conv1, conv2] = ["conv1", "conv2"].map(|name| nn::conv2d(&root / name, 3, 3, 3, config));
    let [bn1, bn2] =
        ["bn1", "bn2"].map(|name| nn::batch_norm2d(&root / name, 3, Default::default()));
    case.load_parameters(&vs).unwrap();
    let mut optimizer = nn::Sgd::default().build(&vs, 0.1).unwrap();
    let relu = |mut x: Tensor| if in_place { x.relu_() } else { x.relu() };
    let rec = Recorder::new();
    for step in 1..=2 {
        optimizer.zero_grad();
        let x = case.input(step, "x").unwrap();
        let out = rec.output("conv1", conv1.forward_t(&x, true)).unwrap();
        let out = rec.output("bn1", bn1.forward_t(&out, true)).unwrap();
        let out = rec.output("relu", relu(out)).unwrap();
        let out = rec.output("conv2", conv2.forward_t(&out, true)).unwrap();
        let mut out = rec.output("bn2", bn2.forward_t(&out, true)).unwrap();
        let out = if in_place { out.g_add_(&x) } else { out + x };
        let out = rec.output("relu@2", relu(out)).unwrap();
        let out = rec.output("output", out).unwrap();
        let loss = out.mse_loss(&case.input(step, "target").unwrap(), tch::Reduction::Mean);
        loss.backward();
        rec.gradients(&loss, &vs).unwrap();
        optimizer.step();
        rec.step(&vs).unwrap();
    }
    rec.into_trace()
}

fn report(actual: &Trace, case: &Case) -> Report {
    let strict = Parity { strict: true, ..Default::default() };
    strict.report(actual, case).unwrap()
}

#[test]
fn a_residual_block_in_place_and_one_that_is_not_are_the_same() {
    Numerics::Portable.restart_with().unwrap();
    for (name, case_in_place) in [("in_place_plain", false), ("in_place_case", true)] {
        let case = recorded(name, case_in_place);
        for in_place in [false, true] {
            let actual = port(&case, in_place);
            assert_eq!(actual.run::<Value>().unwrap(), None, "every gradient is known");
            let mut report = report(&actual, &case);
            // tch's BatchNorm has no such buffer.
            let counts = |name: &str| name.ends_with("num_batches_tracked");
            report.comparison.tensors.retain(|tensor| !counts(&tensor.name));
            let text = report.text();
            assert!(report.comparison.passes(), "{case_in_place} {in_place}\n{text}");
            assert!(report.comparison.not_compared.is_empty(), "both keep every gradient");
        }
    }
}

#[test]
fn a_wrong_backward_is_found_where_the_value_is_overwritten() {
    Numerics::Portable.restart_with().unwrap();
    let case = recorded("in_place_wrong", false);
    let right = port(&case, true);
    let mut wrong = Trace::new();
    for (name, view) in right.iter() {
        let mut bytes = view.data().to_vec();
        if name == "grad/bn2" {
            bytes[0] ^= 1;
        }
        let view =
            safetensors::tensor::TensorView::new(view.dtype(), view.shape().to_vec(), &bytes);
        wrong.push_view(name, &view.unwrap()).unwrap();
    }
    let text = report(&wrong, &case).text();
    assert!(text.contains("grad/bn2 is the first to differ"), "{text}");
}

/// Records one output `y` of `x`, a leaf, and the gradients after `then` has made the loss of it.
fn gradient_of(y: impl Fn(&Tensor) -> Tensor, then: impl Fn(Tensor) -> Tensor) -> Trace {
    let vs = VarStore::new(Device::Cpu);
    let x = vs.root().add("x", Tensor::from_slice(&[1f32, 2., 3., 4.]), true);
    let rec = Recorder::new();
    let loss = then(rec.output("y", y(&x)).unwrap()).sum(Kind::Float);
    loss.backward();
    rec.finish(&loss, &vs).unwrap()
}

fn values(trace: &Trace, name: &str) -> Vec<f32> {
    Vec::try_from(trace.tensor(name).unwrap().flatten(0, -1)).unwrap()
}

#[test]
fn the_gradient_is_that_of_the_value_that_was_returned() {
    // Overwritten as a whole, and in part; used before, and between.
    let whole = gradient_of(|x| x * 2, |mut y| y.g_mul_scalar_(3));
    assert_eq!((values(&whole, "grad/y"), values(&whole, "grad/x")), (vec![3.; 4], vec![6.; 4]));
    let part = gradient_of(
        |x| x * 2,
        |y| {
            let _ = y.narrow(0, 0, 2).g_mul_scalar_(5);
            y
        },
    );
    assert_eq!(values(&part, "grad/y"), [5., 5., 1., 1.]);
    let before = gradient_of(
        |x| x * 2,
        |mut y| {
            let used = &y * 10;
            used + y.g_mul_scalar_(3)
        },
    );
    assert_eq!(values(&before, "grad/y"), [13.; 4]);
    let zeroed = gradient_of(
        |x| x * 2,
        |mut y| {
            let used = &y * 10;
            used + y.zero_()
        },
    );
    assert_eq!(values(&zeroed, "grad/y"), [10.; 4]);
    for trace in [whole, part, before, zeroed] {
        assert_eq!(trace.run::<Value>().unwrap(), None);
    }
}

#[test]
fn a_view_that_was_overwritten_has_a_reason_and_no_gradient() {
    let view = |x: &Tensor| (x * 2).view([2, 2]);
    let untouched = gradient_of(view, |y| y * 3);
    assert_eq!(values(&untouched, "grad/y"), [3.; 4]);
    let overwritten = gradient_of(view, |mut y| &y * 10 + y.g_mul_scalar_(3));
    assert!(overwritten.get("grad/y").is_none());
    let run = overwritten.run::<Value>().unwrap().unwrap();
    assert_eq!(run, serde_json::json!({ "not_recorded": [format!("grad/y: {WHY}")] }));
    assert_eq!(values(&overwritten, "grad/x"), [26.; 4]);
    // The port's reason excuses nothing else.
    let compare = |actual: &Trace, expected: &Trace| {
        tch_parity::compare(actual, expected, tch_parity::Criterion::Bitwise)
    };
    let mut case = gradient_of(view, |y| y * 13);
    let run = serde_json::json!({ "model": "Net", "optimizer": { "foreach": true }, "steps": 1 });
    case.describe(&run, &serde_json::json!({})).unwrap();
    let comparison = compare(&overwritten, &case);
    let differ = comparison.tensors.iter().filter(|tensor| !tensor.passes).count();
    assert!(comparison.run.is_empty() && comparison.noted.is_empty() && differ == 0);
    let [left_out] = &comparison.not_compared[..] else { panic!("{:?}", comparison.not_compared) };
    assert_eq!((&*left_out.name, left_out.lacking), ("grad/y", tch_parity::Side::Actual));
    assert_eq!(left_out.reason.as_deref(), Some(WHY));
}

#[test]
fn a_leaf_and_several_backward_passes_add_up() {
    let vs = VarStore::new(Device::Cpu);
    let x = vs.root().add("x", Tensor::from_slice(&[1f32, 2.]), true);
    let rec = Recorder::new();
    let leaf = rec.output("leaf", x.shallow_clone()).unwrap();
    let y = rec.output("y", leaf * 2).unwrap();
    let same = rec.output("same", y.shallow_clone()).unwrap();
    let (first, second) = ((&same * 3).sum(Kind::Float), (&same * 4).sum(Kind::Float));
    first.backward();
    second.backward();
    let trace = rec.finish(&second, &vs).unwrap();
    for (name, expected) in [("grad/leaf", 14.), ("grad/x", 14.), ("grad/y", 7.), ("grad/same", 7.)]
    {
        assert_eq!(values(&trace, name), [expected; 2], "{name}");
    }
    assert_eq!(trace.strides("grad/y").unwrap(), [1]);
}

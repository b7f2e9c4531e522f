//! The optimizers take PyTorch's steps: every bit of parameters and state, for random settings and gradients now.

#![cfg(feature = "libtorch")]

mod common;

use std::collections::BTreeMap;

use common::{pytorch, scratch, seed};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, from_value};
use tch::{Kind, Tensor};
use tch_parity::Trace;
use tch_parity::optim::*;

const STEPS: i64 = 50;
const CASES: &str = "40";

/// The optimizers whose bits are not PyTorch's, each with its reason: none.
const NOT_BITWISE: [(&str, &str); 0] = [];

/// A case of `tests/optimizers.py`.
#[derive(Deserialize)]
struct Case {
    optimizer: String,
    groups: Vec<Value>,
    first: usize,
    shapes: Vec<Vec<i64>>,
    sparse: bool,
    /// What LBFGS minimizes.
    function: Option<String>,
}

/// Returns the elements of a dense tensor as bytes.
fn bytes(tensor: &Tensor) -> Vec<u8> {
    let mut trace = Trace::new();
    trace.push("x", tensor).unwrap();
    trace.get("x").unwrap().data().to_vec()
}

/// Replays a case, and returns the first step in which a parameter or its state has other bits.
fn replay<O: Formula + DeserializeOwned>(trace: &Trace, key: &str, case: &Case) -> Option<String> {
    let tensor = |name: &str| trace.tensor(&format!("{key}/{name}")).unwrap();
    let (initial, gradients) = (tensor("param"), tensor("grad"));
    let indices = case.sparse.then(|| tensor("index"));
    let has = Vec::<i64>::try_from(tensor("has").to_kind(Kind::Int64)).unwrap();
    let lengths = Vec::<i64>::try_from(tensor("length")).unwrap();
    let after = trace.get(&format!("{key}/after")).unwrap();
    let take = |from: &Tensor, at: &mut i64, shape: &[i64]| {
        let n = shape.iter().product::<i64>();
        *at += n;
        from.narrow(0, *at - n, n).reshape(shape)
    };
    let mut at = 0;
    let parameters = case.shapes.iter().enumerate().map(|(i, shape)| {
        let p = take(&initial, &mut at, shape).copy().set_requires_grad(true);
        (format!("p{i}"), p)
    });
    let parameters = parameters.collect::<Vec<_>>();
    let mut options = case.groups.iter().map(|group| from_value::<O>(group.clone()).unwrap());
    let named = |range: std::ops::Range<usize>| {
        parameters[range].iter().map(|(name, p)| (name.as_str(), p)).collect::<Vec<_>>()
    };
    let mut optimizer = build(options.next().unwrap(), named(0..case.first));
    optimizer.add_group(options.next().unwrap(), named(case.first..parameters.len())).unwrap();

    let (mut at, mut at_index, mut at_after) = (0, 0, 0);
    let mut has = has.into_iter();
    for step in 0..STEPS {
        if step == STEPS / 2 {
            for group in &mut optimizer.groups {
                *group.options.lr() *= 0.3;
            }
            // The run is taken up from the recorded state, as after a break.
            let mut state = Trace::new();
            optimizer.save_state(&mut state, "optimizer/").unwrap();
            if state.names().next().is_some() {
                optimizer.load_state(&state, "optimizer/").unwrap();
            }
        }
        optimizer.zero_grad().unwrap();
        for (_, p) in &parameters {
            if has.next().unwrap() == 0 {
                continue;
            }
            let loss = match &indices {
                Some(indices) => {
                    let n = take(indices, &mut at_index, &[1]).int64_value(&[0]);
                    let index = take(indices, &mut at_index, &[n]);
                    let gradient = take(&gradients, &mut at, &[n, p.size()[1]]);
                    Tensor::embedding(p, &index, -1, false, true) * gradient
                }
                None => p * take(&gradients, &mut at, &p.size()),
            };
            loss.sum(None).backward();
        }
        optimizer.step().unwrap();
        let mut now = parameters.iter().flat_map(|(_, p)| bytes(p)).collect::<Vec<_>>();
        for (name, _) in &parameters {
            let Some(state) = optimizer.state(name) else { continue };
            now.extend(state.names().flat_map(|name| bytes(&state.get(name).unwrap())));
        }
        let end = at_after + lengths[step as usize] as usize;
        let expected = &after.data()[at_after..end];
        if now != expected {
            let byte = now.iter().zip(expected).position(|(a, b)| a != b);
            return Some(format!(
                "{key} step {step}: byte {byte:?} of {} ({} here), {:?} {:?}",
                expected.len(),
                now.len(),
                initial.kind(),
                case.groups
            ));
        }
        at_after = end;
    }
    None
}

/// Replays a case of LBFGS, and returns the first step in which something has other bits.
fn minimize(trace: &Trace, key: &str, case: &Case) -> Option<String> {
    let tensor = |name: &str| trace.tensor(&format!("{key}/{name}")).unwrap();
    let (initial, a, b) = (tensor("param"), tensor("a"), tensor("b"));
    let mut at = 0;
    let parameters = case.shapes.iter().enumerate().map(|(i, shape)| {
        at += shape[0];
        let p = initial.narrow(0, at - shape[0], shape[0]).copy().set_requires_grad(true);
        (format!("p{i}"), p)
    });
    let parameters = parameters.collect::<Vec<_>>();
    let x = || Tensor::cat(&parameters.iter().map(|(_, p)| p).collect::<Vec<_>>(), 0);
    let function = |x: &Tensor| match case.function.as_deref() {
        Some("rosenbrock") => {
            let n = x.size()[0];
            let square = |x: Tensor| x.pow_tensor_scalar(2);
            // A slice is taken anew wherever Python does: gradients are added up in that order.
            let this = || x.narrow(0, 0, n - 1);
            let valley = square(x.narrow(0, 1, n - 1) - square(this())) * 100;
            (valley + square(1 - this())).sum(None)
        }
        Some("quadratic") => (a.matmul(x) - &b).pow_tensor_scalar(2).sum(None),
        Some("logistic") => (a.matmul(x).softplus() - &b * a.matmul(x)).mean(None),
        Some("quartic") => {
            a.matmul(x).pow_tensor_scalar(4).mean(None) - (&b * a.matmul(x)).sum(None)
        }
        function => panic!("{function:?}"),
    };
    let options = from_value::<LBFGS>(case.groups[0].clone()).unwrap();
    let mut optimizer = options.build_from(parameters.iter().map(|(n, p)| (n, p))).unwrap();
    for step in 0..8 {
        let loss = optimizer.step_with(|optimizer| {
            optimizer.zero_grad()?;
            let loss = function(&x());
            loss.f_backward()?;
            Ok(loss)
        });
        let loss = match loss {
            Ok(loss) => loss,
            Err(err) => return Some(format!("{key} step {step}: {err:#}")),
        };
        let state = optimizer.state("p0").unwrap();
        let prefix = format!("{key}/state/{step}/");
        let expected = trace.iter().filter(|(name, _)| name.starts_with(&prefix));
        let mut wrong = Vec::new();
        for (name, view) in expected {
            let name = &name[prefix.len()..];
            let ours = state.get(name).map(|tensor| bytes(&tensor));
            if ours.as_deref() != Some(view.data()) {
                wrong.push(name.to_owned());
            }
        }
        let known = trace.names().filter(|name| name.starts_with(&prefix)).count();
        if state.names().count() != known {
            wrong.push(format!("{:?}", state.names().collect::<Vec<_>>()));
        }
        for (name, ours) in [("loss", &loss), ("after", &x())] {
            if bytes(ours) != bytes(&tensor(&format!("{name}/{step}"))) {
                wrong.push(name.to_owned());
            }
        }
        if !wrong.is_empty() {
            let (function, group) = (&case.function, &case.groups[0]);
            return Some(format!(
                "{key} step {step}: {wrong:?} {:?} {function:?} {group}",
                x().kind()
            ));
        }
        if step == 3 {
            let mut state = Trace::new();
            optimizer.save_state(&mut state, "optimizer/").unwrap();
            optimizer.load_state(&state, "optimizer/").unwrap();
        }
    }
    None
}

/// Builds an optimizer of any kind, which the crate's `build_from` does for each.
fn build<O: Formula>(options: O, parameters: Vec<(&str, &Tensor)>) -> Optimizer<O> {
    let mut optimizer = Optimizer { groups: Vec::new() };
    optimizer.add_group(options, parameters).unwrap();
    optimizer
}

/// What `tests/optimizers.py` writes.
#[derive(Deserialize)]
struct Run {
    cases: Vec<Case>,
    clips: Vec<Clip>,
    refused: Vec<Refused>,
}

/// Gradients that are clipped.
#[derive(Deserialize)]
struct Clip {
    shapes: Vec<Vec<i64>>,
    limit: f64,
    norm_type: String,
    by_value: bool,
    message: Option<String>,
}

/// Options, and the message with which PyTorch refuses them.
#[derive(Deserialize)]
struct Refused {
    optimizer: String,
    options: Value,
    message: Option<String>,
}

fn recorded(name: &str) -> (String, Trace) {
    let seed = seed();
    tch::set_num_threads(1);
    let file = scratch(name).join("cases.safetensors");
    pytorch("tests/optimizers.py", &[file.to_str().unwrap(), &seed, CASES]);
    (seed, Trace::load(&file).unwrap())
}

#[test]
fn random_steps_clippings_and_refusals_are_those_of_pytorch() {
    let (seed, trace) = recorded("optim");
    let run = trace.run::<Run>().unwrap().unwrap();
    let mut wrong = steps(&trace, &run.cases);
    wrong.extend(run.clips.iter().enumerate().filter_map(|(i, case)| clipped(&trace, i, case)));
    wrong.extend(run.refused.iter().filter_map(refused));
    assert!(run.refused.iter().filter(|case| case.message.is_some()).count() > 60);
    assert!(wrong.is_empty(), "seed {seed}:\n{}", wrong.join("\n"));
}

/// Replays all cases, and returns a line for each optimizer that is not as [`NOT_BITWISE`] says.
fn steps(trace: &Trace, cases: &[Case]) -> Vec<String> {
    let mut failures = BTreeMap::<&str, Vec<String>>::new();
    let mut counts = BTreeMap::<&str, usize>::new();
    for case in cases {
        let count = counts.entry(&case.optimizer).or_default();
        let key = format!("{}/{count}", case.optimizer);
        *count += 1;
        let replay = match case.optimizer.as_str() {
            "SGD" => replay::<SGD>,
            "Adam" => replay::<Adam>,
            "AdamW" => replay::<AdamW>,
            "NAdam" => replay::<NAdam>,
            "RAdam" => replay::<RAdam>,
            "Adamax" => replay::<Adamax>,
            "Adadelta" => replay::<Adadelta>,
            "Adagrad" => replay::<Adagrad>,
            "RMSprop" => replay::<RMSprop>,
            "Rprop" => replay::<Rprop>,
            "ASGD" => replay::<ASGD>,
            "Adafactor" => replay::<Adafactor>,
            "SparseAdam" => replay::<SparseAdam>,
            "Muon" => replay::<Muon>,
            "LBFGS" => minimize,
            name => panic!("{name}"),
        };
        failures.entry(&case.optimizer).or_default().extend(replay(trace, &key, case));
    }
    assert_eq!(counts.len(), 15, "optimizers");
    let unlike = |(name, failures): (&&str, &Vec<String>)| {
        let listed = NOT_BITWISE.iter().any(|(listed, _)| listed == name);
        (listed == failures.is_empty()).then(|| {
            let first = failures.first().map_or("", String::as_str);
            format!("{name}: {} of {CASES} cases differ; {first}", failures.len())
        })
    };
    failures.iter().filter_map(unlike).collect()
}

/// Clips the gradients of a case, and returns what is not as in PyTorch.
fn clipped(trace: &Trace, i: usize, case: &Clip) -> Option<String> {
    let tensor = |name: &str| trace.tensor(&format!("clip/{i}/{name}")).unwrap();
    let gradients = tensor("grad");
    let kind = gradients.kind();
    let zeros =
        |shape: &Vec<i64>| Tensor::zeros(shape, (kind, tch::Device::Cpu)).set_requires_grad(true);
    let parameters = case.shapes.iter().map(zeros).collect::<Vec<_>>();
    let mut at = 0;
    for p in &parameters[1..] {
        let n = p.numel() as i64;
        (p * gradients.narrow(0, at, n).reshape(p.size())).sum(None).backward();
        at += n;
    }
    let norm_type = case.norm_type.parse::<f64>().unwrap();
    let total = if case.by_value {
        clip_grad_value_(&parameters, case.limit).unwrap();
        0.
    } else {
        clip_grad_norm_(&parameters, case.limit, norm_type).unwrap()
    };
    let clipped = parameters[1..].iter().map(Tensor::grad).collect::<Vec<_>>();
    let message = get_total_norm(&clipped, norm_type, true).err().map(|err| err.to_string());
    let flat = clipped.iter().map(|grad| grad.reshape([-1])).collect::<Vec<_>>();
    let same = bytes(&Tensor::cat(&flat, 0)) == bytes(&tensor("clipped"));
    let same = same
        && total.to_bits() == tensor("total").double_value(&[]).to_bits()
        && message == case.message;
    (!same).then(|| format!("clip/{i}: {kind:?} {} {} {message:?}", case.norm_type, case.by_value))
}

/// Builds an optimizer with odd options, and returns its message if it is not PyTorch's.
fn refused(case: &Refused) -> Option<String> {
    fn message<O: Options + DeserializeOwned>(options: Value) -> Option<String> {
        let tensor = Tensor::zeros([2, 2], (Kind::Float, tch::Device::Cpu));
        let mut optimizer = Optimizer { groups: Vec::new() };
        let added = optimizer.add_group(from_value::<O>(options).unwrap(), [("p", tensor)]);
        added.err().map(|err| err.root_cause().to_string())
    }
    let message = match case.optimizer.as_str() {
        "SGD" => message::<SGD>,
        "Adam" => message::<Adam>,
        "AdamW" => message::<AdamW>,
        "NAdam" => message::<NAdam>,
        "RAdam" => message::<RAdam>,
        "Adamax" => message::<Adamax>,
        "Adadelta" => message::<Adadelta>,
        "Adagrad" => message::<Adagrad>,
        "RMSprop" => message::<RMSprop>,
        "Rprop" => message::<Rprop>,
        "ASGD" => message::<ASGD>,
        "Adafactor" => message::<Adafactor>,
        "SparseAdam" => message::<SparseAdam>,
        "Muon" => message::<Muon>,
        "LBFGS" => message::<LBFGS>,
        name => panic!("{name}"),
    };
    let ours = message(case.options.clone());
    let (theirs, options) = (&case.message, &case.options);
    (&ours != theirs).then(|| format!("{}: {ours:?}, not {theirs:?}: {options}", case.optimizer))
}

#[test]
fn what_cannot_be_built_or_loaded_is_named() {
    let tensor = || Tensor::zeros([3], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
    let error = |result: anyhow::Result<()>| format!("{:#}", result.unwrap_err());
    let x = tensor();
    let none: [(&str, Tensor); 0] = [];
    let built = SGD::default().build_from(none).map(drop);
    assert_eq!(error(built), "optimizer got an empty parameter list");
    let built = SGD::default().build_from([("x", &x * 2)]).map(drop);
    assert_eq!(error(built), "can't optimize a non-leaf Tensor: x");
    let built = Muon::default().build_from([("x", &x)]).map(drop);
    let size =
        "Muon only supports 2D parameters whereas we found a parameter with size: torch.Size([3])";
    assert_eq!(error(built), format!("x: {size}"));
    let mut optimizer = AdamW::default().build_from([("x", &x)]).unwrap();
    let again = optimizer.add_group(AdamW::default(), [("y", &x)]);
    assert_eq!(error(again), "some parameters appear in more than one parameter group: y");
    let again = optimizer.add_group(AdamW::default(), [("x", tensor())]);
    assert_eq!(error(again), "two parameters are named x");
    assert_eq!(optimizer.groups.len(), 1);

    let state = |entries: &[(&str, Tensor)]| {
        let mut trace = Trace::new();
        entries.iter().for_each(|(name, value)| trace.push(format!("s/{name}"), value).unwrap());
        trace
    };
    let (step, zeros) =
        (|| Tensor::from(2f32), || Tensor::zeros([3], (Kind::Float, tch::Device::Cpu)));
    let mut load = |entries: &[(&str, Tensor)]| error(optimizer.load_state(&state(entries), "s/"));
    assert_eq!(load(&[]), "no tensor's name begins with \"s/\"");
    assert_eq!(load(&[("step/x", step())]), "x: exp_avg is missing");
    let all = |exp_avg: Tensor, name| {
        [("step/x", step()), ("exp_avg/x", exp_avg), ("exp_avg_sq/x", zeros()), (name, zeros())]
    };
    assert_eq!(load(&all(zeros(), "z/y")), "the optimizer has no parameter y");
    assert_eq!(load(&all(zeros(), "z/x")), "x: AdamW has no state z");
    let long = Tensor::zeros([4], (Kind::Float, tch::Device::Cpu));
    assert_eq!(load(&all(long, "z/x")), "x: exp_avg is of shape [4], not [3]");
    let double = zeros().to_kind(Kind::Double);
    assert_eq!(load(&all(double, "z/x")), "x: exp_avg is Double, not Float");
    assert!(optimizer.state("x").is_none(), "nothing is set");
}

#[test]
fn a_gradient_that_an_optimizer_does_not_take_is_refused() {
    let table = Tensor::zeros([3, 2], (Kind::Float, tch::Device::Cpu)).set_requires_grad(true);
    let rows = Tensor::embedding(&table, &Tensor::from_slice(&[1i64]), -1, false, true);
    rows.sum(None).backward();
    let mut adam = Adam::default().build_from([("x", &table)]).unwrap();
    let words = "Adam does not support sparse gradients, please consider SparseAdam instead";
    assert_eq!(adam.step().unwrap_err().to_string(), words);
    let mut muon = Muon::default().build_from([("x", &table)]).unwrap();
    assert_eq!(muon.step().unwrap_err().to_string(), "Muon does not support sparse gradients");
    let mut sparse = SparseAdam::default().build_from([("x", &table)]).unwrap();
    sparse.step().unwrap();
    sparse.zero_grad().unwrap();
    assert!(!table.grad().defined());
    (&table * 2).sum(None).backward();
    let words = "SparseAdam does not support dense gradients, please consider Adam instead";
    assert_eq!(sparse.step().unwrap_err().to_string(), words);
}

//! Tensors of every kind that safe Rust can make, handed to every public function: the result is right, or an
//! error, and never a panic, a signal or an allocation that the data does not justify.

#![cfg(feature = "libtorch")]

mod common;

use std::env;
use std::process::Command;

use common::{Random, data, seed};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor};
use tch_parity::optim::{
    Adafactor, AdamW, LBFGS, SGD, clip_grad_norm_, clip_grad_value_, get_total_norm,
};
use tch_parity::{
    Case, Linear, Loss, Model, RecordedOptimizer, Recorder, RetainGrad, Run, ThreeLayerNet, Trace,
    repr, train,
};

/// Set in the process that the tensors are handed around in, so that a signal ends that one alone.
const CHILD: &str = "TCH_PARITY_HOSTILE";

const KINDS: [Kind; 20] = [
    Kind::Float,
    Kind::Float,
    Kind::Double,
    Kind::Half,
    Kind::BFloat16,
    Kind::Int64,
    Kind::Int,
    Kind::Int16,
    Kind::Int8,
    Kind::Uint8,
    Kind::Bool,
    Kind::ComplexFloat,
    Kind::ComplexDouble,
    Kind::ComplexHalf,
    Kind::Float8e4m3fn,
    Kind::Float8e5m2,
    Kind::Float8e4m3fnuz,
    Kind::Float8e5m2fnuz,
    Kind::QInt8,
    Kind::QUInt8,
];

/// Draws a tensor, and says what it is. Every fourth has the shape of the first layer's weight.
fn drawn(random: &mut Random) -> (Tensor, String) {
    let kind = KINDS[random.below(KINDS.len())];
    let shape = match random.below(4) {
        0 => vec![2, 2],
        _ => (0..random.below(9)).map(|_| random.below(8).min(3) as i64).collect::<Vec<_>>(),
    };
    let numel = shape.iter().product::<i64>();
    let values = Tensor::arange(numel, (Kind::Float, Device::Cpu)) - 1.5;
    let values = values.reshape(&shape);
    let tensor = match kind {
        Kind::QInt8 | Kind::QUInt8 => {
            values.f_quantize_per_tensor(0.5, 1, kind).unwrap_or_else(|_| values.shallow_clone())
        }
        kind => values.to_kind(kind),
    };
    let last = shape.len() as i64 - 1;
    let (name, made) = match random.below(20) {
        0 if last >= 0 => ("transposed", tensor.f_transpose(0, last)),
        1 if last >= 0 => ("every second", tensor.f_slice(last, 0, None, 2)),
        // Over a quantized one, libtorch calls itself without end whatever is asked of it.
        2 if !matches!(kind, Kind::QInt8 | Kind::QUInt8) => {
            ("lazily negated", tensor.f_internal_neg_view())
        }
        3 => ("lazily conjugated", tensor.f_conj()),
        4 => ("an imaginary part", tensor.f_conj().and_then(|t| t.f_imag())),
        5 => (
            "of one number",
            Tensor::f_zeros([1; 3], (kind, Device::Cpu)).and_then(|t| t.f_expand([3, 2, 4], false)),
        ),
        6 => (
            "as large as 2^40",
            Tensor::f_zeros([1], (kind, Device::Cpu)).and_then(|t| t.f_expand([1 << 40], false)),
        ),
        7 => (
            "as large as 2^61",
            Tensor::f_zeros([1], (kind, Device::Cpu)).and_then(|t| t.f_expand([1 << 61], false)),
        ),
        8 => (
            "with overlaps",
            Tensor::f_zeros([8], (kind, Device::Cpu))
                .and_then(|t| t.f_as_strided([3, 4], [1, 1], None)),
        ),
        18 => (
            "of windows",
            Tensor::f_zeros([80_000], (kind, Device::Cpu)).and_then(|t| t.f_unfold(0, 40_000, 1)),
        ),
        9 => ("sparse", tensor.f_to_sparse(None, None::<i64>, None)),
        10 => ("sparse by rows", tensor.f_to_sparse_csr(None)),
        11 => ("oneDNN's", tensor.f_to_mkldnn(Kind::Float)),
        12 => {
            ("a zero tensor", Tensor::f_internal_efficientzerotensor(&shape, (kind, Device::Cpu)))
        }
        13 => ("nested", nested(&tensor)),
        14 => ("undefined", Ok(Tensor::new())),
        15 => ("requiring gradients", tensor.f_set_requires_grad(true)),
        16 => ("a result", tensor.f_set_requires_grad(true).and_then(|t| t.f_mul(&t))),
        17 => (
            "of 70 dimensions",
            tensor
                .f_reshape(-1)
                .and_then(|t| t.f_narrow(0, 0, 1))
                .and_then(|t| t.f_reshape([1i64; 70])),
        ),
        _ => ("as it is", Ok(tensor.shallow_clone())),
    };
    // libtorch refuses some of them, and then the plain tensor has to do.
    match made {
        Ok(made) => (made, format!("{name}, of {kind:?} {shape:?}")),
        Err(_) => (tensor, format!("plain, of {kind:?} {shape:?}")),
    }
}

fn nested(tensor: &Tensor) -> Result<Tensor, tch::TchError> {
    let parts = [tensor.f_reshape([1, -1])?, tensor.f_reshape([1, -1])?];
    let sizes = Tensor::from_slice(&[parts[0].size()[1], parts[1].size()[1]]).reshape([2, 1]);
    let buffer = tensor.f_reshape(-1)?.f_repeat([2])?;
    let ones = Tensor::ones([2, 1], (Kind::Int64, Device::Cpu));
    let starts = Tensor::from_slice(&[0, tensor.numel() as i64]);
    Tensor::f_internal_nested_view_from_buffer(&buffer, &sizes, &ones, &starts)
}

/// Checks what a trace took in against what libtorch gives for each element by itself.
fn assert_right(trace: &Trace, tensor: &Tensor, name: &str) {
    let stored = trace.tensor("t").unwrap();
    assert_eq!((stored.size(), stored.kind()), (tensor.size(), tensor.kind()), "{name}");
    let mut index = vec![0; stored.dim()];
    for _ in 0..stored.numel() {
        let [actual, expected] = [&stored, tensor].map(|tensor| tensor.double_value(&index));
        assert_eq!(actual.to_bits(), expected.to_bits(), "{name} at {index:?}");
        for (at, n) in index.iter_mut().zip(stored.size()).rev() {
            *at = (*at + 1) % n;
            if *at != 0 {
                break;
            }
        }
    }
}

/// Steps a tensor by optimizers of several kinds, with a gradient that an operation gives it, and clips it.
fn step_and_clip(tensor: &Tensor) {
    let leaf = tensor.f_detach().and_then(|leaf| leaf.f_set_requires_grad(true));
    for tensor in [Some(tensor.shallow_clone()), leaf.ok()].into_iter().flatten() {
        let sum = (|| tensor.f_mul(&tensor)?.f_sum(Kind::Float)?.f_backward())();
        let named = || [("t", &tensor)];
        let _ = SGD { momentum: 0.9, ..SGD::default() }.build_from(named()).map(|mut o| o.step());
        let _ = AdamW::default().build_from(named()).map(|mut o| (o.step(), o.zero_grad()));
        let _ = Adafactor::default().build_from(named()).map(|mut o| o.step());
        let _ = LBFGS::default()
            .build_from(named())
            .map(|mut o| o.step_with(|_| Ok(tensor.f_sum(Kind::Float)?)).map(drop));
        let _ = (sum, clip_grad_norm_(&[&tensor], 1., 2.), clip_grad_value_(&[&tensor], 0.1));
        let _ = get_total_norm(&[&tensor], f64::INFINITY, false);
    }
}

/// Hands a tensor to every public function, and returns whether a trace took it, and whether it could be set to a
/// recorded parameter.
fn hand_around(tensor: &Tensor, name: &str) -> (bool, bool) {
    let mut trace = Trace::new();
    let pushed = trace.push("t", tensor);
    if pushed.is_ok() {
        assert_right(&trace, tensor, name);
    }
    let printed = repr(tensor);
    assert!(pushed.is_err() || printed.is_ok() || tensor.dim() > 64, "{name}: {printed:?}");
    let _ = tensor.retain_grad();

    let vs = VarStore::new(Device::Cpu);
    let named = vec![("v".to_owned(), tensor.shallow_clone())];
    vs.variables_.lock().unwrap().named_variables.extend(named);
    let recorder = Recorder::new();
    let _ = recorder.output("t", tensor.shallow_clone());
    let _ = recorder.gradients(tensor, &vs);
    let _ = recorder.step(&vs);
    let case = Case::load(data("notebook.safetensors")).unwrap();
    assert!(case.load_parameters(&vs).is_err(), "{name}");
    let set = set_as_a_parameter(&case, tensor, name);

    let linear = Linear { weight: tensor.shallow_clone(), bias: tensor.shallow_clone() };
    let _ = linear.to_string();
    if name.starts_with("as large as") || name.starts_with("of windows") {
        return (pushed.is_ok(), set); // what libtorch is asked to compute, it computes
    }
    step_and_clip(tensor);
    let _ = linear.forward(tensor);
    let good = Tensor::ones([1, 2], (Kind::Float, Device::Cpu));
    let _ = linear.forward(&good);
    let model = ThreeLayerNet::new(2, 2, 3).unwrap();
    let optimizer = RecordedOptimizer::sgd(0.1);
    let run = Run { model: Model::ThreeLayerNet, loss: Loss::BCELoss, optimizer, steps: 1 };
    let _ = (model.forward(tensor), train(&model, tensor, &good, &run));
    let x = good.set_requires_grad(true);
    let _ = train(&model, &x, tensor, &run);
    let broken = ThreeLayerNet { fc1: linear, ..model };
    let _ = (
        broken.to_string(),
        train(&broken, &x, &Tensor::zeros([1, 1], (Kind::Float, Device::Cpu)), &run),
    );
    (pushed.is_ok(), set)
}

/// Puts a tensor in the place of one parameter of the notebook's net, and loads the recorded ones. Returns whether
/// that succeeded, after which every one of them has to have its value.
fn set_as_a_parameter(case: &Case, tensor: &Tensor, name: &str) -> bool {
    let vs = VarStore::new(Device::Cpu);
    for parameter in case.trace.names().filter_map(|name| name.strip_prefix("param/")) {
        let like = case.trace.tensor(&format!("param/{parameter}")).unwrap();
        let variable = match parameter {
            "fc1.weight" => tensor.shallow_clone(),
            _ => Tensor::zeros(like.size(), (Kind::Float, Device::Cpu)),
        };
        vs.variables_.lock().unwrap().named_variables.insert(parameter.to_owned(), variable);
    }
    let set = case.load_parameters(&vs);
    for (parameter, variable) in vs.variables() {
        let zero = parameter != "fc1.weight" && variable.abs().max().double_value(&[]) == 0.;
        match &set {
            Ok(()) => {
                let recorded = case.trace.tensor(&format!("param/{parameter}")).unwrap();
                assert!(recorded.equal(&variable), "{name}: {parameter}");
            }
            Err(_) => assert!(zero || parameter == "fc1.weight", "{name}: {parameter} was set"),
        }
    }
    set.is_ok()
}

#[test]
fn every_kind_of_tensor_is_taken_right_or_refused() {
    if let Ok(seed) = env::var(CHILD) {
        let mut random = Random::new(&seed);
        let mut taken = 0;
        let mut set = 0;
        for _ in 0..600 {
            let (tensor, name) = drawn(&mut random);
            println!("{name}");
            let (was_taken, was_set) = hand_around(&tensor, &name);
            taken += u32::from(was_taken);
            set += u32::from(was_set);
        }
        println!("taken: {taken}");
        assert!((1..100).contains(&set), "{set} of 600 were set as a parameter");
        return;
    }
    let seed = seed();
    let mut child = Command::new(env::current_exe().unwrap());
    child.args(["--exact", "every_kind_of_tensor_is_taken_right_or_refused", "--nocapture"]);
    let output = child.env(CHILD, &seed).output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    let last = stdout.lines().rev().take(3).collect::<Vec<_>>();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{}, to repeat: TCH_PARITY_SEED={seed}\nlast of all: {last:?}\n{stderr}",
        output.status
    );
    let taken = stdout.lines().find_map(|line| line.strip_prefix("taken: ")).unwrap();
    assert!((100..500).contains(&taken.parse::<u32>().unwrap()), "{taken} of 600");
    for kind in
        ["nested", "sparse", "a zero tensor", "lazily negated", "undefined", "as large as 2^61"]
    {
        assert!(stdout.contains(kind), "{kind}");
    }
}

/// oneDNN transposes an empty weight with a division by zero, which ends the process with SIGFPE.
#[test]
fn an_empty_weight_in_the_layout_of_onednn_is_refused() {
    let ones = |shape: [i64; 2]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
    for shape in [[3, 0], [0, 3]] {
        let weight = ones(shape).f_to_mkldnn(None).unwrap();
        let linear = Linear { weight, bias: Tensor::ones([shape[0]], (Kind::Float, Device::Cpu)) };
        let err = linear.forward(&ones([1, shape[1]])).unwrap_err();
        assert!(err.to_string().contains("the tensor is not strided, but Mkldnn"), "{err}");
    }
}

/// The smallest case of a wrong sign: one number, which libtorch negates lazily.
#[test]
fn a_gradient_that_is_lazily_negated_keeps_its_sign() {
    let leaf = |value: f64| Tensor::from_slice(&[value]).set_requires_grad(true);
    let (p, q) = (leaf(0.3), leaf(0.5));
    Tensor::complex(&p, &q).conj().angle().sum(Kind::Double).backward();
    let mut trace = Trace::new();
    trace.push("q", &q.grad()).unwrap();
    let expected = -0.3 / (0.3f64 * 0.3 + 0.5 * 0.5);
    let stored = trace.tensor("q").unwrap().double_value(&[0]);
    assert!((stored - expected).abs() < 1e-12, "{stored} for {expected}");
    assert_eq!(repr(&q.grad()).unwrap(), "tensor([-0.8824], dtype=torch.float64)");
    let imaginary = Tensor::complex(&p, &q).conj().imag().detach();
    trace.push("imaginary", &imaginary).unwrap();
    assert_eq!(trace.tensor("imaginary").unwrap().double_value(&[0]), -0.5);
}

#[test]
fn parameters_that_cannot_be_set_are_named_before_any_is_set() {
    let case = Case::load("examples/mlp.safetensors").unwrap();
    let vs = VarStore::new(Device::Cpu);
    let expanded = case.trace.names().filter_map(|name| name.strip_prefix("param/"));
    let mut names = expanded.map(str::to_owned).collect::<Vec<_>>();
    names.sort();
    for name in &names {
        let like = case.trace.tensor(&format!("param/{name}")).unwrap();
        let zeros = Tensor::zeros(like.size(), (Kind::Float, Device::Cpu));
        let variable = if Some(name) == names.last() {
            Tensor::zeros([1i64; 1], (Kind::Float, Device::Cpu)).expand(like.size(), false)
        } else {
            zeros
        };
        vs.variables_.lock().unwrap().named_variables.insert(name.clone(), variable);
    }
    let message = format!("{:#}", case.load_parameters(&vs).unwrap_err());
    let last = names.last().unwrap();
    assert!(
        message.ends_with(&format!("{last} is expanded here, so it cannot be set")),
        "{message}"
    );
    for (name, variable) in vs.variables() {
        assert_eq!(variable.abs().sum(Kind::Double).double_value(&[]), 0., "{name} was set");
    }
}

#[test]
fn variables_that_share_memory_are_named() {
    let case = Case::load("examples/mlp.safetensors").unwrap();
    let vs = VarStore::new(Device::Cpu);
    let storage = Tensor::zeros([4096], (Kind::Float, Device::Cpu));
    let names = case.trace.names().filter_map(|name| name.strip_prefix("param/"));
    for (start, name) in (0..).zip(names) {
        let size = case.trace.tensor(&format!("param/{name}")).unwrap().size();
        // Each begins within the one before it.
        let view = storage.narrow(0, start, size.iter().product()).view(&size[..]);

        vs.variables_.lock().unwrap().named_variables.insert(name.to_owned(), view);
    }
    let message = format!("{:#}", case.load_parameters(&vs).unwrap_err());
    assert!(message.contains(" share memory here, and are not one parameter"), "{message}");
    assert_eq!(storage.abs().sum(Kind::Double).double_value(&[]), 0., "something was set");
}

#[test]
fn a_tensor_that_is_small_in_memory_and_large_by_its_strides_is_refused() {
    let unfolded = Tensor::zeros([46_000], (Kind::Float, Device::Cpu)).unfold(0, 23_000, 1);
    let message = format!("{:#}", Trace::new().push("t", &unfolded).unwrap_err());
    assert!(message.contains("whose elements share memory"), "{message}");
}

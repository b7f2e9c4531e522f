//! Tensors are printed as PyTorch prints them, byte for byte.

#![cfg(feature = "libtorch")]

use std::fs;
use std::path::Path;

use crate::common::{ROOT, data, pytorch, scratch, seed, stdout, tch_parity};
use tch::{Kind, Reduction, Tensor};
use tch_parity::notebook::{LR, Notebook};
use tch_parity::{ThreeLayerNet, Trace, repr};

/// Asserts that the library and `show` print every tensor of `folder` as PyTorch does, and counts the tensors.
fn assert_prints_as_pytorch(folder: &Path) -> usize {
    let file = folder.join("tensors.safetensors");
    let trace = Trace::load(&file).unwrap();
    let is_float = |tensor: &Tensor| {
        matches!(tensor.kind(), Kind::Half | Kind::BFloat16 | Kind::Float | Kind::Double)
    };
    let (mut show, mut requires_grad) = (String::new(), String::new());
    for name in trace.names() {
        let tensor = trace.tensor(name).unwrap();
        show += &format!("{name}\t{}\n", repr(&tensor).unwrap());
        if is_float(&tensor) {
            requires_grad +=
                &format!("{name}\t{}\n", repr(&tensor.set_requires_grad(true)).unwrap());
        }
    }
    assert_same_text(&show, &fs::read_to_string(folder.join("show.txt")).unwrap());
    assert_same_text(
        &requires_grad,
        &fs::read_to_string(folder.join("requires_grad.txt")).unwrap(),
    );
    assert!(stdout(&tch_parity().arg("show").arg(&file).output().unwrap()) == show);
    trace.names().count()
}

/// Asserts that two texts are the same. As they are long, a failure shows only the first lines that differ.
fn assert_same_text(actual: &str, expected: &str) {
    if actual == expected {
        return;
    }
    let same = actual.lines().zip(expected.lines()).take_while(|(a, b)| a == b).count();
    let around = |text: &str| {
        text.lines().skip(same.saturating_sub(4)).take(6).collect::<Vec<_>>().join("\n")
    };
    panic!("line {}:\nactual\n{}\nexpected\n{}", same + 1, around(actual), around(expected));
}

#[test]
fn random_tensors_print_as_under_pytorch_now() {
    let folder = scratch("tensor_str_random");
    let seed = seed();
    println!("to repeat: TCH_PARITY_SEED={seed}");
    let args = ["tensors", "--seed", &seed, "--count", "2400", "--out", folder.to_str().unwrap()];
    pytorch("tests/pytorch.py", &args);
    assert_eq!(assert_prints_as_pytorch(&folder), 2400);
}

/// Checks the dtypes that checkpoints hold, but recordings do not.
#[test]
fn random_tensors_of_every_other_dtype_are_shown_as_under_pytorch_now() {
    let folder = scratch("tensor_str_dtypes");
    let seed = seed();
    println!("to repeat: TCH_PARITY_SEED={seed}");
    let args = ["dtypes", "--seed", &seed, "--count", "900", "--out", folder.to_str().unwrap()];
    pytorch("tests/pytorch.py", &args);
    let output = tch_parity().arg("show").arg(folder.join("tensors.safetensors")).output().unwrap();
    let expected = fs::read_to_string(folder.join("show.txt")).unwrap();
    assert_same_text(&stdout(&output), &expected);
    for dtype in ["uint16", "uint32", "uint64", "complex64", "float8_e8m0fnu", "float4_e2m1fn_x2"] {
        assert!(expected.contains(&format!(" torch.{dtype} [")), "{dtype}");
    }
}

/// Checks tensors that are lazily conjugated or negated, that are invalid for autograd, or whose dtype no file
/// holds.
#[test]
fn tensors_whose_bytes_are_not_what_they_stand_for_print_as_under_pytorch() {
    let floats = |values: &[f32]| Tensor::from_slice(values);
    let (real, imaginary) = (floats(&[1.5, -0.25]), floats(&[2., -3.]));
    let z = Tensor::complex(&real, &imaginary);
    let range = Tensor::arange(1200, (Kind::Float, tch::Device::Cpu));
    let many = Tensor::complex(&range, &-&range);
    let mut tensors = vec![
        z.conj(),
        z.conj().imag(),
        z.view_as_real().conj(),
        z.select(0, 0).conj(),
        Tensor::complex(&real.to_kind(Kind::Double), &imaginary.to_kind(Kind::Double)),
        z.to_kind(Kind::ComplexHalf),
        many.shallow_clone(),
        many.conj().imag(),
        z.detach().set_requires_grad(true),
    ];
    for kind in [Kind::Float8e4m3fn, Kind::Float8e5m2, Kind::Float8e4m3fnuz, Kind::Float8e5m2fnuz] {
        tensors.extend([real.to_kind(kind), range.to_kind(kind)]);
    }
    // Autograd has no grad_fn for a view that was created and changed under no_grad.
    let base = floats(&[1., 1.]).set_requires_grad(true);
    tensors.push(tch::no_grad(|| base.narrow(0, 0, 1).zero_()));
    let actual = tensors.iter().map(|tensor| repr(tensor).unwrap() + "\n").collect::<String>();
    assert_same_text(&actual, &pytorch("tests/pytorch.py", &["views"]));
}

#[test]
fn stored_hard_cases_print_as_under_pytorch() {
    assert!(assert_prints_as_pytorch(&data("tensor_str")) > 50);
}

#[test]
fn stored_hard_cases_are_what_pytorch_prints_now() {
    let folder = scratch("tensor_str_hard");
    pytorch("tests/pytorch.py", &["hard", "--out", folder.to_str().unwrap()]);
    for name in ["tensors.safetensors", "show.txt", "requires_grad.txt"] {
        let stored = data("tensor_str").join(name);
        assert!(
            fs::read(folder.join(name)).unwrap() == fs::read(stored).unwrap(),
            "{name} differs"
        );
    }
}

#[test]
fn results_of_operations_print_their_grad_fn() {
    let model: ThreeLayerNet = Notebook::run(LR, 1, tch::Device::Cpu).unwrap().model;
    let stored = Trace::load(data("notebook.safetensors")).unwrap();
    tch::no_grad(|| {
        for (name, p) in model.named_parameters() {
            p.shallow_clone().copy_(&stored.tensor(&format!("param/{name}")).unwrap());
        }
    });
    let x = stored.tensor("input/x").unwrap().set_requires_grad(true);
    let (h, results) = model.forward(&x).unwrap();
    let loss =
        h.binary_cross_entropy::<Tensor>(&stored.tensor("input/y").unwrap(), None, Reduction::Mean);

    let repr = |tensor: &Tensor| repr(tensor).unwrap();
    let mut actual = String::new();
    for (_, v) in &results {
        actual += &(repr(v) + "\n");
    }
    actual += &(repr(&loss) + "\n");
    let last = [
        x.sum(Kind::Float),
        &x * &x,
        x.view(2),
        Tensor::cat(&[&x, &x], 0),
        x.select(0, 0),
        x.detach(),
        x.grad(),
    ];
    actual += &(last.iter().map(repr).collect::<Vec<_>>().join(" ") + "\n");
    assert_eq!(actual, pytorch("tests/pytorch.py", &["grad_fn"]));
}

#[test]
fn layout_in_memory_does_not_show() {
    let matrix = Tensor::arange(6, (Kind::Float, tch::Device::Cpu)).reshape([2, 3]);
    assert_eq!(
        repr(&matrix.transpose(0, 1)).unwrap(),
        repr(&matrix.transpose(0, 1).contiguous()).unwrap()
    );
    assert_eq!(repr(&matrix.select(1, 1)).unwrap(), "tensor([1., 4.])");
    let one = Tensor::from_slice(&[1.5f32]).expand([1500], false);
    assert_eq!(
        repr(&one).unwrap(),
        "tensor([1.5000, 1.5000, 1.5000,  ..., 1.5000, 1.5000, 1.5000])"
    );
}

#[test]
fn what_cannot_be_printed_is_an_error() {
    let quantized = Tensor::from_slice(&[1f32]).quantize_per_tensor(0.1, 0, Kind::QInt8);
    let message = repr(&quantized).unwrap_err().to_string();
    assert_eq!(message, "Internal torch error: the tensor is quantized");
    let sparse = Tensor::eye(3, (Kind::Float, tch::Device::Cpu)).to_sparse(None, None::<i64>, None);
    assert!(
        repr(&sparse).unwrap_err().to_string().contains("the tensor is not strided, but Sparse")
    );
}

#[test]
fn show_takes_names_in_the_order_given() {
    let file = Path::new(ROOT).join("tests/data/notebook.safetensors");
    let output = tch_parity().arg("show").arg(file).args(["grad/z", "forward/L"]).output().unwrap();
    assert_eq!(stdout(&output), "grad/z\ttensor([[0.7311]])\nforward/L\ttensor(1.3133)\n");
}

#[test]
fn show_sorts_a_file_that_records_no_order() {
    let file = scratch("tensor_str_sorted").join("plain.safetensors");
    let tensors = ["b", "a", "c"].map(|name| (name, Tensor::from(true)));
    Tensor::write_safetensors(&tensors, &file).unwrap();
    let output = tch_parity().arg("show").arg(file).output().unwrap();
    assert_eq!(stdout(&output), "a\ttensor(True)\nb\ttensor(True)\nc\ttensor(True)\n");
}

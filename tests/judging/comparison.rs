//! The comparison that the other tests rely on detects the smallest damage of each kind.

#![cfg(feature = "libtorch")]

use crate::common::{data, differences};
use tch::Tensor;
use tch_parity::Trace;

/// Lists the differences between the stored trace, changed by `damage`, and the stored trace itself.
fn damaged(damage: impl Fn(&str, Tensor) -> Option<(String, Tensor)>) -> Vec<String> {
    let stored = Trace::load(data("notebook.safetensors")).unwrap();
    let mut actual = Trace::new();
    for name in stored.names() {
        if let Some((name, tensor)) = damage(name, stored.tensor(name).unwrap()) {
            actual.push(name, &tensor).unwrap();
        }
    }
    differences(&actual, &stored)
}

/// Lists the differences after the last element of one float32 tensor is replaced.
fn last_element(of: &str, value: impl Fn(f32) -> f32) -> Vec<String> {
    damaged(|name, tensor| {
        if name != of {
            return Some((name.to_owned(), tensor));
        }
        let mut values = Vec::<f32>::try_from(tensor.reshape(-1)).unwrap();
        *values.last_mut().unwrap() = value(*values.last().unwrap());
        Some((name.to_owned(), Tensor::from_slice(&values).reshape(tensor.size())))
    })
}

#[test]
fn an_undamaged_copy_is_the_same() {
    assert_eq!(damaged(|name, tensor| Some((name.to_owned(), tensor))), Vec::<String>::new());
}

#[test]
fn one_flipped_bit_is_seen() {
    let flipped = last_element("step/20/fc3.bias", |value| f32::from_bits(value.to_bits() ^ 1));
    assert_eq!(flipped, ["step/20/fc3.bias differs at byte 0"]);
}

#[test]
fn the_sign_of_a_zero_is_seen() {
    let negated = last_element("grad/fc1.weight", |value| {
        assert_eq!(value.to_bits(), (-0f32).to_bits());
        -value
    });
    assert_eq!(negated, ["grad/fc1.weight differs at byte 15"]);
}

#[test]
fn a_nan_is_seen() {
    assert_eq!(last_element("forward/L", |_| f32::NAN).len(), 1);
}

#[test]
fn a_missing_and_a_new_name_are_seen() {
    let renamed = damaged(|name, tensor| Some((name.replace("grad/h3", "grad/h4"), tensor)));
    assert_eq!(renamed, ["grad/h3 is missing", "grad/h4 is not expected"]);
    let missing = damaged(|name, tensor| (name != "input/y").then(|| (name.to_owned(), tensor)));
    assert_eq!(missing, ["input/y is missing"]);
}

#[test]
fn another_shape_or_dtype_of_the_same_bytes_is_seen() {
    let reshaped = damaged(|name, tensor| {
        Some((name.to_owned(), if name == "forward/x" { tensor.reshape(2) } else { tensor }))
    });
    assert_eq!(reshaped, ["forward/x is F32 [2], not F32 [1, 2]"]);
    let retyped = damaged(|name, tensor| {
        let retyped = || tensor.view_dtype(tch::Kind::Int);
        Some((name.to_owned(), if name == "forward/x" { retyped() } else { tensor }))
    });
    assert_eq!(retyped, ["forward/x is I32 [1, 2], not F32 [1, 2]"]);
}

#[test]
fn another_order_is_seen() {
    let stored = Trace::load(data("notebook.safetensors")).unwrap();
    let mut sorted = Trace::new();
    let mut names = stored.names().collect::<Vec<_>>();
    names.sort();
    for name in names {
        sorted.push(name, &stored.tensor(name).unwrap()).unwrap();
    }
    assert_eq!(differences(&sorted, &stored), ["the order differs"]);
}

//! The criterion for runs on different machines: right runs pass although some of their gradients are the noise of a
//! cancellation, and wrong ones do not.

#![cfg(feature = "libtorch")]

mod common;
#[allow(dead_code)] // its main
#[path = "../examples/convnet.rs"]
mod convnet;

use std::path::Path;

use common::{ROOT, python, seed, stdout};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::json;
use tch_parity::{Case, Criterion, Parity, Required, Trace, Verdict, compare};

fn stored_case() -> Case {
    Case::load(Path::new(ROOT).join("examples/convnet.safetensors")).unwrap()
}

/// A trace of float32 vectors.
fn trace(tensors: &[(&str, &[f32])]) -> Trace {
    let mut trace = Trace::new();
    for (name, values) in tensors {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
        let view = TensorView::new(Dtype::F32, vec![values.len()], &bytes).unwrap();
        trace.push_view(*name, &view).unwrap();
    }
    trace
}

fn passes(actual: &[(&str, &[f32])], expected: &[(&str, &[f32])]) -> Vec<bool> {
    let comparison = compare(&trace(actual), &trace(expected), Criterion::Close);
    comparison.tensors.iter().map(|tensor| tensor.passes).collect()
}

#[test]
fn the_convnet_computed_by_this_machine_is_close_to_its_portable_recording() {
    let case = stored_case();
    // A test computes natively, as long as nothing restarts it.
    let actual = convnet::port(&case).unwrap();
    let parity = Parity { required: Required::Close, ..Default::default() };
    let report = parity.assert(&actual, &case).unwrap();
    let by_allowance = report.comparison.tensors.iter().filter(|tensor| tensor.allowance.is_some());
    for tensor in by_allowance {
        assert_eq!(tensor.verdict, Verdict::Close, "{}", tensor.name);
    }
}

#[test]
fn of_random_nets_right_runs_pass_and_each_mistake_is_found() {
    let seed = seed();
    let first =
        seed.bytes().fold(0u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into())) % 1000;
    let mut script = python();
    script.arg(Path::new(ROOT).join("scripts/right_and_wrong.py"));
    script.arg(env!("CARGO_BIN_EXE_tch-parity"));
    script.args(["--verbose", "--seeds", &format!("{first}:{}", first + 1)]);
    let output = script.output().unwrap();
    let table = stdout(&output);
    assert_eq!(table.matches("1 of 1").count(), 21, "seed {seed}: {table}");
}

#[test]
fn a_gradient_is_measured_against_what_is_summed_up_in_it() {
    let expected: &[(&str, &[f32])] = &[
        ("param/conv.bias", &[1.]),
        ("forward/conv", &[4.]),
        ("grad/conv", &[0.5]),
        ("grad/conv.bias", &[1e-9]),
        ("step/1/conv.bias", &[0.9]),
    ];
    let with = |gradient: f32, after: f32| {
        let mut actual = expected.to_vec();
        let (gradient, after) = ([gradient], [after]);
        actual[3].1 = &gradient;
        actual[4].1 = &after;
        passes(&actual, expected)
    };
    assert_eq!(with(-1e-8, 0.9), [true; 5], "the noise of a sum of 0.5");
    assert_eq!(with(1e-5, 0.9), [true, true, true, false, true], "more than the noise");
    assert_eq!(with(-1e-8, 1.1), [true; 5], "a step that follows the noise, as Adam's does");
    assert_eq!(with(-1e-8, 1.2), [true, true, true, true, false], "a longer one");
    assert_eq!(with(1e-9, 1.1), [true, true, true, true, false], "a step without noise");
    assert_eq!(with(1e-5, 1.1), [true, true, true, false, false], "an error explains no other");
    assert_eq!(with(f32::NAN, 0.9), [true, true, true, false, true]);
}

#[test]
fn an_element_is_stepped_like_its_gradient_which_weight_decay_can_cancel() {
    // Two rows of a weight, of which the first is left out of the step, and a gradient that decay cancels.
    let (before, right) = ([1f32, 1., 1.], [0.9f32, 0.9, 1.]);
    let gradients = [0.5f32, 0.5, -0.01];
    let with = |noise: f32, after: &[f32], decay: f64| {
        let noisy = gradients.map(|gradient| gradient + noise);
        let made = |gradients: &[f32], after: &[f32]| {
            let mut trace = trace(&[
                ("param/w", &before),
                ("forward/w", &[1.]),
                ("grad/w", gradients),
                ("step/1/w", after),
            ]);
            let run = json!({ "optimizer": { "groups": [{ "weight_decay": decay }] } });
            trace.describe(&run, &json!({})).unwrap();
            trace
        };
        let (actual, expected) = (made(&noisy, after), made(&gradients, &right));
        compare(&actual, &expected, Criterion::Close).passes()
    };
    assert!(with(0., &right, 0.));
    for noise in [0., 1e-7] {
        assert!(!with(noise, &[1., 0.9, 1.], 0.01), "an element that is not stepped");
    }
    assert!(!with(1e-9, &[0.9, 0.9, 1.1], 0.), "without decay");
    assert!(with(1e-9, &[0.9, 0.9, 1.1], 0.01), "with decay, the step follows the noise");
    assert!(!with(0., &[0.9, 0.9, 1.1], 0.01), "but not without noise");
}

#[test]
fn an_output_may_differ_by_what_its_parameters_have_drifted() {
    let expected: &[(&str, &[f32])] = &[
        ("param/fc.bias", &[1e-3]),
        ("forward/fc", &[4.]),
        ("grad/fc", &[0.5]),
        ("grad/fc.bias", &[1e-9]),
        ("step/1/fc.bias", &[2e-3]),
        ("step/2/forward/fc", &[3.]),
        ("step/2/forward/output", &[3.]),
    ];
    let with = |after: f32, output: f32, last: f32| {
        let mut actual = expected.to_vec();
        let (gradient, after, output, last) = ([-1e-9], [after], [output], [last]);
        actual[3].1 = &gradient;
        actual[4].1 = &after;
        actual[5].1 = &output;
        actual[6].1 = &last;
        passes(&actual, expected)[4..].to_vec()
    };
    assert_eq!(with(0., 2.998, 2.998), [true; 3]);
    assert_eq!(with(0., 2.99, 2.998), [true, false, true], "more than the drift");
    assert_eq!(with(2e-3, 2.998, 3.), [true, false, true], "nothing has drifted");
    assert_eq!(with(1e-2, 2.998, 3.), [false, false, true], "an error explains no other");
}

#[test]
fn names_that_are_not_a_cases_are_judged_by_themselves() {
    let expected: &[(&str, &[f32])] = &[("conv", &[0.5]), ("conv.bias", &[1e-9])];
    let actual: &[(&str, &[f32])] = &[("conv", &[0.5]), ("conv.bias", &[-1e-9])];
    assert_eq!(passes(actual, expected), [true, false]);
}

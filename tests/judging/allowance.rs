//! The criterion for runs on different machines: right runs pass although some of their gradients are the noise of a
//! cancellation, and wrong ones do not.

#![cfg(feature = "libtorch")]

#[allow(dead_code)] // its main
#[path = "../../examples/convnet.rs"]
mod convnet;

use std::path::Path;

use crate::common::{ROOT, python, seed, stdout};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tch_parity::{Case, Criterion, Parity, Required, Side, Trace, Verdict, compare};

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

/// Compares two runs of one step of `w`, whose optimizer is described by `optimizer`. Each of the two is what is there
/// beside the parameter.
fn stepped(
    optimizer: &Value,
    before: &[f32],
    actual: &[(&str, &[f32])],
    expected: &[(&str, &[f32])],
) -> Vec<String> {
    let made = |tensors: &[(&str, &[f32])]| {
        let start: &[(&str, &[f32])] = &[("param/w", before), ("forward/w", &[1.])];
        let mut trace = trace(&[start, tensors].concat());
        trace.describe(&json!({ "optimizer": optimizer }), &json!({})).unwrap();
        trace
    };
    let mut comparison = compare(&made(actual), &made(expected), Criterion::Close);
    comparison.leave_out(Side::Actual);
    let differ = comparison.tensors.into_iter().filter(|tensor| !tensor.passes);
    differ.map(|tensor| tensor.name).collect()
}

#[test]
fn an_element_is_stepped_like_its_gradient_which_weight_decay_can_cancel() {
    // An element that is left out of the step, and one whose gradient weight decay cancels.
    let (before, right) = ([1f32, 1., 1.], [0.9f32, 0.9, 1.]);
    let gradients = [0.5f32, 0.5, -0.01];
    let with = |noise: f32, after: &[f32], optimizer: Value| {
        let noisy = gradients.map(|gradient| gradient + noise);
        let (actual, expected) = (
            [("grad/w", &noisy[..]), ("step/1/w", after)],
            [("grad/w", &gradients[..]), ("step/1/w", &right)],
        );
        stepped(&optimizer, &before, &actual, &expected).is_empty()
    };
    let decay = |decay: f64| json!({ "groups": [{ "parameters": ["w"], "weight_decay": decay }] });
    assert!(with(0., &right, decay(0.)));
    for noise in [0., 1e-7] {
        assert!(!with(noise, &[1., 0.9, 1.], decay(0.01)), "an element that is not stepped");
    }
    let last = [0.9, 0.9, 1.1];
    assert!(!with(1e-9, &last, decay(0.)), "without decay");
    assert!(with(1e-9, &last, decay(0.01)), "with decay, the step follows the noise");
    assert!(!with(0., &last, decay(0.01)), "but not without noise");
    let others = json!({ "groups": [{ "parameters": ["v"], "weight_decay": 0.01 }] });
    assert!(!with(1e-9, &last, others), "the decay of another group");
    assert!(
        !with(1e-9, &last, json!({ "name": "AdamW", "weight_decay": 0.01 })),
        "it decays apart"
    );
    assert!(
        !with(1e-9, &last, json!({ "weight_decay": 0.01, "maximize": true })),
        "it does not cancel"
    );
    assert!(with(1e-9, &last, json!({ "weight_decay": -0.01, "maximize": true })));
    let changes = json!({ "changes": [{ "step": 1, "group": 0, "weight_decay": 0.01 }] });
    assert!(with(1e-9, &last, changes));
}

#[test]
fn what_the_optimizer_took_is_known_of_a_port_that_does_not_record_it() {
    // Clipping to a tenth lets weight decay cancel the gradient.
    let optimizer = json!({ "weight_decay": 0.01 });
    let (before, gradient, noisy) = ([1f32], [-0.1f32], [-0.1f32 + 1e-8]);
    let expected: &[(&str, &[f32])] =
        &[("grad/w", &gradient), ("taken/w", &[-0.01]), ("step/1/w", &[0.9])];
    let port = |after: &[f32]| {
        stepped(&optimizer, &before, &[("grad/w", &noisy), ("step/1/w", after)], expected)
    };
    assert_eq!(port(&[1.1]), Vec::<String>::new());
    assert_eq!(port(&[1.4]), ["step/1/w"]);
}

#[test]
fn what_an_optimizer_keeps_follows_its_gradients() {
    let optimizer = json!({ "name": "Rprop" });
    let with = |noise: f32, kept: [f32; 2]| {
        let state = "step/1/state/step_size/w";
        let gradient = [0.5, 1e-9 + noise];
        let actual: &[(&str, &[f32])] = &[("grad/w", &gradient), (state, &kept)];
        let expected: &[(&str, &[f32])] = &[("grad/w", &[0.5, 1e-9]), (state, &[0.1, 0.1])];
        stepped(&optimizer, &[1., 1.], actual, expected).is_empty()
    };
    assert!(with(-2e-9, [0.1, 0.05]), "the sign of noise decides a step size");
    assert!(!with(-2e-9, [0.05, 0.1]), "that of a gradient does not change");
    assert!(!with(0., [0.1, 0.05]), "without noise");
}

#[test]
fn a_sum_of_many_terms_has_their_rounding_errors() {
    let passes = |terms: usize, found: f32| {
        let made = |gradient: f32| {
            let mut case = trace(&[("param/conv.bias", &[1.]), ("forward/conv", &[4.])]);
            let output = 1e-3f32.to_le_bytes().repeat(terms);
            let view = TensorView::new(Dtype::F32, vec![terms, 1], &output).unwrap();
            case.push_view("grad/conv", &view).unwrap();
            let view = gradient.to_le_bytes();
            case.push_view("grad/conv.bias", &TensorView::new(Dtype::F32, vec![1], &view).unwrap())
                .unwrap();
            case
        };
        compare(&made(found), &made(1e-9), Criterion::Close).passes()
    };
    // As parts of the sum of the terms.
    assert!(passes(16, 0.016 * 1e-6) && !passes(16, 0.016 * 3e-6));
    assert!(passes(1 << 14, 16.384 * 5e-5) && !passes(1 << 14, 16.384 * 7e-5));
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

//! What a port leaves out: a comparison of nothing never passes, and neither does one that leaves out whole steps.

#![cfg(feature = "libtorch")]

use std::path::Path;

use crate::common::ROOT;
use tch_parity::{Case, Criterion, Numerics, Parity, Recorder, Trace, compare};

/// The MLP's case has three steps.
fn mlp() -> Case {
    Case::load(Path::new(ROOT).join("examples/mlp.safetensors")).unwrap()
}

/// A port that records what the case has of the tensors that `keep` chooses.
fn port(case: &Case, keep: impl Fn(&str) -> bool) -> Trace {
    let mut trace = Trace::new();
    for (name, view) in case.trace.iter().filter(|(name, _)| keep(name)) {
        trace.push_view(name, &view).unwrap();
    }
    trace
}

#[test]
fn a_port_that_records_nothing_does_not_pass() {
    let case = mlp();
    let report = Parity::default().report(&Recorder::new().into_trace(), &case).unwrap();
    assert!(!report.comparison.passes());
    let why = "the port records no tensor under a name that the case has";
    assert!(report.text().contains(why), "{}", report.text());
    let given = port(&case, |name| name.starts_with("param/") || name.starts_with("input/"));
    let report = Parity::default().report(&given, &case).unwrap();
    assert!(!report.comparison.passes(), "what the port loads proves nothing");
    assert!(!compare(&Trace::new(), &Trace::new(), Criterion::Bitwise).passes());
}

#[test]
#[should_panic(expected = "nothing was compared")]
fn the_assertion_fails_for_a_port_that_records_nothing() {
    let _ = tch_parity::assert_parity(&Recorder::new().into_trace(), &mlp());
}

#[test]
fn a_step_that_is_left_out_is_named() {
    let case = mlp();
    let first_two = port(&case, |name| !name.starts_with("step/3/"));
    let report = Parity::default().report(&first_two, &case).unwrap();
    assert!(!report.comparison.passes());
    let why = "the port records nothing of step 3 of the case";
    assert!(report.text().contains(why), "{}", report.text());

    let two_steps = Parity { steps: Some(2), ..Parity::default() };
    assert!(two_steps.report(&first_two, &case).unwrap().comparison.passes());
    let strict = Parity { strict: true, ..two_steps.clone() };
    assert!(strict.report(&first_two, &case).unwrap().comparison.passes());
    let first = port(&case, |name| !name.starts_with("step/2/") && !name.starts_with("step/3/"));
    assert!(!two_steps.report(&first, &case).unwrap().comparison.passes());

    let whole = port(&case, |_| true);
    assert!(Parity::default().report(&whole, &case).unwrap().comparison.passes());
}

#[test]
fn every_tensor_that_is_not_compared_is_counted() {
    let case = mlp();
    let gradients = port(&case, |name| name.contains("grad/"));
    let report = Parity::default().report(&gradients, &case).unwrap();
    // The state of the optimizer is asked only of a port that records some of it.
    let given = |name: &&str| tch_parity::is_given(name) || name.contains("/state/");
    let computed = case.trace.names().count() - case.trace.names().filter(given).count();
    let left = computed - gradients.names().count();
    assert_eq!(report.comparison.not_compared.len(), left);
    assert!(report.line().contains(&format!("{left} not compared")), "{}", report.line());
    assert!(report.text().contains("step/*/forward/fc1"), "{}", report.text());
}

#[test]
fn numerics_that_are_demanded_are_those_of_the_process() {
    let case = mlp();
    let all = port(&case, |_| true);
    let here = Numerics::in_use();
    let other = if here == Numerics::Native { Numerics::Portable } else { Numerics::Native };
    let demanding = |numerics| Parity { numerics: Some(numerics), ..Parity::default() };
    assert!(demanding(here).report(&all, &case).unwrap().comparison.passes());
    let error = demanding(other).report(&all, &case).unwrap_err().to_string();
    assert!(error.contains(&format!("begin with Numerics::{other:?}.restart_with()?")), "{error}");
}

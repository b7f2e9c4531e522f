//! What one run says that it does not have is no difference in what both have.

mod common;

use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tch_parity::report::Report;
use tch_parity::{Comparison, Criterion, Trace, compare};

fn trace(names: &[&str], run: Value) -> Trace {
    let mut trace = Trace::new();
    for name in names {
        trace.push_view(*name, &TensorView::new(Dtype::U8, vec![1], &[1]).unwrap()).unwrap();
    }
    trace.describe(&run, &json!({})).unwrap();
    trace
}

fn run(foreach: bool, not_recorded: &[&str]) -> Value {
    json!({ "optimizer": { "lr": 0.1, "foreach": foreach }, "not_recorded": not_recorded })
}

fn text(comparison: &Comparison) -> String {
    Report::new("port", "as asked", comparison.clone(), Vec::new).text()
}

#[test]
fn a_tensor_that_one_run_has_a_reason_not_to_have_is_not_compared() {
    let why = ["grad/bn2: overwritten in place"];
    let both = ["forward/bn2", "step/2/forward/bn2"];
    let more = ["forward/bn2", "grad/bn2", "step/2/forward/bn2", "step/2/grad/bn2"];
    let (without, with) = (trace(&both, run(true, &why)), trace(&more, run(true, &[])));
    for (actual, expected, side) in [(&with, &without, "expected"), (&without, &with, "actual")] {
        let comparison = compare(actual, expected, Criterion::Bitwise);
        assert!(comparison.passes(), "{}", text(&comparison));
        assert_eq!(comparison.not_compared, ["grad/bn2", "step/2/grad/bn2"]);
        let note = format!("the {side} run does not have grad/bn2: overwritten in place");
        assert_eq!(comparison.noted, [note]);
        assert!(text(&comparison).contains("noted: the "), "{}", text(&comparison));
    }
    let no_reason = trace(&both, run(true, &["grad/bn1: overwritten in place"]));
    assert!(!compare(&with, &no_reason, Criterion::Bitwise).passes());
    assert!(!compare(&no_reason, &with, Criterion::Bitwise).passes());
}

#[test]
fn an_option_that_cannot_change_a_bit_is_named_and_decides_nothing() {
    let [foreach, loops] = [true, false].map(|foreach| trace(&["a"], run(foreach, &[])));
    let comparison = compare(&foreach, &loops, Criterion::Bitwise);
    assert!(comparison.passes());
    assert_eq!(
        comparison.noted,
        ["optimizer.foreach is true, not false: this cannot change a bit"]
    );
    let other = trace(&["a"], json!({ "optimizer": { "lr": 0.2, "foreach": false } }));
    let comparison = compare(&other, &loops, Criterion::Bitwise);
    assert_eq!(comparison.run, ["optimizer.lr is 0.2, not 0.1"]);
}

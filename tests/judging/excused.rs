//! What one run says that it does not have is no difference in what both have.

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
        let names = comparison.not_compared.iter().map(|left_out| &*left_out.name);
        assert_eq!(names.collect::<Vec<_>>(), ["grad/bn2", "step/2/grad/bn2"]);
        let why = format!("the {side} side does not have it: overwritten in place");
        assert_eq!(comparison.not_compared[0].why(), why);
        let line = format!("not compared: step/*/grad/bn2: {why}");
        assert!(text(&comparison).contains(&line), "{}", text(&comparison));
    }
    let no_reason = trace(&both, run(true, &["grad/bn1: overwritten in place"]));
    assert!(!compare(&with, &no_reason, Criterion::Bitwise).passes());
    assert!(!compare(&no_reason, &with, Criterion::Bitwise).passes());
}

#[test]
fn the_reason_for_a_module_holds_for_its_outputs_and_their_gradients() {
    let left_out = trace(&["forward/L"], run(true, &["bn2: left out by only= or skip="]));
    let outputs = ["forward/bn2", "grad/bn2", "forward/bn2@2", "step/2/grad/bn2[0]"];
    let all = trace(&[&["forward/L"], &outputs[..]].concat(), run(true, &[]));
    assert!(compare(&all, &left_out, Criterion::Bitwise).passes());
    for other in ["forward/bn2.act", "grad/bn2.weight", "bn2", "step/1/bn2", "forward/bn"] {
        let all = trace(&["forward/L", other], run(true, &[]));
        assert!(!compare(&all, &left_out, Criterion::Bitwise).passes(), "{other}");
    }
}

#[test]
fn an_option_that_chooses_an_implementation_is_named_and_decides_nothing() {
    for option in ["fused", "capturable", "differentiable"] {
        let with = |value| trace(&["a"], json!({ "optimizer": { option: value } }));
        let [off, on, unsaid] = [json!(false), json!(true), json!(null)].map(with);
        let comparison = compare(&on, &unsaid, Criterion::Bitwise);
        assert!(comparison.passes() && comparison.noted[0].contains(option));
        assert!(compare(&off, &unsaid, Criterion::Bitwise).noted.is_empty());
    }
    let [foreach, loops] = [true, false].map(|foreach| trace(&["a"], run(foreach, &[])));
    let comparison = compare(&foreach, &loops, Criterion::Bitwise);
    assert!(comparison.passes());
    let note = "optimizer.foreach is true, not false: this chooses another implementation of the same step";
    assert_eq!(comparison.noted, [note]);
    for place in [
        |options: Value| json!({ "optimizers": { "generator": options } }),
        |options| json!({ "optimizer": { "groups": [{ "parameters": ["a"] }, options] } }),
        |options| json!({ "optimizers": { "generator": { "groups": [options] } } }),
    ] {
        let with = |value| trace(&["a"], place(json!({ "lr": 0.1, "fused": value })));
        let [off, on] = [false, true].map(with);
        let unsaid = trace(&["a"], place(json!({ "lr": 0.1 })));
        let comparison = compare(&on, &off, Criterion::Bitwise);
        assert!(comparison.passes() && comparison.noted[0].contains("fused is true, not false"));
        assert!(compare(&off, &unsaid, Criterion::Bitwise).passes());
        let other = trace(&["a"], place(json!({ "lr": 0.2, "fused": true })));
        assert_eq!(compare(&other, &off, Criterion::Bitwise).run.len(), 1);
    }
    let changed =
        json!({ "optimizer": { "changes": [{ "step": 2, "group": 0, "foreach": true }] } });
    let (changed, plain) = (trace(&["a"], changed), trace(&["a"], json!({ "optimizer": {} })));
    assert!(compare(&changed, &plain, Criterion::Bitwise).passes());
    let other = trace(&["a"], json!({ "optimizer": { "lr": 0.2, "foreach": false } }));
    let comparison = compare(&other, &loops, Criterion::Bitwise);
    assert_eq!(comparison.run, ["optimizer.lr is 0.2, not 0.1"]);
}

//! What is fuzzed, for `cargo fuzz run` and for `tests/fuzz.rs`: none of it may panic, hang, or answer by far more
//! than it was given.

use safetensors::tensor::{Dtype, TensorView};
use serde_json::Value;
use tch_parity::report::{Format, Html, JUnit, Json, NotCompared, Report, Stopped, one_line};
use tch_parity::{
    Comparison, Criterion, Environment, Names, Required, Side, Trace, compare, repr_view,
};

/// Reads a file, prints what it holds, and writes it again.
pub(crate) fn read(bytes: &[u8]) {
    let Ok(trace) = Trace::from_bytes(bytes.to_vec()) else { return };
    for (_, view) in trace.iter() {
        let _ = repr_view(&view);
    }
    let mut written = Vec::new();
    if trace.write(&mut written).is_ok() {
        let again = Trace::from_bytes(written).unwrap_or_else(|err| panic!("{err:#}"));
        assert!(again.names().eq(trace.names()));
        for name in trace.names() {
            let strides = trace.strides(name);
            assert!(strides.is_none() || strides == again.strides(name), "{name}");
        }
    }
}

/// Reads a file of one tensor whose metadata is `bytes`, and compares it with one that ran in another way. Returns
/// whether it could be read.
pub(crate) fn metadata(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    let file = |text: &str| {
        let header = serde_json::json!({
            "__metadata__": {"tch-parity": text},
            "a": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]},
        });
        let header = header.to_string();
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), b"\0"].concat()
    };
    let Ok(trace) = Trace::from_bytes(file(&text)) else { return false };
    let _ = trace.run::<Value>();
    if let Ok(Some(environment)) = trace.environment::<Environment>() {
        let _ = Required::Auto.between(Some((&environment, &environment)));
        let _ = environment.differences(&environment);
    }
    let other = r#"{"format": 2, "order": ["a"], "run": {"optimizer": {}, "steps": [1]}}"#;
    let other = Trace::from_bytes(file(other)).unwrap_or_else(|err| panic!("{err:#}"));
    report(compare(&trace, &other, Criterion::Bitwise), bytes.len());
    report(compare(&other, &trace, Criterion::Bitwise), bytes.len());
    true
}

/// Compares two files, the first of which ends at the length that the first two bytes say, and reports in every
/// format.
pub(crate) fn comparison(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_at_checked(2) else { return };
    let at = usize::from(u16::from_le_bytes([length[0], length[1]])).min(rest.len());
    let (actual, expected) = rest.split_at(at);
    let Ok(expected) = Trace::from_bytes(expected.to_vec()) else { return };
    // Where there is no second file, a tensor of the same bytes has to do.
    let actual = Trace::from_bytes(actual.to_vec()).unwrap_or_else(|_| {
        let mut trace = Trace::new();
        for (name, view) in expected.iter() {
            let bytes = view.data().iter().map(|byte| byte ^ 1).collect::<Vec<_>>();
            let changed = TensorView::new(view.dtype(), view.shape().to_vec(), &bytes);
            let _ = changed.map(|view| trace.push_view(name, &view));
        }
        let view = TensorView::new(Dtype::U8, vec![actual.len()], actual);
        let _ = view.map(|view| trace.push_view("rest", &view));
        trace
    });
    for criterion in [Criterion::Bitwise, Criterion::Close] {
        let mut comparison = compare(&actual, &expected, criterion);
        comparison.detail(&actual, &expected);
        report(comparison, rest.len());
    }
    let mut partial = compare(&actual, &expected, Criterion::Close);
    partial.leave_out(Side::Actual);
    report(partial, rest.len());
    let name = expected.names().next().map(one_line).unwrap_or_default();
    let _ = Names::new([name.as_str()]).map(|names| expected.renamed(&names));
}

fn report(comparison: Comparison, given: usize) {
    let tensors = comparison.tensors.len() + comparison.not_compared.len();
    let report = Report::new("fuzz", "as asked", comparison, Vec::new);
    let error = NotCompared { file: "fuzz".to_owned(), message: report.line() };
    let stopped = Stopped { reason: report.line(), not_checked: 1, cases: 2 };
    let mut formats: [Box<dyn Format>; 2] = [Box::new(Json::default()), Box::new(JUnit::default())];
    let mut out = Vec::new();
    for format in &mut formats {
        for result in [
            format.report(&mut out, &report),
            format.not_compared(&mut out, &error),
            format.stopped(&mut out, &stopped),
            format.finish(&mut out),
        ] {
            result.unwrap_or_else(|err| panic!("{err:#}"));
        }
    }
    let (mut html, mut page) = (Html::default(), Vec::new());
    for result in [
        html.report(&mut page, &report),
        html.not_compared(&mut page, &error),
        html.stopped(&mut page, &stopped),
        html.finish(&mut page),
    ] {
        result.unwrap_or_else(|err| panic!("{err:#}"));
    }
    let texts = [report.text(), report.verbose_text(), error.annotation()];
    let annotation = report.annotation().unwrap_or_default();
    let answered = texts.iter().map(String::len).sum::<usize>() + annotation.len() + out.len();
    // Escapes make a byte ten at most, in a handful of places; a tensor has a row and its statistics.
    assert!(answered < 4000 * (tensors + 1) + 200 * given, "{answered} bytes for {given}");
}

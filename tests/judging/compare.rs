//! The comparison, tier by tier, and the reports of it.

#![cfg(feature = "libtorch")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use crate::common::{data, scratch, stdout, tch_parity};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tch::{Kind, Tensor};
use tch_parity::report::{Report, one_line};
use tch_parity::{Criterion, Edge, Trace, Verdict, compare};

fn trace(tensors: &[(&str, Tensor)]) -> Trace {
    let mut trace = Trace::new();
    for (name, tensor) in tensors {
        trace.push(*name, tensor).unwrap();
    }
    trace
}

/// Returns the verdict, whether the tensor passes as bitwise, and whether it passes as close.
fn verdict(actual: &Tensor, expected: &Tensor) -> (Verdict, bool, bool) {
    let [actual, expected] =
        [actual, expected].map(|tensor| trace(&[("t", tensor.shallow_clone())]));
    let compared = compare(&actual, &expected, Criterion::Bitwise);
    let close = compare(&actual, &expected, Criterion::Close).passes();
    (compared.tensors[0].verdict, compared.passes(), close)
}

fn floats(values: &[f32]) -> Tensor {
    Tensor::from_slice(values)
}

fn next(value: f32, ulp: u32) -> f32 {
    f32::from_bits(value.to_bits() + ulp)
}

const SAME: (Verdict, bool, bool) = (Verdict::Bitwise, true, true);
const DIFFERS: (Verdict, bool, bool) = (Verdict::Differs, false, false);

#[test]
fn the_same_bits_are_bitwise_in_every_dtype() {
    let values = floats(&[1., -2., 0., 3.5]);
    for kind in [
        Kind::Half,
        Kind::BFloat16,
        Kind::Float,
        Kind::Double,
        Kind::Int64,
        Kind::Bool,
        Kind::Uint8,
    ] {
        let values = values.to_kind(kind);
        assert_eq!(verdict(&values, &values), SAME, "{kind:?}");
        assert_eq!(verdict(&values.flip([0]), &values).0, Verdict::Differs, "{kind:?}");
    }
}

#[test]
fn nan_equals_nan_and_nothing_else() {
    let nan = |bits: u32| floats(&[1., f32::from_bits(bits)]);
    assert_eq!(verdict(&nan(0x7fc00000), &nan(0xffc00001)), SAME);
    assert_eq!(verdict(&nan(0x7fc00000), &floats(&[1., 2.])), DIFFERS);
    assert_eq!(verdict(&floats(&[1., 2.]), &nan(0x7fc00000)), DIFFERS);
    assert_eq!(verdict(&nan(0x7fc00000), &floats(&[1., f32::INFINITY])), DIFFERS);
}

#[test]
fn infinities_are_equal_by_sign_alone() {
    let inf = floats(&[f32::INFINITY, 1.]);
    assert_eq!(verdict(&inf, &inf), SAME);
    assert_eq!(verdict(&inf, &floats(&[f32::NEG_INFINITY, 1.])), DIFFERS);
    assert_eq!(verdict(&inf, &floats(&[f32::MAX, 1.])), DIFFERS);
    assert_eq!(verdict(&floats(&[f32::MAX, 1.]), &inf), DIFFERS);
}

#[test]
fn the_sign_of_a_zero_counts_bitwise() {
    assert_eq!(verdict(&floats(&[-0., 1.]), &floats(&[0., 1.])), (Verdict::Ulp(0), false, true));
}

#[test]
fn a_few_ulp_are_counted_and_more_are_close() {
    for (ulp, expected) in
        [(1, Verdict::Ulp(1)), (4, Verdict::Ulp(4)), (5, Verdict::Close), (9, Verdict::Close)]
    {
        assert_eq!(verdict(&floats(&[next(1.5, ulp)]), &floats(&[1.5])), (expected, false, true));
    }
    assert_eq!(verdict(&floats(&[f32::from_bits(1)]), &floats(&[-f32::from_bits(1)])), DIFFERS);
}

#[test]
fn small_gradients_are_not_hidden_by_atol() {
    // torch.testing.assert_close passes this: every difference is within its atol of 1e-5.
    let gradient = floats(&[3e-6, -2e-6, 1e-6]);
    assert_eq!(verdict(&gradient.zeros_like(), &gradient), DIFFERS);
    // A small difference near zero in a tensor with larger elements is the rounding error of a sum.
    assert_eq!(verdict(&floats(&[1., 3e-9]), &floats(&[1., 1e-9])), (Verdict::Close, false, true));
    // A difference beyond either of the two tolerances does not pass.
    assert_eq!(verdict(&floats(&[1., 3e-6]), &floats(&[1., 0.])), DIFFERS);
    assert_eq!(verdict(&floats(&[1.00001]), &floats(&[1.])), DIFFERS);
    let double = |value: f64| Tensor::from_slice(&[value]);
    assert_eq!(verdict(&double(1. + 1e-13), &double(1.)), DIFFERS);
    assert_eq!(verdict(&double(1. + 5e-15), &double(1.)).0, Verdict::Close);
}

#[test]
fn shape_dtype_and_names_come_before_values() {
    let ones = Tensor::ones([2, 3], (Kind::Float, tch::Device::Cpu));
    let expected = trace(&[
        ("a", ones.copy()),
        ("b", ones.copy()),
        ("c", ones.copy()),
        ("e", Tensor::from(1)),
    ]);
    let actual = trace(&[
        ("a", ones.transpose(0, 1)),
        ("b", ones.to_kind(Kind::Double)),
        ("d", ones.copy()),
        ("e", Tensor::from_slice(&[1i64])),
    ]);
    let compared = compare(&actual, &expected, Criterion::Close);
    let problems =
        compared.tensors.iter().map(|t| format!("{}: {}", t.name, t.problem.as_deref().unwrap()));
    assert_eq!(
        problems.collect::<Vec<_>>(),
        [
            "a: its shape is [3, 2], not [2, 3]",
            "b: its dtype is F64, not F32",
            "c: it is missing: only the expected side has it",
            "e: its shape is [1], not []",
            "d: it is not expected: only the actual side has it",
        ]
    );
    assert!(!compared.passes());
}

#[test]
fn statistics_are_those_of_plain_loops() {
    // The tensor is long enough to be compared in several blocks by several threads.
    let numel = 1_000_003;
    let expected = (0..numel).map(|i| ((i * 7919) % 1013) as f32 - 500.).collect::<Vec<_>>();
    let mut actual = expected.clone();
    for i in (0..numel).step_by(1001) {
        actual[i] += 0.25 + (i % 5) as f32;
    }
    actual[700_000] += 100.;
    let [a, e] = [&actual, &expected]
        .map(|values| trace(&[("t", Tensor::from_slice(values).reshape([1, -1]))]));
    let found = &compare(&a, &e, Criterion::Bitwise).tensors[0].statistics;
    let differ = actual.iter().zip(&expected).filter(|(a, e)| a != e).count();
    assert_eq!((found.numel, found.unequal, found.not_close), (numel, differ, differ));
    assert_eq!((found.max_abs, found.max_expected, found.zero_signs), (100., 512., 0));
    assert_eq!(found.worst.as_ref().unwrap().index, [0, 700_000]);
}

#[test]
fn integers_are_subtracted_as_integers() {
    let of = |value: i64| trace(&[("t", Tensor::from_slice(&[0, value]))]);
    // The first difference is lost in float64, and the second one overflows an i64.
    for (a, e, max_abs) in [(1 << 60, (1 << 60) + 3, 3.), (i64::MIN, i64::MAX, 2f64.powi(64))] {
        let compared = compare(&of(a), &of(e), Criterion::Close);
        let found = &compared.tensors[0];
        assert_eq!((found.verdict, found.statistics.max_abs), (Verdict::Differs, max_abs));
        assert_eq!(found.statistics.worst.as_ref().unwrap().actual.0, a.to_string());
    }
}

#[test]
fn integers_have_a_scale() {
    let of = |value: i64| trace(&[("t", Tensor::from_slice(&[value, -30]))]);
    let found = &compare(&of(20), &of(21), Criterion::Close).tensors[0].statistics;
    assert_eq!((found.max_expected, found.scaled), (30., 1. / 30.));
}

#[test]
fn what_has_no_number_to_compare_is_counted_by_elements() {
    for (dtype, size) in [(Dtype::C64, 8), (Dtype::F8_E4M3, 1), (Dtype::F8_E8M0, 1)] {
        let of = |bytes: &[u8]| {
            let mut trace = Trace::new();
            trace.push_view("t", &TensorView::new(dtype, vec![2, 3], bytes).unwrap()).unwrap();
            trace
        };
        let expected = vec![1; 6 * size];
        let mut actual = expected.clone();
        actual[4 * size..5 * size].fill(2);
        assert!(compare(&of(&expected), &of(&expected), Criterion::Bitwise).passes());
        let found = &compare(&of(&actual), &of(&expected), Criterion::Close).tensors[0];
        assert_eq!(found.verdict, Verdict::Differs);
        assert_eq!((found.statistics.numel, found.statistics.unequal), (6, 1));
        assert_eq!(found.statistics.worst.as_ref().unwrap().index, [1, 1]);
    }
}

#[test]
fn the_origin_says_what_is_known() {
    let (a, b) = (|| ("a", floats(&[1.])), || ("b", floats(&[2.])));
    let edges = [("a", "b", "relu"), ("not recorded", "c", "fc1")];
    let dataflow = edges.map(|(from, to, operation)| Edge {
        from: from.to_owned(),
        to: to.to_owned(),
        operation: operation.to_owned(),
    });
    let origin = |actual: &[(&str, Tensor)], expected: &[(&str, Tensor)]| {
        let compared = compare(&trace(actual), &trace(expected), Criterion::Close);
        (compared.origin(&dataflow).unwrap(), compared.origin(&[]).unwrap())
    };
    let (flow, order) = origin(&[a()], &[a(), b()]);
    assert_eq!(
        flow,
        "b is the first to differ (it is missing: only the expected side has it); a agrees: look at relu"
    );
    assert_eq!(
        order,
        "b is the first to differ (it is missing: only the expected side has it); a agrees"
    );
    let (flow, order) = origin(&[("c", floats(&[0.]))], &[("c", floats(&[1.]))]);
    assert_eq!(flow, "c is the first to differ; look at fc1");
    assert_eq!(order, "c is the first to differ");
    let (flow, _) = origin(&[("a", floats(&[1., 2.])), b()], &[a(), b()]);
    assert_eq!(
        flow,
        "a is the first to differ (its shape is [2], not [1]): the two runs start from different tensors"
    );
}

#[test]
fn empty_tensors_are_the_same() {
    let empty = Tensor::zeros([0, 3], (Kind::Float, tch::Device::Cpu));
    assert_eq!(verdict(&empty, &empty), SAME);
}

/// Writes the notebook's stored run, with some elements changed, to a file.
fn damaged(name: &str, changes: &[(&str, i64, f64)]) -> PathBuf {
    let stored = Trace::load(data("notebook.safetensors")).unwrap();
    let mut damaged = Trace::new();
    damaged
        .describe(&stored.run::<Value>().unwrap(), &stored.environment::<Value>().unwrap())
        .unwrap();
    for name in stored.names() {
        let tensor = stored.tensor(name).unwrap();
        for (_, at, value) in changes.iter().filter(|(of, ..)| *of == name) {
            let _ = tensor.view(-1).narrow(0, *at, 1).fill_(*value);
        }
        damaged.push(name, &tensor).unwrap();
    }
    let file = scratch(name).join("actual.safetensors");
    damaged.save(&file).unwrap();
    file
}

fn compare_with_stored(actual: &PathBuf, args: &[&str]) -> (Option<i32>, String) {
    let mut command = tch_parity();
    command
        .arg("compare")
        .arg(actual)
        .arg(data("notebook.safetensors"))
        .args(args)
        .env_remove("GITHUB_ACTIONS");
    let output = command.output().unwrap();
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    (output.status.code(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn the_report_names_the_worst_element_and_the_origin() {
    let actual = damaged(
        "compare_report",
        &[("grad/h3", 1, -0.5), ("grad/z3", 0, 0.25), ("step/1/fc3.bias", 0, 1.)],
    );
    let (code, report) = compare_with_stored(&actual, &["--verbose"]);
    assert_eq!(code, Some(1), "{report}");
    for expected in [
        "grad/z              [1, 1]  bitwise  0        0        0",
        "grad/h3             [1, 3]  DIFFERS  2.3e-01",
        "grad/h3: Mismatched elements: 1 / 3 (33.3%)\n    Greatest absolute difference: 2.3e-01 at index [0, 1]\n    \
         actual   -0.5 (0xbf000000)\n    expected -0.7310586 (0xbf3b26a8)\n    \
         It would pass with --tolerance grad/h3=atol:2.313e-01,reason:TEXT\n",
        "\ngrad/h3 is the first to differ; grad/z agrees: look at the backward of fc3\n",
        "(3 of 169 tensors differ, 166 bitwise; bitwise required: both use portable numerics)\n",
    ] {
        assert!(report.contains(expected), "{expected}\n\n{report}");
    }
}

#[test]
fn the_origin_follows_the_computation() {
    for (changes, origin) in [
        (
            vec![("forward/h", 0, 0.5), ("forward/L", 0, 0.5)],
            "forward/h is the first to differ; forward/z agrees: look at the sigmoid",
        ),
        (
            vec![("grad/fc1.weight", 0, 9.), ("grad/x", 0, 9.)],
            "grad/fc1.weight is the first to differ; grad/z2 agrees: look at the backward of fc1",
        ),
        (
            vec![("param/fc2.bias", 0, 9.), ("forward/z3", 0, 9.)],
            "param/fc2.bias is the first to differ: the two runs start from different tensors",
        ),
        (
            vec![("step/1/fc3.bias", 0, 9.)],
            "step/1/fc3.bias is the first to differ; grad/fc3.bias agrees: look at the optimizer's step",
        ),
        (
            vec![("step/1/L", 0, 9.)],
            "step/1/L is the first to differ; forward/L agrees: look at the recording of the loss",
        ),
        (
            vec![("step/7/L", 0, 9.)],
            "step/7/L is the first to differ; step/6/fc1.weight agrees: look at the forward of this step",
        ),
    ] {
        let (code, report) = compare_with_stored(&damaged("compare_origin", &changes), &[]);
        assert_eq!(code, Some(1));
        assert!(report.contains(&format!("\n{origin}\n")), "{origin}\n\n{report}");
    }
}

#[test]
fn a_zero_of_another_sign_is_named() {
    let actual = damaged("compare_zero", &[("grad/fc1.weight", 3, 0.)]);
    let (code, report) = compare_with_stored(&actual, &[]);
    assert!(
        code == Some(1) && report.contains("The sign of a zero is all that differs."),
        "{report}"
    );
    assert_eq!(compare_with_stored(&actual, &["--criterion", "close"]).0, Some(0));
}

#[test]
fn the_same_files_are_the_same() {
    let (code, report) = compare_with_stored(&data("notebook.safetensors"), &[]);
    assert_eq!(code, Some(0), "{report}");
    assert!(
        report.ends_with("(169 tensors bitwise; bitwise required: both use portable numerics)\n"),
        "{report}"
    );
}

#[test]
fn plain_files_are_compared_as_close() {
    let folder = scratch("compare_plain");
    let file = |name: &str, value: f32| {
        let file = folder.join(name);
        Tensor::write_safetensors(&[("w", floats(&[value])), ("v", floats(&[1.]))], &file).unwrap();
        file
    };
    let mut command = tch_parity();
    command.args(["compare", "--verbose"]).args([file("a", next(1., 1)), file("b", 1.)]);
    let report = stdout(&command.output().unwrap());
    assert!(report.contains("w     [1]    1 ulp"), "{report}");
    assert!(report.ends_with("(2 tensors: 1 bitwise, 1 within 4 ulp; close required: no record of both environments)\n"), "{report}");
    let output =
        tch_parity().arg("compare").args([file("a", 1.5), file("b", 1.)]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(
        String::from_utf8_lossy(&output.stdout).contains("\nw is the first to differ; v agrees\n")
    );
}

#[test]
fn ci_gets_json_junit_and_annotations() {
    let actual = damaged("compare_ci", &[("grad/h3", 1, -0.5)]);
    let folder = scratch("compare_ci_out");
    let (json, junit) = (folder.join("report.json"), folder.join("report.xml"));
    let mut command = tch_parity();
    command
        .arg("compare")
        .arg(&actual)
        .arg(data("notebook.safetensors"))
        .env("GITHUB_ACTIONS", "true");
    let output = command.arg("--json").arg(&json).arg("--junit").arg(&junit).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report = String::from_utf8(output.stdout).unwrap();
    let annotation = report.lines().last().unwrap();
    assert!(
        annotation.starts_with("::error file=")
            && annotation.contains("::grad/h3 is the first to differ;")
    );

    let json: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert_eq!(json["passes"], false);
    let tensors = json["reports"][0]["tensors"].as_array().unwrap();
    let failing = tensors.iter().filter(|tensor| tensor["passes"] == false).collect::<Vec<_>>();
    assert_eq!((tensors.len(), failing.len()), (169, 1));
    assert_eq!(failing[0]["statistics"]["worst"]["index"], json!([0, 1]));
    assert_eq!(failing[0]["tolerance"]["scaled"], 2e-6);
    let scaled = failing[0]["statistics"]["scaled"].as_f64().unwrap();
    assert!((scaled - 0.316).abs() < 1e-3, "{scaled}");

    // An XML parser reads the file.
    let script = "import sys, xml.etree.ElementTree as e; r = e.parse(sys.argv[1]).getroot(); \
                  print(len(r.findall('.//testcase')), [f.get('message') for f in r.findall('.//failure')])";
    let python = crate::common::python().args(["-c", script]).arg(&junit).output().unwrap();
    assert_eq!(stdout(&python), "169 ['DIFFERS']\n");
}

#[test]
fn what_was_run_is_compared_first() {
    let actual = damaged("compare_run", &[("grad/h3", 1, -0.5)]);
    let mut trace = Trace::load(&actual).unwrap();
    let mut run = trace.run::<Value>().unwrap().unwrap();
    run["optimizer"]["dampening"] = json!(0.5);
    run["optimizer"]["lr"] = json!(run["optimizer"]["lr"].as_f64().unwrap()); // the same number as a float
    let environment = trace.environment::<Value>().unwrap();
    trace.describe(&run, &environment).unwrap();
    trace.save(&actual).unwrap();
    let junit = scratch("compare_run_out").join("report.xml");
    let (code, report) = compare_with_stored(&actual, &["--junit", junit.to_str().unwrap()]);
    assert_eq!(code, Some(1));
    for expected in [
        "\nrun: optimizer.dampening is 0.5, not 0.0\n",
        "\nthe runs are not the same: optimizer.dampening is 0.5, not 0.0\n",
        "(the run, 1 of 169 tensors differ, 168 bitwise; bitwise required",
    ] {
        assert!(report.contains(expected), "{expected}\n\n{report}");
    }
    assert!(
        fs::read_to_string(junit)
            .unwrap()
            .contains(r#"tests="170" skipped="0" errors="0" failures="2""#)
    );
}

/// Compares two files whose only tensor has this name and these values. Returns the reports as a JSON and an XML
/// parser read them, and the output.
fn reports(folder: &Path, name: &str, actual: f32, expected: f32) -> (Value, Vec<String>, String) {
    let [actual, expected] = [("a", actual), ("e", expected)].map(|(file, value)| {
        trace(&[(name, floats(&[value]))]).save(folder.join(file)).unwrap();
        folder.join(file)
    });
    let (json, junit) = (folder.join("report.json"), folder.join("report.xml"));
    let mut command = tch_parity();
    command.arg("compare").args([actual, expected]).env("GITHUB_ACTIONS", "true");
    let output = command.arg("--json").arg(&json).arg("--junit").arg(&junit).output().unwrap();
    let script = "import sys, json, xml.etree.ElementTree as e; r = e.parse(sys.argv[1]).getroot(); \
                  print(json.dumps([t.get('name') for t in r.iter('testcase')]))";
    let python = crate::common::python().args(["-c", script]).arg(&junit).output().unwrap();
    (
        serde_json::from_slice(&fs::read(json).unwrap()).unwrap(),
        serde_json::from_str(&stdout(&python)).unwrap(),
        String::from_utf8(output.stdout).unwrap(),
    )
}

#[test]
fn json_writes_infinity_as_a_string() {
    let (json, ..) = reports(&scratch("compare_infinity"), "t", f32::INFINITY, 1.);
    let statistics = &json["reports"][0]["tensors"][0]["statistics"];
    assert_eq!(
        [&statistics["max_abs"], &statistics["scaled"], &statistics["worst"]["abs"]],
        ["Infinity"; 3]
    );
}

#[test]
fn control_characters_and_commands_in_names_are_escaped() {
    assert_eq!(one_line(" ::a ##[error]b"), r"\u{3a}:a \u{23}#[error]b");
    let name = "::error file=x::\n::error::forged\r\u{1b}[2J<\"&\u{0}\u{fffe}\u{ffff}";
    let folder = scratch("compare_names");
    let (json, testcases, report) = reports(&folder, name, 1., 2.);
    assert_eq!(json["reports"][0]["tensors"][0]["name"], name);
    assert_eq!(
        testcases,
        [r#"\u{3a}:error file=x::\n::error::forged\r\u{1b}[2J<"&\u{0}\u{fffe}\u{ffff}"#]
    );
    let commands = report.lines().filter(|line| line.trim().starts_with("::"));
    assert_eq!(commands.count(), 1, "{report}");
    assert!(report.contains(r"\u{3a}:error file=x::\n::error::forged\r\u{1b}[2J"), "{report}");
    assert!(report.chars().all(|c| c == '\n' || !c.is_control()), "{report:?}");
    let shown = stdout(&tch_parity().arg("show").arg(folder.join("a")).output().unwrap());
    assert!(shown.starts_with(r"\u{3a}:error file=x::\n::error::forged\r\u{1b}[2J<"), "{shown:?}");
}

#[test]
fn a_reader_that_has_seen_enough_does_not_change_the_verdict() {
    let actual = damaged("compare_closed", &[("grad/h3", 1, -0.5)]);
    let json = scratch("compare_closed_out").join("report.json");
    let mut command = tch_parity();
    command.arg("compare").arg(&actual).arg(data("notebook.safetensors")).arg("--json").arg(&json);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(json.exists());
}

#[test]
fn comparing_files_without_tensors_is_an_error() {
    let file = scratch("compare_nothing").join("empty.safetensors");
    Trace::new().save(&file).unwrap();
    let output = tch_parity().arg("compare").args([&file, &file]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).ends_with(": there is nothing to compare\n"));
}

#[test]
fn a_report_overwrites_no_input_and_no_other_report() {
    let folder = scratch("compare_apart");
    let case = folder.join("case.safetensors");
    fs::copy(data("notebook.safetensors"), &case).unwrap();
    std::os::unix::fs::symlink("nowhere", folder.join("link")).unwrap();
    let (case, other, link) = (case.to_str().unwrap(), folder.join("other"), folder.join("link"));
    let (other, link) = (other.to_str().unwrap(), link.to_str().unwrap());
    for reports in [
        &["--json", case][..],
        &["--junit", case],
        &["--json", other, "--junit", other],
        &["--json", link],
        &["--json", "/dev/stdout"],
        &["--junit", "/proc/self/fd/1"],
    ] {
        for inputs in [&["check", case][..], &["compare", case, case]] {
            let out = fs::File::create(folder.join("out")).unwrap();
            let output = tch_parity().args(inputs).args(reports).stdout(out).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{reports:?}");
            assert!(stderr.starts_with("error: cannot write "), "{stderr}");
            assert!(fs::read(case).unwrap() == fs::read(data("notebook.safetensors")).unwrap());
            let printed = fs::read_to_string(folder.join("out")).unwrap();
            assert!(printed.is_empty() || printed.contains("same: "), "{printed}");
        }
    }
    assert!(fs::symlink_metadata(link).unwrap().is_symlink());
    // A file that a killed process left behind does no harm, and no name is too long.
    let long = folder.join("j".repeat(250));
    stdout(&tch_parity().args(["check", case, "--json"]).arg(&long).output().unwrap());
    assert!(long.exists());
}

#[test]
fn either_file_may_be_the_case_whose_order_counts() {
    let actual = damaged("compare_order", &[("forward/h", 0, 0.5), ("forward/L", 0, 0.5)]);
    let plain = scratch("compare_order_plain").join("plain");
    let mut trace = Trace::new();
    for (name, view) in Trace::load(data("notebook.safetensors")).unwrap().iter() {
        trace.push_view(name, &view).unwrap();
    }
    trace.save(&plain).unwrap();
    let output = tch_parity().arg("compare").args([&actual, &plain]).output().unwrap();
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(report.contains("\nforward/h is the first to differ; forward/z agrees"), "{report}");
}

/// Creates a trace of `count` tensors of one element each.
fn numbered(count: usize, value: f32) -> Trace {
    let mut trace = Trace::new();
    for i in 0..count {
        trace.push(format!("t{i:04}"), &floats(&[value])).unwrap();
    }
    trace
}

#[test]
fn a_report_shows_what_differs_first_and_not_all_of_it() {
    let folder = scratch("compare_bounded");
    let [same, other] = [("same", 1.), ("other", 2.)].map(|(name, value)| {
        numbered(1000, value).save(folder.join(name)).unwrap();
        folder.join(name)
    });
    let report = |args: &[&str], files: [&PathBuf; 2]| {
        let output = tch_parity().arg("compare").args(args).args(files).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(report(&[], [&same, &same]).lines().count(), 1);
    assert_eq!(report(&["--verbose"], [&same, &same]).lines().count(), 1 + 1000 + 1);
    let text = report(&[], [&other, &same]);
    assert!(text.starts_with("name   shape  verdict  max|Δ|   scaled   ulp      unequal\nt0000  "));
    assert_eq!(text.lines().filter(|line| line.contains("  DIFFERS  ")).count(), 20, "{text}");
    assert!(text.contains("\n… and 980 more that differ\n"), "{text}");
    assert_eq!(text.matches("Mismatched elements").count(), 5, "{text}");
    assert!(text.ends_with(
        "\nt0000 is the first to differ\n\
         DIFFERS: {} (1000 of 1000 tensors differ; close required: no record of both environments)\n"
            .replace("{}", &format!("{} against {}", other.display(), same.display()))
            .as_str()
    ));
    let text = report(&["--verbose"], [&other, &same]);
    assert_eq!(text.matches("Mismatched elements").count(), 1000);
    // Not all names that were not compared are shown, either.
    let few = folder.join("few");
    numbered(1, 1.).save(&few).unwrap();
    let text = report(&["--partial"], [&few, &same]);
    assert!(text.contains(" t0020 … and 979 more\n") && text.lines().count() < 5, "{text}");
}

#[test]
fn a_name_too_long_for_a_cell_is_cut() {
    let name = format!("{}x{}", "a".repeat(5000), "b".repeat(5000));
    let [one, two] = [1., 2.].map(|value| trace(&[(name.as_str(), floats(&[value]))]));
    let comparison = compare(&one, &two, Criterion::Bitwise);
    let text = Report::new("long", "as asked", comparison, Vec::new).text();
    let row = text.lines().nth(1).unwrap();
    assert!(row.chars().count() < 200 && row.contains("aaa…bbb"), "{row}");
}

#[test]
fn a_hyphen_is_stdout_and_the_text_goes_to_stderr() {
    let case = data("notebook.safetensors");
    let run = |args: &[&str]| {
        let output = tch_parity().args(args).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        (output.stdout, String::from_utf8(output.stderr).unwrap())
    };
    let path = case.to_str().unwrap();
    for inputs in [vec!["check", path], vec!["compare", path, path]] {
        let (json, text) = run(&[&inputs[..], &["--json", "-"]].concat());
        let json: Value = serde_json::from_slice(&json).unwrap();
        assert!(json["passes"] == true && text.starts_with("same: "), "{text}");
        let (junit, text) = run(&[&inputs[..], &["--junit", "-"]].concat());
        assert!(junit.starts_with(b"<?xml") && text.starts_with("same: "), "{text}");
    }
    let file = scratch("compare_hyphen").join("run.safetensors");
    let (_, _) = run(&["notebook", "--record", file.to_str().unwrap()]);
    let (recorded, text) = run(&["notebook", "--record", "-"]);
    assert!(recorded == fs::read(&file).unwrap() && text.starts_with("ThreeLayerNet(\n"));
    let (sheet, text) = run(&["worksheet", "--output", "-"]);
    assert!(sheet == run(&["worksheet"]).0 && text.is_empty());
    // Only one report can go to stdout.
    let both = ["compare", path, path, "--json", "-", "--junit", "-"];
    let output = tch_parity().args(both).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(stderr, "error: cannot write -: two outputs go there\n");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn github_is_told_only_where_its_variable_is_true() {
    let actual = damaged("compare_annotations", &[("grad/h3", 1, -0.5)]);
    for (value, annotations) in [("true", 1), ("false", 0), ("", 0)] {
        let mut command = tch_parity();
        command.arg("compare").arg(&actual).arg(data("notebook.safetensors"));
        let output = command.env("GITHUB_ACTIONS", value).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.matches("\n::error ").count(), annotations, "{value}");
    }
}

/// Checks what the common schema (junit-10.xsd) requires of a suite: four correct counts, and elements in order.
#[test]
fn junit_counts_what_failed_was_skipped_or_could_not_be_compared() {
    let folder = scratch("compare_junit");
    let actual = damaged("compare_junit_actual", &[("grad/h3", 1, -0.5)]);
    let mut part = Trace::new();
    for (name, view) in Trace::load(&actual).unwrap().iter().filter(|(name, _)| *name != "grad/x") {
        part.push_view(name, &view).unwrap();
    }
    part.save(&actual).unwrap();
    let suites = |inputs: &[&str]| {
        let junit = folder.join("report.xml");
        let mut command = tch_parity();
        command.args(inputs).arg("--junit").arg(&junit);
        command.output().unwrap();
        let script = "import sys, json, xml.etree.ElementTree as e; r = e.parse(sys.argv[1]).getroot(); \
                      print(json.dumps([dict(s.attrib, found=[len(s.findall('testcase')), len(s.findall('testcase/skipped')), \
                      len(s.findall('testcase/error')), len(s.findall('testcase/failure'))], \
                      out=s.findtext('system-out'), order=sorted({c.tag for c in s})) for s in r]))";
        let python = crate::common::python().args(["-c", script]).arg(&junit).output().unwrap();
        serde_json::from_str::<Value>(&stdout(&python)).unwrap()
    };
    let count = |suite: &Value, name: &str| suite[name].as_str().unwrap().parse::<u32>().unwrap();
    let of = |suite: &Value| {
        let counts = ["tests", "skipped", "errors", "failures"].map(|name| count(suite, name));
        assert_eq!(json!(counts), suite["found"]);
        counts
    };
    let stored = data("notebook.safetensors");
    let (actual, stored) = (actual.to_str().unwrap(), stored.to_str().unwrap());
    let found = suites(&["compare", actual, stored, "--partial"]);
    assert_eq!(of(&found[0]), [169, 1, 0, 1]);
    let out = found[0]["out"].as_str().unwrap();
    assert!(out.starts_with("grad/h3 is the first to differ"), "{out}");
    assert!(out.contains("\nDIFFERS: "), "{out}");
    let found = suites(&["check", stored, "missing.safetensors"]);
    let counts = found.as_array().unwrap().iter().map(of).collect::<Vec<_>>();
    assert_eq!(counts, [[161, 0, 0, 0], [1, 0, 1, 0]]);
}

#[test]
fn help_ends_with_examples_that_are_valid() {
    let commands = ["notebook", "show", "check", "compare", "worksheet", "figure", "selftest"];
    for command in commands {
        let help = stdout(&tch_parity().args([command, "--help"]).output().unwrap());
        let examples = help.split("\nExamples:\n").nth(1).unwrap();
        let examples = examples.lines().map(|line| line.strip_prefix("  tch-parity ").unwrap());
        let examples = examples.collect::<Vec<_>>();
        assert!((2..=3).contains(&examples.len()), "{help}");
        for example in examples {
            assert!(example.starts_with(command), "{example}");
            // clap refuses an unknown option before anything is run. The files of the examples do not exist here.
            let arguments = example.split(" > ").next().unwrap().split(' ');
            let folder = scratch("compare_help");
            let output = tch_parity().args(arguments).current_dir(folder).output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert!(
                !stderr.contains("argument") && !stderr.contains("value"),
                "{example}: {stderr}"
            );
        }
    }
}

/// The smallest files that once made the report panic, or grow far beyond the files.
#[test]
fn names_and_shapes_of_any_size_are_reported_in_proportion() {
    let folder = scratch("compare_proportion");
    let of = |file: &str, names: &[String], shape: &[usize]| {
        let mut trace = Trace::new();
        for name in names {
            trace
                .push_view(name, &TensorView::new(Dtype::U8, shape.to_vec(), &[1]).unwrap())
                .unwrap();
        }
        trace.save(folder.join(file)).unwrap();
        folder.join(file)
    };
    let many = (0..1000).map(|i| format!("n{i}")).chain(["m".repeat(30_000)]).collect::<Vec<_>>();
    for file in [
        of("name", &["\u{1}".repeat(10_950)], &[1]),
        of("shape", &["t".to_owned()], &[1; 22_000]),
        of("many", &many, &[1]),
    ] {
        let reports = ["json", "xml"].map(|name| folder.join(name));
        let mut command = tch_parity();
        command.args(["compare", "--verbose"]).args([&file, &file]);
        command.arg("--json").arg(&reports[0]).arg("--junit").arg(&reports[1]);
        let printed = stdout(&command.output().unwrap());
        let size = |path: &Path| fs::metadata(path).unwrap().len();
        let written = reports.iter().map(|report| size(report)).sum::<u64>();
        let written = written + printed.len() as u64;
        assert!(written < 16 * size(&file), "{written} bytes of {}", file.display());
    }
}

//! The reports as an HTML page: what it says, and that nothing of a file becomes a part of the page.

use std::fs;
use std::path::Path;

use crate::common::{data, scratch, tch_parity};
use safetensors::tensor::{Dtype, TensorView};
use tch_parity::report::{Format, Html, NotCompared, Report};
use tch_parity::{Criterion, Trace, compare};

fn floats(name: &str, values: &[f32]) -> Trace {
    let mut trace = Trace::new();
    let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<_>>();
    trace
        .push_view(name, &TensorView::new(Dtype::F32, vec![values.len()], &bytes).unwrap())
        .unwrap();
    trace
}

/// The page of what `compare` prints of two files, and its exit code.
fn page(folder: &Path, actual: &Path, expected: &Path) -> (String, Option<i32>) {
    let page = folder.join("page.html");
    let output =
        tch_parity().arg("compare").args([actual, expected]).arg("--html").arg(&page).output();
    (fs::read_to_string(&page).unwrap(), output.unwrap().status.code())
}

/// The text of an element of the page, without its tags.
fn rows(html: &str, class: &str) -> Vec<Vec<String>> {
    let table = html.split(&format!("<table class=\"{class}\">")).nth(1).unwrap();
    let table = table.split("</table>").next().unwrap();
    let text = |cell: &str| {
        let pieces =
            cell.split('<').map(|piece| piece.split_once('>').map_or(piece, |(_, text)| text));
        pieces.collect::<String>()
    };
    let cells =
        |row: &str| row.split("<td").skip(1).map(|cell| text(&format!("<td{cell}"))).collect();
    table.split("<tr").skip(2).map(cells).collect()
}

#[test]
fn the_page_says_what_differs_where_and_how() {
    let folder = scratch("html_says");
    let cases = ["nesterov", "dampening"].map(|name| data(&format!("cases/{name}.safetensors")));
    let (html, code) = page(&folder, &cases[0], &cases[1]);
    assert_eq!(code, Some(1));
    for says in [
        "<span class=\"bad\">DIFFERS</span>",
        "<strong>the runs are not the same: optimizer.dampening is 0.0, not 0.5.</strong>",
        "bitwise required: both use portable numerics",
        "1 comparison: 0 same, 1 differ, 0 could not be compared",
        "title=\"step/10/fc3.bias: ",
        "<b style=\"width:20rem\">step</b><u style=\"width:",
        "<title>The loss over the steps</title>",
        "The scaled error of the parameters over the steps",
        "Greatest absolute difference: ",
        "The smallest tolerances that would pass",
    ] {
        assert!(html.contains(says), "{says}");
    }
    assert_eq!(html.matches("optimizer.dampening is 0.0").count(), 1);
    // The part that knows the net is compiled with libtorch alone.
    for computed in [
        "<span class=\"dim\">computed by the backward and the optimizer of this step</span>",
        "forward/z2</a><br><span class=\"dim\">computed by fc1</span>",
    ] {
        assert_eq!(html.contains(computed), cfg!(feature = "libtorch"), "{computed}");
    }
    assert_eq!(rows(&html, "sort").len(), 99);
    assert!(rows(&html, "environments").len() >= 8);
    // Nothing is loaded, and without JavaScript nothing is missing.
    assert!(!html.contains("http") && !html.contains("src="));

    let (same, code) = page(&folder, &cases[0], &cases[0]);
    assert_eq!(code, Some(0));
    assert!(same.contains("<span class=\"good\">same</span>") && !same.contains("What differs"));
    // What is asked for only here is not computed elsewhere.
    let json = folder.join("report.json");
    tch_parity().arg("compare").args(&cases).arg("--json").arg(&json).output().unwrap();
    assert!(!fs::read_to_string(&json).unwrap().contains("histogram"));
}

#[test]
fn the_worst_elements_and_the_histogram_are_those_of_the_values() {
    let expected = [1., 2., 3., 4., 5., 0., 7.];
    let actual = [1., 2.5, 3., 4.0625, f32::NAN, -0., 7.0625];
    let (actual, expected) = (floats("w", &actual), floats("w", &expected));
    let mut comparison = compare(&actual, &expected, Criterion::Bitwise);
    comparison.detail(&actual, &expected);
    let details = comparison.tensors[0].details.as_ref().unwrap();
    assert_eq!(details.histogram, [(-2, 2), (-1, 1)]);
    assert_eq!((details.zero, details.infinite), (1, 1));
    let worst = details.worst.iter().map(|worst| (worst.index[0], worst.abs, worst.ulp));
    let worst = worst.collect::<Vec<_>>();
    assert_eq!(worst[0].0, 4);
    assert_eq!(worst[1..3], [(1, 0.5, 1 << 21), (3, 0.0625, 1 << 17)]);
    assert_eq!(worst[3..], [(6, 0.0625, 1 << 17), (5, 0., 0)]);
    assert_eq!(details.worst[1].actual.0, "2.5");
}

fn written(comparison: tch_parity::Comparison) -> String {
    let report = Report::new("case", "as asked", comparison, Vec::new);
    let (mut html, mut out) = (Html::default(), Vec::new());
    html.report(&mut out, &report).unwrap();
    html.finish(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

/// Digests that differ are there, and nothing says how far they are apart.
#[test]
fn digests_that_differ_are_not_drawn_as_missing() {
    let trace = |of: f32| {
        let (mut trace, values) = (Trace::new(), floats("forward/fc", &[of, 1.]));
        trace.push_digest("forward/fc", values.digest("forward/fc").unwrap()).unwrap();
        trace
    };
    let page = written(compare(&trace(1.), &trace(2.), Criterion::Close));
    assert!(page.contains("<i class=\"u s\" title=\"forward/fc: the digests differ\">"), "{page}");
    assert!(!page.contains("<i class=\"m s\""), "{page}");
    let lacking = written(compare(&Trace::new(), &trace(2.), Criterion::Close));
    assert!(lacking.contains("<i class=\"m s\""), "{lacking}");
}

/// A run that diverges has losses that are no numbers: the line ends there, and the place is marked.
#[test]
fn the_plot_of_the_loss_shows_where_it_diverges() {
    let trace = |losses: &[f32]| {
        let mut trace = Trace::new();
        for (at, loss) in losses.iter().enumerate() {
            let bytes = loss.to_le_bytes();
            let view = TensorView::new(Dtype::F32, vec![], &bytes).unwrap();
            trace.push_view(format!("step/{}/L", at + 1), &view).unwrap();
        }
        trace
    };
    let (actual, expected) = ([3., 2., f32::NAN, f32::NAN, 1.], [3., 2., 1.5, 1.2, f32::INFINITY]);
    let (actual, expected) = (trace(&actual), trace(&expected));
    let mut comparison = compare(&actual, &expected, Criterion::Bitwise);
    comparison.detail(&actual, &expected);
    // A case of a group of its own comes as JSON.
    let json = serde_json::to_string(&comparison).unwrap();
    let page = written(serde_json::from_str(&json).unwrap());
    let plot = page.split("<title>The loss over the steps</title>").nth(1).unwrap();
    let (plot, key) = plot.split_once("</svg>").unwrap();
    assert!(key.contains("loss, actual: nan in steps 3 to 4<"), "{key}");
    assert!(key.contains("loss, expected: inf in step 5<"), "{key}");
    assert_eq!((plot.matches("<polyline").count(), plot.matches("<circle").count()), (2, 1));
}

/// What a hint says of a tensor of another shape is on the page as well, which has no details of it.
#[test]
fn the_page_has_the_hints() {
    let trace = |shape: Vec<usize>, values: [f32; 6]| {
        let mut trace = Trace::new();
        let bytes = values.map(f32::to_le_bytes).concat();
        trace.push_view("w", &TensorView::new(Dtype::F32, shape, &bytes).unwrap()).unwrap();
        trace
    };
    let (actual, expected) =
        (trace(vec![2, 3], [1., 2., 3., 4., 5., 6.]), trace(vec![3, 2], [1., 4., 2., 5., 3., 6.]));
    let page = written(compare(&actual, &expected, Criterion::Close));
    assert!(
        page.contains("<span class=\"dim\">but its transpose is bitwise the same</span>"),
        "{page}"
    );
}

/// A checkpoint has no steps and no order of execution, and an integer no unit in the last place.
#[test]
fn the_page_of_a_checkpoint_says_what_it_knows() {
    let trace = |value: i64| {
        let mut trace = Trace::new();
        let bytes = value.to_le_bytes();
        trace
            .push_view("bn.count", &TensorView::new(Dtype::I64, vec![1], &bytes).unwrap())
            .unwrap();
        trace
    };
    let page = written(compare(&trace(2), &trace(3), Criterion::Close));
    assert!(page.contains("A row a module, in the order of the file."), "{page}");
    assert!(!page.contains("in the order of execution") && !page.contains(">step<"), "{page}");
    assert_eq!(rows(&page, "sort")[0][6], "-");
}

#[test]
fn names_and_messages_of_a_file_are_text() {
    let name = "forward/<script>alert(1)</script>\"'&\u{1b}[2J";
    let (actual, expected) = (floats(name, &[1.]), floats(name, &[2.]));
    let mut comparison = compare(&actual, &expected, Criterion::Bitwise);
    comparison.detail(&actual, &expected);
    let report = Report::new(name, name, comparison, Vec::new);
    let error = NotCompared { file: name.to_owned(), message: name.to_owned() };
    let (mut html, mut out) = (Html::default(), Vec::new());
    html.report(&mut out, &report).unwrap();
    html.not_compared(&mut out, &error).unwrap();
    html.finish(&mut out).unwrap();
    let page = String::from_utf8(out).unwrap();
    assert!(page.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;"), "{page}");
    assert!(!page.contains("<script>alert") && !page.contains('\u{1b}'));
    assert!(page.contains("2 comparisons: 0 same, 1 differ, 1 could not be compared"));
}

/// Many cases do not make a page that no browser opens: what is beyond its size is a line each.
#[test]
fn a_page_of_many_cases_has_a_bounded_size() {
    let mut actual = Trace::new();
    let mut expected = Trace::new();
    for at in 0..2000 {
        for (trace, value) in [(&mut actual, 1f32), (&mut expected, 2.)] {
            let bytes = value.to_le_bytes();
            let view = TensorView::new(Dtype::F32, vec![1], &bytes).unwrap();
            trace.push_view(format!("forward/layers.{at}"), &view).unwrap();
        }
    }
    let mut comparison = compare(&actual, &expected, Criterion::Bitwise);
    comparison.detail(&actual, &expected);
    let report = Report::new("case", "as asked", comparison, Vec::new);
    let (mut html, mut out) = (Html::default(), Vec::new());
    for _ in 0..200 {
        html.report(&mut out, &report).unwrap();
    }
    html.finish(&mut out).unwrap();
    assert!(out.len() < 5_000_000, "{}", out.len());
    let page = String::from_utf8(out).unwrap();
    assert_eq!(page.matches("<section>").count(), 200);
}

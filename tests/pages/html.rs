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
        "<title>The loss over the steps</title>",
        "The scaled error of the parameters over the steps",
        "Greatest absolute difference: ",
        "The smallest tolerances that would pass",
    ] {
        assert!(html.contains(says), "{says}");
    }
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

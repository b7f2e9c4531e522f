//! The tensors that differ: a table of them, and of the first ones how their values differ.

use std::fmt::Write;

use super::plot::bars;
use super::shown;
use crate::compare::run::shortened;
use crate::compare::{Details, TensorComparison};
use crate::report::explanation::{explanation, tolerance};
use crate::report::text::{number, ulp, verdict};
use crate::report::xml::{escape, escape_lines};
use crate::report::{Acceptance, Report};

/// The largest number of rows, which a browser lays out at once.
const MAX_ROWS: usize = 1000;

/// The largest number of characters of an index: a tensor can have any number of dimensions.
const MAX_INDEX: usize = 100;

/// The largest number of characters of an explanation.
const MAX_EXPLANATION: usize = 2000;

/// The largest number of bars, which are those of the largest differences.
const MAX_BARS: usize = 14;

pub(super) fn table(report: &Report) -> String {
    let tensors = report.comparison.in_order_of_execution();
    let differ = tensors.iter().filter(|tensor| !tensor.passes).collect::<Vec<_>>();
    if differ.is_empty() {
        return String::new();
    }
    let mut text = "<h3>What differs</h3><div class=\"wide\"><table class=\"sort\"><tr><th>order</th><th>name</th>\
                    <th>shape</th><th>verdict</th><th>max|Δ|</th><th>scaled</th><th>ulp</th><th>unequal</th></tr>"
        .to_owned();
    for (at, tensor) in differ.iter().take(MAX_ROWS).enumerate() {
        let found = &tensor.statistics;
        let shape = shown(&format!("{:?}", tensor.shape));
        let (name, verdict) = (shown(&tensor.name), verdict(tensor));
        let name = match tensor.details {
            Some(_) => format!("<a href=\"#t{at}\">{name}</a>"),
            None => name,
        };
        let operation = report.operations.get(&tensor.name).map_or(String::new(), |operation| {
            format!("<br><span class=\"dim\">computed by {}</span>", shown(operation))
        });
        let hint = tensor.hint.as_ref().map_or(String::new(), |hint| {
            format!("<br><span class=\"dim\">but {}</span>", shown(hint))
        });
        let _ = write!(
            text,
            "<tr><td class=\"number\">{at}</td><td>{name}{operation}{hint}</td><td>{shape}</td>"
        );
        let _ = match &tensor.problem {
            Some(problem) => write!(text, "<td colspan=\"5\">{}</td></tr>", shown(problem)),
            None => write!(
                text,
                "<td>{verdict}</td>{}{}<td class=\"number\">{}</td><td class=\"number\" data-v=\"{}\">{} of {}</td></tr>",
                float(found.max_abs),
                float(found.scaled),
                ulp(tensor, found.max_ulp),
                found.unequal,
                found.unequal,
                found.numel,
            ),
        };
    }
    text += "</table></div>";
    if differ.len() > MAX_ROWS {
        let _ = write!(text, "<p>… and {} more that differ</p>", differ.len() - MAX_ROWS);
    }
    text
}

fn float(value: f64) -> String {
    format!("<td class=\"number\" data-v=\"{value:e}\">{}</td>", number(value))
}

pub(super) fn details(report: &Report) -> String {
    let tensors = report.comparison.in_order_of_execution();
    let differ = tensors.iter().filter(|tensor| !tensor.passes).enumerate();
    let detailed = differ.filter_map(|(at, tensor)| Some((at, tensor, tensor.details.as_ref()?)));
    let mut text = String::new();
    for (place, (at, tensor, details)) in detailed.enumerate() {
        // The first is what the reader looks for.
        let open = if place == 0 { " open" } else { "" };
        let _ = write!(
            text,
            "<details class=\"tensor\" id=\"t{at}\"{open}><summary>{}</summary>{}</details>",
            shown(&tensor.name),
            of_tensor(tensor, details, report.acceptance)
        );
    }
    text
}

fn of_tensor(tensor: &TensorComparison, details: &Details, acceptance: Acceptance) -> String {
    let explained = escape_lines(&shortened(&explanation(tensor, acceptance), MAX_EXPLANATION));
    let mut text = format!("<pre>{explained}</pre>");
    let found = &tensor.statistics;
    if found.max_abs.is_finite() && found.scaled.is_finite() {
        let (atol, scaled) = (tolerance(found.max_abs), tolerance(found.scaled));
        let _ = write!(
            text,
            "<p>The smallest tolerances that would pass, each alone: atol {atol}, or scaled {scaled}.</p>"
        );
    }
    let exponents = details.histogram.iter();
    let mut counted =
        exponents.map(|(exponent, count)| (format!("1e{exponent}"), *count)).collect::<Vec<_>>();
    counted.drain(..counted.len().saturating_sub(MAX_BARS));
    if details.zero > 0 {
        counted.insert(0, ("±0".to_owned(), details.zero));
    }
    if details.infinite > 0 {
        counted.push(("inf".to_owned(), details.infinite));
    }
    text += "<p class=\"dim\">Elements that differ, by |Δ|: each bar counts those from its number to ten times that.</p>";
    text += &bars("Elements by |Δ|", &counted);
    text + &worst(tensor, details)
}

/// Lists the elements that differ most. It is text, since a table of them for every tensor would be most of what a
/// browser has to read.
fn worst(tensor: &TensorComparison, details: &Details) -> String {
    let head = ["index", "actual", "", "expected", "", "|Δ|", "ulp"].map(str::to_owned);
    let rows = details.worst.iter().map(|worst| {
        let index = shortened(&format!("{:?}", worst.index), MAX_INDEX);
        let ((actual, actual_bits), (expected, expected_bits)) = (&worst.actual, &worst.expected);
        let values = [actual, actual_bits, expected, expected_bits].map(String::clone);
        let [actual, actual_bits, expected, expected_bits] = values;
        let (abs, ulp) = (number(worst.abs), ulp(tensor, worst.ulp));
        [index, actual, actual_bits, expected, expected_bits, abs, ulp]
    });
    let rows = [head].into_iter().chain(rows).collect::<Vec<_>>();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let line = |row: &[String; 7]| {
        let cells = row.iter().enumerate();
        let cells = cells.map(|(at, cell)| format!("{cell:>0$}", width(at).unwrap_or(0)));
        escape(&cells.collect::<Vec<_>>().join("  "))
    };
    format!("<pre>{}</pre>", rows.iter().map(line).collect::<Vec<_>>().join("\n"))
}

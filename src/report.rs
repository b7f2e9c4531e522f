//! Comparisons as text, JSON, JUnit and GitHub annotations: each renders the same plain data.

use std::fmt::Write;

use anyhow::Result;
use serde::Serialize;

use crate::compare::{Comparison, Criterion, Edge, MAX_ULP, TensorComparison, Verdict};
use crate::python_float::exponential;
use crate::xml::escape;

/// One comparison, under the name that the reader knows it by.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The case's file, or whatever was compared.
    pub name: String,
    /// The file that an annotation points to: the one that was judged.
    pub file: Option<String>,
    /// Why this criterion.
    pub reason: String,
    /// Where the difference comes from: [`Comparison::origin`].
    pub origin: Option<String>,
    /// The result.
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// A file that could not be compared, and why, in one line.
#[derive(Clone, Debug, Serialize)]
pub struct NotCompared {
    /// The file, or the folder that was searched.
    pub file: String,
    /// What is wrong with it.
    pub message: String,
}

/// `text` in one line that GitHub does not obey: names come out of files, and could hold line breaks or the
/// beginnings of its commands (`::` at the start of a line, `##[` anywhere).
pub fn one_line(text: &str) -> String {
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.into() };
    let text = text.chars().map(escaped).collect::<String>().replace("##[", "\\u{23}#[");
    match text.trim_start().strip_prefix("::") {
        Some(rest) => ["\\u{3a}:", rest].concat(),
        None => text,
    }
}

impl Report {
    /// `dataflow` is asked for where something differs, and most does not.
    pub fn new(
        name: impl Into<String>,
        reason: impl Into<String>,
        comparison: Comparison,
        dataflow: impl FnOnce() -> Vec<Edge>,
    ) -> Report {
        let origin = if comparison.passes() { None } else { comparison.origin(&dataflow()) };
        Report { name: name.into(), file: None, reason: reason.into(), origin, comparison }
    }

    /// The verdict, in one line.
    pub fn line(&self) -> String {
        let Comparison { criterion, run, tensors, not_compared } = &self.comparison;
        let criterion = match criterion {
            Criterion::Bitwise => "bitwise",
            Criterion::Close => "close",
            Criterion::CloseToGpu => "close (to a GPU)",
        };
        let count = tensors.iter().filter(|tensor| !tensor.passes).count();
        let (verdict, found) = match (run.is_empty(), count) {
            (true, 0) => ("same", format!("{} tensors {}", tensors.len(), self.tiers())),
            (true, _) => ("DIFFERS", format!("{count} of {} tensors", tensors.len())),
            (false, _) => ("DIFFERS", format!("the run, {count} of {} tensors", tensors.len())),
        };
        let (name, reason) = (one_line(&self.name), one_line(&self.reason));
        let found = match not_compared.len() {
            0 => found,
            count => format!("{found}, {count} not compared"),
        };
        format!("{verdict}: {name} ({found}; {criterion} required: {reason})")
    }

    /// How many tensors are in which tier.
    fn tiers(&self) -> String {
        let tiers = [
            ("bitwise".to_owned(), |v| v == Verdict::Bitwise),
            (format!("within {MAX_ULP} ulp"), |v| matches!(v, Verdict::Ulp(_))),
            ("close".to_owned(), |v| v == Verdict::Close),
        ] as [(String, fn(Verdict) -> bool); 3];
        let counts = tiers.iter().filter_map(|(tier, is)| {
            let count = self.comparison.tensors.iter().filter(|tensor| is(tensor.verdict)).count();
            (count > 0).then_some((tier, count))
        });
        let counts = counts.collect::<Vec<_>>();
        match counts[..] {
            [(tier, _)] => tier.clone(),
            _ => {
                counts.iter().map(|(tier, n)| format!("{n} {tier}")).collect::<Vec<_>>().join(", ")
            }
        }
    }

    /// A row a tensor, then what is known of each that differs, the origin, and the verdict.
    pub fn text(&self) -> String {
        let header =
            ["name", "shape", "verdict", "max|Δ|", "scaled", "ulp", "unequal"].map(str::to_owned);
        let mut rows = vec![header];
        rows.extend(self.comparison.tensors.iter().map(row));
        let widths = (0..7)
            .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
        let widths = widths.collect::<Vec<_>>();
        let mut text = String::new();
        for row in rows {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        for tensor in self.comparison.tensors.iter().filter(|tensor| !tensor.passes) {
            let _ = writeln!(text, "\n{}: {}", one_line(&tensor.name), explanation(tensor));
        }
        if !self.comparison.not_compared.is_empty() {
            let names = self.comparison.not_compared.iter().map(|name| one_line(name));
            let _ = writeln!(text, "\nnot compared: {}", names.collect::<Vec<_>>().join(" "));
        }
        for field in &self.comparison.run {
            let _ = writeln!(text, "\nrun: {}", one_line(field));
        }
        if let Some(origin) = &self.origin {
            let _ = writeln!(text, "\n{}", one_line(origin));
        }
        let _ = writeln!(text, "{}", self.line());
        text
    }

    /// GitHub's `::error` for a comparison that does not pass.
    pub fn annotation(&self) -> Option<String> {
        let origin = self.origin.as_deref()?;
        Some(annotation(self.file.as_deref(), &format!("{origin}. {}", self.line())))
    }
}

impl NotCompared {
    /// GitHub's `::error`.
    pub fn annotation(&self) -> String {
        annotation(Some(&self.file), &self.message)
    }
}

fn annotation(file: Option<&str>, message: &str) -> String {
    let escape = |text: &str| one_line(text).replace('%', "%25");
    let file = file.map(|file| escape(file).replace(':', "%3A").replace(',', "%2C"));
    let file = file.map_or(String::new(), |file| format!(" file={file}"));
    format!("::error{file}::{}", escape(message))
}

fn verdict(tensor: &TensorComparison) -> String {
    match tensor.verdict {
        Verdict::Bitwise => "bitwise".to_owned(),
        Verdict::Ulp(ulp) => format!("{ulp} ulp"),
        Verdict::Close => "close".to_owned(),
        Verdict::Differs => "DIFFERS".to_owned(),
    }
}

fn row(tensor: &TensorComparison) -> [String; 7] {
    let found = &tensor.statistics;
    let (name, shape) = (one_line(&tensor.name), format!("{:?}", tensor.shape));
    let [max_abs, scaled, ulp, unequal] = match tensor.problem {
        Some(_) => ["-"; 4].map(str::to_owned),
        None => [
            number(found.max_abs),
            number(found.scaled),
            found.max_ulp.to_string(),
            format!("{} of {}", found.unequal, found.numel),
        ],
    };
    [name, shape, verdict(tensor), max_abs, scaled, ulp, unequal]
}

fn number(value: f64) -> String {
    if value == 0. { "0".to_owned() } else { exponential(value, 1) }
}

/// What is known of a tensor that does not pass, in the words of torch.testing.assert_close.
fn explanation(tensor: &TensorComparison) -> String {
    let hint = tensor.hint.as_ref().map_or(String::new(), |hint| format!("\n    But {hint}."));
    if let Some(problem) = &tensor.problem {
        return problem.clone() + &hint;
    }
    let found = &tensor.statistics;
    let percent = 100. * found.unequal as f64 / found.numel.max(1) as f64;
    let mut text =
        format!("Mismatched elements: {} / {} ({percent:.1}%)", found.unequal, found.numel);
    if found.zero_signs == found.unequal {
        text += "\n    The sign of a zero is all that differs.";
    }
    if let Some(worst) = &found.worst {
        let _ = write!(
            text,
            "\n    Greatest absolute difference: {} at index {:?}\
             \n    actual   {} ({})\n    expected {} ({})",
            number(worst.abs),
            worst.index,
            worst.actual.0,
            worst.actual.1,
            worst.expected.0,
            worst.expected.1,
        );
    }
    text += &match tensor.tolerance.is_some() && found.scaled.is_finite() {
        true => format!(
            "\n    It would pass with atol={} and rtol=0, and a scaled tolerance of {}.",
            tolerance(found.max_abs),
            tolerance(found.scaled),
        ),
        false => "\n    No tolerance would pass it.".to_owned(),
    };
    text + &hint
}

/// Rounded up, so that what is printed would do.
fn tolerance(value: f64) -> String {
    if value == 0. || !value.is_finite() { number(value) } else { exponential(value * 1.001, 3) }
}

/// Every report as JSON: `{"passes": bool, "reports": […], "errors": […]}`. An infinity, which JSON does
/// not have, is the string `"Infinity"`.
///
/// # Errors
/// None that a report can cause: those of the JSON writer.
pub fn json(reports: &[Report], errors: &[NotCompared]) -> Result<String> {
    #[derive(Serialize)]
    struct All<'a> {
        passes: bool,
        reports: &'a [Report],
        errors: &'a [NotCompared],
    }
    let passes = errors.is_empty() && reports.iter().all(|report| report.comparison.passes());
    Ok(serde_json::to_string_pretty(&All { passes, reports, errors })?)
}

/// Every report as JUnit XML: a test suite a report, a test case a tensor, and one more named `run` where
/// what was run differs.
pub fn junit(reports: &[Report], errors: &[NotCompared]) -> String {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for report in reports {
        let name = escape(&report.name);
        let mut cases = Vec::new();
        if !report.comparison.run.is_empty() {
            cases.push(("run", Some(("DIFFERS".to_owned(), report.comparison.run.join("\n")))));
        }
        for tensor in &report.comparison.tensors {
            let failure = (!tensor.passes).then(|| (verdict(tensor), explanation(tensor)));
            cases.push((&tensor.name, failure));
        }
        let (count, failures) =
            (cases.len(), cases.iter().filter(|(_, failure)| failure.is_some()).count());
        let _ =
            writeln!(xml, r#"  <testsuite name="{name}" tests="{count}" failures="{failures}">"#);
        for (case, failure) in cases {
            let _ = write!(xml, r#"    <testcase classname="{name}" name="{}">"#, escape(case));
            if let Some((verdict, text)) = failure {
                let _ = write!(xml, r#"<failure message="{verdict}">{}</failure>"#, escape(&text));
            }
            xml += "</testcase>\n";
        }
        xml += "  </testsuite>\n";
    }
    for NotCompared { file, message } in errors {
        let (file, message) = (escape(file), escape(message));
        let _ = writeln!(
            xml,
            r#"  <testsuite name="{file}" tests="1" errors="1"><testcase classname="{file}" name="comparison"><error message="{message}"/></testcase></testsuite>"#
        );
    }
    xml + "</testsuites>\n"
}

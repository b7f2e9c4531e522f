//! Comparisons as text, JSON, JUnit and GitHub annotations: each renders the same plain data.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::compare::{Comparison, Criterion, TOLERANCES, TensorComparison, Verdict};
use crate::python_float::exponential;
use crate::whole_file::write_whole;

/// One comparison, under the name that the reader knows it by.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The case's file, or whatever was compared.
    pub name: String,
    /// Why this criterion.
    pub reason: String,
    /// Where the difference comes from: [`Comparison::origin`].
    pub origin: Option<String>,
    /// The result.
    #[serde(flatten)]
    pub comparison: Comparison,
}

impl Report {
    /// The verdict, in one line.
    pub fn line(&self) -> String {
        let tensors = &self.comparison.tensors;
        let criterion = match self.comparison.criterion {
            Criterion::Bitwise => "bitwise",
            Criterion::Close => "close",
        };
        let count = tensors.iter().filter(|tensor| !tensor.passes).count();
        let (verdict, found) = match count {
            0 => ("same", format!("{} tensors {}", tensors.len(), self.tiers())),
            _ => ("DIFFERS", format!("{count} of {} tensors", tensors.len())),
        };
        format!("{verdict}: {} ({found}; {criterion} required: {})", self.name, self.reason)
    }

    /// How many tensors are in which tier.
    fn tiers(&self) -> String {
        let tiers = [
            ("bitwise", |v| v == Verdict::Bitwise),
            ("within 4 ulp", |v| matches!(v, Verdict::Ulp(_))),
            ("close", |v| v == Verdict::Close),
        ] as [(&str, fn(Verdict) -> bool); 3];
        let counts = tiers.iter().filter_map(|(tier, is)| {
            let count = self.comparison.tensors.iter().filter(|tensor| is(tensor.verdict)).count();
            (count > 0).then_some((tier, count))
        });
        let counts = counts.collect::<Vec<_>>();
        match counts[..] {
            [(tier, _)] => (*tier).to_owned(),
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
            let _ = writeln!(text, "\n{}: {}", tensor.name, explanation(tensor));
        }
        if let Some(origin) = &self.origin {
            let _ = writeln!(text, "\n{origin}");
        }
        let _ = writeln!(text, "{}", self.line());
        text
    }

    /// GitHub's `::error` for a comparison that does not pass.
    pub fn annotation(&self) -> Option<String> {
        let escape =
            |text: &str| text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
        let property = |text: &str| escape(text).replace(':', "%3A").replace(',', "%2C");
        let origin = self.origin.as_deref()?;
        Some(format!(
            "::error file={}::{}. {}",
            property(&self.name),
            escape(origin),
            escape(&self.line())
        ))
    }
}

fn verdict(tensor: &TensorComparison) -> String {
    match tensor.verdict {
        Verdict::Bitwise => "bitwise".to_owned(),
        Verdict::Ulp(0) => "0 ulp".to_owned(),
        Verdict::Ulp(ulp) => format!("{ulp} ulp"),
        Verdict::Close => "close".to_owned(),
        Verdict::Differs => "DIFFERS".to_owned(),
    }
}

fn row(tensor: &TensorComparison) -> [String; 7] {
    let found = &tensor.statistics;
    let shape = format!("{:?}", tensor.shape);
    if tensor.problem.is_some() {
        return [
            tensor.name.clone(),
            shape,
            verdict(tensor),
            "-".into(),
            "-".into(),
            "-".into(),
            "-".into(),
        ];
    }
    [
        tensor.name.clone(),
        shape,
        verdict(tensor),
        number(found.max_abs),
        number(found.scaled()),
        found.max_ulp.to_string(),
        format!("{} of {}", found.unequal, found.numel),
    ]
}

fn number(value: f64) -> String {
    if value == 0. { "0".to_owned() } else { exponential(value, 1) }
}

/// What is known of a tensor that does not pass, in the words of torch.testing.assert_close.
fn explanation(tensor: &TensorComparison) -> String {
    if let Some(problem) = &tensor.problem {
        return problem.clone();
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
    let has_tolerance = TOLERANCES.iter().any(|(dtype, _)| dtype.to_string() == tensor.dtype);
    text += &match has_tolerance && found.max_abs.is_finite() {
        true => format!(
            "\n    It would pass with atol={} and rtol=0, and a scaled tolerance of {}.",
            tolerance(found.max_abs),
            tolerance(found.scaled()),
        ),
        false => "\n    No tolerance would pass it.".to_owned(),
    };
    text
}

/// Rounded up, so that what is printed would do.
fn tolerance(value: f64) -> String {
    if value == 0. || !value.is_finite() { number(value) } else { exponential(value * 1.001, 3) }
}

/// Writes every report as JSON: `{"passes": bool, "reports": […], "errors": […]}`.
///
/// # Errors
/// The file cannot be written.
pub fn save_json(path: &Path, reports: &[Report], errors: &[String]) -> Result<()> {
    #[derive(Serialize)]
    struct All<'a> {
        passes: bool,
        reports: &'a [Report],
        errors: &'a [String],
    }
    let passes = errors.is_empty() && reports.iter().all(|report| report.comparison.passes());
    let json = serde_json::to_vec_pretty(&All { passes, reports, errors })?;
    write_whole(path, &json).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes every report as JUnit XML: a test suite a report, a test case a tensor.
///
/// # Errors
/// The file cannot be written.
pub fn save_junit(path: &Path, reports: &[Report], errors: &[String]) -> Result<()> {
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    for report in reports {
        let tensors = &report.comparison.tensors;
        let failures = tensors.iter().filter(|tensor| !tensor.passes).count();
        let name = escape(&report.name);
        let count = tensors.len();
        let _ =
            writeln!(xml, r#"  <testsuite name="{name}" tests="{count}" failures="{failures}">"#);
        for tensor in tensors {
            let _ =
                write!(xml, r#"    <testcase classname="{name}" name="{}">"#, escape(&tensor.name));
            if !tensor.passes {
                let message = escape(&explanation(tensor));
                let _ =
                    write!(xml, r#"<failure message="{}">{message}</failure>"#, verdict(tensor));
            }
            xml += "</testcase>\n";
        }
        xml += "  </testsuite>\n";
    }
    for error in errors {
        let error = escape(error);
        let _ = writeln!(
            xml,
            r#"  <testsuite name="{error}" tests="1" errors="1"><testcase name="replay"><error message="{error}"/></testcase></testsuite>"#
        );
    }
    xml += "</testsuites>\n";
    write_whole(path, xml.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}

/// For XML, which has no way to write most control characters.
fn escape(text: &str) -> String {
    let escaped = |c: char| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '"' => "&quot;".to_owned(),
        '\n' => "&#10;".to_owned(),
        c if c.is_control() => "\u{fffd}".to_owned(),
        c => c.to_string(),
    };
    text.chars().map(escaped).collect()
}

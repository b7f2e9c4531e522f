//! A [`Comparison`] as text, JSON, JUnit, HTML and GitHub annotations, with one file for each format.
//!
//! This room knows comparisons, which are plain data, and how people and CI read them. It does not know how
//! they were made. A format that is written to a file implements [`Format`].

mod annotation;
mod explanation;
mod html;
mod json;
mod junit;
mod stopped;
pub(crate) mod text;
pub(crate) mod xml;

use std::collections::{BTreeMap, HashSet};
use std::io::Write;

use anyhow::Result;
use serde::{Deserialize, Serialize};

pub use html::Html;
pub use json::Json;
pub use junit::JUnit;
pub use stopped::Stopped;

use crate::compare::{Comparison, Edge};
use crate::trace::Environment;

/// A comparison under the name that the reader knows it by.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// The name: the case's file, or whatever was compared.
    pub name: String,
    /// The file that an annotation points to, which is the actual one.
    pub file: Option<String>,
    /// The reason for the criterion.
    pub reason: String,
    /// The origin of the difference, as [`Comparison::origin`] returns it.
    pub origin: Option<String>,
    /// The operations that compute the tensors that differ, by the names of these, as far as they are known. Those of a
    /// program are named with the line of Python that they come from.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub operations: BTreeMap<String, String>,
    /// Where the actual and the expected run were made, as far as that is known.
    #[serde(default)]
    pub environments: [Option<Environment>; 2],
    /// How the reader can accept a difference, if at all.
    #[serde(skip)]
    pub acceptance: Acceptance,
    /// The result of the comparison.
    #[serde(flatten)]
    pub comparison: Comparison,
}

/// How the reader of a report can accept a difference.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acceptance {
    /// The command or the function accepts none.
    #[default]
    None,
    /// The reader gives the option `--tolerance` on the command line.
    Option,
    /// The reader adds a rule to [`Accepted`](crate::Accepted).
    Rule,
}

/// A file that could not be compared, with the reason.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NotCompared {
    /// The file, or the folder that was searched.
    pub file: String,
    /// The reason, in one line.
    pub message: String,
}

impl Report {
    /// Creates the report of a comparison. `dataflow` is called only if something differs.
    pub fn new(
        name: impl Into<String>,
        reason: impl Into<String>,
        comparison: Comparison,
        dataflow: impl FnOnce() -> Vec<Edge>,
    ) -> Report {
        let dataflow = if comparison.passes() { Vec::new() } else { dataflow() };
        let origin = if comparison.passes() { None } else { comparison.origin(&dataflow) };
        let operations = operations(&comparison, dataflow);
        Report {
            name: name.into(),
            file: None,
            reason: reason.into(),
            origin,
            operations,
            environments: [None, None],
            acceptance: Acceptance::None,
            comparison,
        }
    }
}

/// Returns the operations that compute the tensors that differ.
fn operations(comparison: &Comparison, dataflow: Vec<Edge>) -> BTreeMap<String, String> {
    let differ = comparison.tensors.iter().filter(|tensor| !tensor.passes);
    let differ = differ.map(|tensor| tensor.name.as_str()).collect::<HashSet<_>>();
    let of_those = dataflow.into_iter().filter(|edge| differ.contains(edge.to.as_str()));
    // The first edge that leads to a tensor is that of its layer; others come from what the layer holds.
    let mut operations = BTreeMap::new();
    of_those.for_each(|edge| _ = operations.entry(edge.to).or_insert(edge.operation));
    operations
}

/// A file format that takes the results one by one, so that none has to be kept.
pub trait Format {
    /// Writes a report.
    ///
    /// # Errors
    /// Returns an error if `out` cannot be written to.
    fn report(&mut self, out: &mut dyn Write, report: &Report) -> Result<()>;

    /// Writes that a file could not be compared, and why.
    ///
    /// # Errors
    /// Returns an error if `out` cannot be written to.
    fn not_compared(&mut self, out: &mut dyn Write, error: &NotCompared) -> Result<()>;

    /// Writes that a check ended before every case was checked. It is called at most once, before [`Format::finish`].
    ///
    /// # Errors
    /// Returns an error if `out` cannot be written to.
    fn stopped(&mut self, out: &mut dyn Write, stopped: &Stopped) -> Result<()>;

    /// Writes the end of the file.
    ///
    /// # Errors
    /// Returns an error if `out` cannot be written to.
    fn finish(&mut self, out: &mut dyn Write) -> Result<()>;
}

/// Returns `text` as one line that a terminal, an XML parser and GitHub treat as plain text.
///
/// Names come out of files, and could hold line breaks, escape sequences, characters that XML does not have, or
/// the beginnings of GitHub's commands: `::` at the start of a line, `##[` anywhere.
pub fn one_line(text: &str) -> String {
    let escaped = |c: char| match c {
        c if c.is_control() => c.escape_default().to_string(),
        '\u{fffe}' | '\u{ffff}' => c.escape_unicode().to_string(),
        c => c.into(),
    };
    let text = text.chars().map(escaped).collect::<String>().replace("##[", "\\u{23}#[");
    match text.trim_start().strip_prefix("::") {
        Some(rest) => ["\\u{3a}:", rest].concat(),
        None => text,
    }
}

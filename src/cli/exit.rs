//! How a command ends: exit codes, and errors in one line.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use tch_parity::report::one_line;

use super::libtorch_message;

/// How a command ends.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    /// It has done what was asked, or what was compared is the same.
    Done,
    /// What was compared differs.
    Differs,
    /// It could not run: wrong arguments, a file that cannot be read or written, an error of libtorch's.
    CouldNotRun,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> ExitCode {
        ExitCode::from(match outcome {
            Outcome::Done => 0,
            Outcome::Differs => 1,
            Outcome::CouldNotRun => 2,
        })
    }
}

pub(super) fn could_not_run(line: &str) -> ExitCode {
    complain(line);
    Outcome::CouldNotRun.into()
}

/// Writes a line to stderr. A stderr that takes nothing changes nothing.
pub(super) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{}", one_line(line));
}

/// Returns the chain of an error's causes in one line.
pub(super) fn message(err: &anyhow::Error) -> String {
    let message = |cause: &(dyn Error + 'static)| {
        libtorch_message(cause).unwrap_or_else(|| cause.to_string())
    };
    one_line(&err.chain().map(message).collect::<Vec<_>>().join(": "))
}

/// Returns clap's message in one line, without the usage below it.
pub(super) fn without_usage(text: &str) -> String {
    let end =
        ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|end| text.find(end)).min();
    let message = text.get(..end.unwrap_or(text.len())).unwrap_or(text);
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

//! The end of a command: exit codes, and errors in one line.

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use tch_parity::report::one_line;

use super::libtorch_message;

/// The outcome of a command, which determines the exit code.
#[derive(Clone, Copy)]
pub(super) enum Outcome {
    /// The command did what was asked, or what it compared is the same.
    Done = 0,
    /// What the command compared differs.
    Differs = 1,
    /// The command could not run: an argument is wrong, a file cannot be read or written, or libtorch failed.
    CouldNotRun = 2,
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> ExitCode {
        ExitCode::from(outcome as u8)
    }
}

pub(super) fn could_not_run(line: &str) -> ExitCode {
    complain(line);
    Outcome::CouldNotRun.into()
}

/// Writes a line to stderr. An error of stderr is ignored.
pub(super) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{}", one_line(line));
}

/// The largest number of characters of a message: names in files are of any length.
const MAX_MESSAGE: usize = 2000;

/// Returns the chain of an error's causes in one line.
pub(super) fn message(err: &anyhow::Error) -> String {
    let message = |cause: &(dyn Error + 'static)| {
        libtorch_message(cause).unwrap_or_else(|| cause.to_string())
    };
    let message = one_line(&err.chain().map(message).collect::<Vec<_>>().join(": "));
    match message.char_indices().nth(MAX_MESSAGE) {
        Some((end, _)) => format!("{}…", &message[..end]),
        None => message,
    }
}

/// Returns clap's message in one line, without the usage below it and without the command that is hidden.
pub(super) fn without_usage(text: &str) -> String {
    let end =
        ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|end| text.find(end)).min();
    let message = text.get(..end.unwrap_or(text.len())).unwrap_or(text);
    message.split_whitespace().collect::<Vec<_>>().join(" ").replace("check-group, ", "")
}

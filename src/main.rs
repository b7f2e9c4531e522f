//! `tch-parity`: the command line's exit codes and its one-line errors.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod check;
mod cli;
mod outcome;

use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use outcome::Outcome;
use tch::TchError;
use tch_parity::libtorch_version;
use tch_parity::report::one_line;

/// What was compared differs.
const DIFFERS: u8 = 1;

/// Could not run: wrong arguments, a file that cannot be read or written, an error of libtorch's.
const COULD_NOT_RUN: u8 = 2;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) if err.kind() == ErrorKind::DisplayVersion => return show_version(),
        Err(err) if !err.use_stderr() => err.exit(), // --help
        Err(err) => return could_not_run(&without_usage(&err.to_string())),
    };
    // libtorch of another version breaks at the first call, or later.
    match libtorch_version().map_err(anyhow::Error::from).and_then(|_| cli.run()) {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Differs) => ExitCode::from(DIFFERS),
        Ok(Outcome::CouldNotRun) => ExitCode::from(COULD_NOT_RUN),
        Err(err) => could_not_run(&format!("error: {}", message(&err))),
    }
}

/// This program's version, and that of what it runs on.
fn show_version() -> ExitCode {
    match libtorch_version() {
        Ok(libtorch) => {
            let version = env!("CARGO_PKG_VERSION");
            match writeln!(io::stdout(), "tch-parity {version} (libtorch {libtorch})") {
                Err(err) if err.kind() != io::ErrorKind::BrokenPipe => {
                    could_not_run(&format!("error: stdout: {err}"))
                }
                _ => ExitCode::SUCCESS,
            }
        }
        Err(err) => could_not_run(&format!("error: {}", message(&err.into()))),
    }
}

fn could_not_run(line: &str) -> ExitCode {
    complain(line);
    ExitCode::from(COULD_NOT_RUN)
}

/// A line on stderr. One that takes nothing changes nothing.
fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{}", one_line(line));
}

/// clap's message in one line, without the usage below it.
fn without_usage(text: &str) -> String {
    let end =
        ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|end| text.find(end)).min();
    let message = text.get(..end.unwrap_or(text.len())).unwrap_or(text);
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The chain of an error's causes in one line; of libtorch's the first, without the C++ backtrace.
fn message(err: &anyhow::Error) -> String {
    let message = |cause: &(dyn Error + 'static)| match cause.downcast_ref::<TchError>() {
        Some(TchError::Torch(message)) => message.lines().next().unwrap_or_default().to_owned(),
        _ => cause.to_string(),
    };
    one_line(&err.chain().map(message).collect::<Vec<_>>().join(": "))
}

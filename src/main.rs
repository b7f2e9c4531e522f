//! `tch-parity`: the command line's exit codes and its one-line errors.

#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod check;
mod cli;

use cli::Outcome;
use std::error::Error;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use tch::TchError;

/// What was compared differs.
const DIFFERS: u8 = 1;

/// Could not run: wrong arguments, a file that cannot be read or written, an error of libtorch's.
const COULD_NOT_RUN: u8 = 2;

fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) if !err.use_stderr() => err.exit(), // --help and --version
        Err(err) => return could_not_run(&without_usage(&err.to_string())),
    };
    match cli.run() {
        Ok(Outcome::Done) => ExitCode::SUCCESS,
        Ok(Outcome::Differs) => ExitCode::from(DIFFERS),
        Ok(Outcome::CouldNotRun) => ExitCode::from(COULD_NOT_RUN),
        // Whoever reads the output has seen enough.
        Err(err) if is_broken_pipe(&err) => ExitCode::SUCCESS,
        Err(err) => could_not_run(&format!("error: {}", one_line(&err))),
    }
}

fn could_not_run(message: &str) -> ExitCode {
    // A stderr that takes nothing changes nothing.
    let _ = writeln!(io::stderr(), "{message}");
    ExitCode::from(COULD_NOT_RUN)
}

/// clap's message in one line, without the usage below it.
fn without_usage(text: &str) -> String {
    let end =
        ["\n\nUsage:", "\n\nFor more information"].iter().filter_map(|end| text.find(end)).min();
    let message = text.get(..end.unwrap_or(text.len())).unwrap_or(text);
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The chain of an error's causes, of each its first line: libtorch adds a C++ backtrace.
fn one_line(err: &anyhow::Error) -> String {
    let message = |cause: &(dyn Error + 'static)| match cause.downcast_ref::<TchError>() {
        Some(TchError::Torch(message)) => message.clone(), // in libtorch's words alone
        _ => cause.to_string(),
    };
    let causes =
        err.chain().map(|cause| message(cause).lines().next().unwrap_or_default().to_owned());
    causes.collect::<Vec<_>>().join(": ")
}

fn is_broken_pipe(err: &anyhow::Error) -> bool {
    err.downcast_ref::<io::Error>().is_some_and(|err| err.kind() == io::ErrorKind::BrokenPipe)
}

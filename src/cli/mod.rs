//! The command line. Each command has a file with its arguments and what it does.
//!
//! This room knows the whole library, and nothing knows it.

mod compare;
mod exit;
// Commands without libtorch end at once.
#[cfg_attr(not(feature = "libtorch"), allow(dead_code))]
mod interruption;
mod output;
mod progress;
mod reports;
mod show;
mod signals;

#[cfg(feature = "libtorch")]
mod check;
#[cfg(feature = "libtorch")]
mod computing;
#[cfg(feature = "libtorch")]
mod figure;
#[cfg(feature = "libtorch")]
mod memory;
#[cfg(feature = "libtorch")]
mod notebook;
#[cfg(feature = "libtorch")]
mod port;
#[cfg(feature = "libtorch")]
mod recorded;
#[cfg(feature = "libtorch")]
mod run;
#[cfg(feature = "libtorch")]
mod selftest;
#[cfg(feature = "libtorch")]
mod worksheet;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use tch_parity::Edge;

use exit::{Outcome, could_not_run, message, without_usage};
use output::ensure_stdout;

/// Check that a PyTorch computation and its port to Rust are the same computation, to the bit
///
/// Exit codes: 0 done, or the same; 1 differs; 2 could not run.
#[derive(Parser)]
#[command(version, subcommand_required = true, arg_required_else_help = false)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[cfg(feature = "libtorch")]
    Notebook(notebook::Arguments),
    Show(show::Arguments),
    #[cfg(feature = "libtorch")]
    Check(check::Arguments),
    #[cfg(feature = "libtorch")]
    #[command(hide = true)]
    CheckGroup(check::GroupArguments),
    Compare(compare::Arguments),
    #[cfg(feature = "libtorch")]
    Run(run::Arguments),
    #[cfg(feature = "libtorch")]
    Port(port::Arguments),
    #[cfg(feature = "libtorch")]
    Worksheet(worksheet::Arguments),
    #[cfg(feature = "libtorch")]
    Figure(figure::Arguments),
    #[cfg(feature = "libtorch")]
    Selftest(selftest::Arguments),
}

impl Command {
    fn run(self) -> Result<Outcome> {
        match self {
            #[cfg(feature = "libtorch")]
            Command::Notebook(arguments) => notebook::run(arguments),
            Command::Show(arguments) => show::run(arguments),
            #[cfg(feature = "libtorch")]
            Command::Check(arguments) => check::run(arguments),
            #[cfg(feature = "libtorch")]
            Command::CheckGroup(arguments) => check::run_group(arguments),
            Command::Compare(arguments) => compare::run(arguments),
            #[cfg(feature = "libtorch")]
            Command::Run(arguments) => run::run(arguments),
            #[cfg(feature = "libtorch")]
            Command::Port(arguments) => port::run(arguments),
            #[cfg(feature = "libtorch")]
            Command::Worksheet(arguments) => worksheet::run(arguments),
            #[cfg(feature = "libtorch")]
            Command::Figure(arguments) => figure::run(arguments),
            #[cfg(feature = "libtorch")]
            Command::Selftest(arguments) => selftest::run(arguments),
        }
    }
}

/// Runs the command that the command line names. Call it while the process has one thread.
pub(crate) fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) if err.kind() == ErrorKind::DisplayVersion => return show_version(),
        // --help
        Err(err) if !err.use_stderr() => {
            let help = ensure_stdout().and_then(|()| output::unless_closed(err.print()));
            return ended(help.map(|()| Outcome::Done));
        }
        Err(err) => return could_not_run(&without_usage(&err.to_string())),
    };
    // libtorch of another version breaks at the first call, or later.
    let ready = libtorch().and_then(|_| ensure_stdout()).and_then(|()| signals::watch());
    ended(ready.and_then(|()| cli.command.run()))
}

fn ended(outcome: Result<Outcome>) -> ExitCode {
    match outcome {
        Ok(outcome) => outcome.into(),
        Err(err) => could_not_run(&format!("error: {}", message(&err))),
    }
}

/// Prints the version of this program and that of libtorch.
fn show_version() -> ExitCode {
    ended(ensure_stdout().and_then(|()| libtorch()).and_then(|libtorch| {
        let version = env!("CARGO_PKG_VERSION");
        let line = format_args!("tch-parity {version} ({libtorch})\n");
        output::print(&mut std::io::stdout(), line).map(|()| Outcome::Done)
    }))
}

/// Returns the name and the version of the libtorch in use.
#[cfg(feature = "libtorch")]
fn libtorch() -> Result<String> {
    Ok(format!("libtorch {}", tch_parity::libtorch_version()?))
}

#[cfg(not(feature = "libtorch"))]
fn libtorch() -> Result<String> {
    Ok("without libtorch".to_owned())
}

/// What is known of how the tensors of a case are computed: the dataflow, and the operators by the tensors' names.
type Computation = (Vec<Edge>, BTreeMap<String, String>);

/// Returns what a trace says of how its tensors are computed, of the operators those of tensors that are `wanted`, if it
/// is a whole case: one of a program, or of a `ThreeLayerNet`.
#[cfg(feature = "libtorch")]
fn computation_of(trace: tch_parity::Trace, wanted: &dyn Fn(&str) -> bool) -> Option<Computation> {
    let case = tch_parity::Case::new(trace).ok()?;
    if tch_parity::ProgramReplay::is_of(&case) {
        let replay = tch_parity::ProgramReplay::new(case).ok()?;
        let operators = replay.computed_by(wanted).unwrap_or_default();
        return Some((replay.dataflow().unwrap_or_default(), operators));
    }
    let replay = tch_parity::Replay::new(case).ok()?;
    Some((tch_parity::dataflow(replay.run.steps), BTreeMap::new()))
}

#[cfg(not(feature = "libtorch"))]
fn computation_of(_: tch_parity::Trace, _: &dyn Fn(&str) -> bool) -> Option<Computation> {
    None
}

/// Returns the message of an error of libtorch's without the C++ backtrace below it.
#[cfg(feature = "libtorch")]
fn libtorch_message(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    match cause.downcast_ref() {
        Some(tch::TchError::Torch(message)) => Some(message.lines().next()?.to_owned()),
        _ => None,
    }
}

#[cfg(not(feature = "libtorch"))]
fn libtorch_message(_: &(dyn std::error::Error + 'static)) -> Option<String> {
    None
}

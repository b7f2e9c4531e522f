//! The cases, grouped by their numerics. If there are several groups, each has a process of its own.

use std::env;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Lines, Read, Write};
use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Stdio, exit};

use anyhow::{Context, Result, anyhow};
use clap::{Args, ValueEnum};
use tch_parity::{DeviceChoice, Environment, Numerics, Trace};

use super::replay::replay_all;
use crate::cli::computing::{DeviceOption, NumericsArg};
use crate::cli::exit::Outcome;
use crate::cli::interruption::let_ctrl_c_ask;
use crate::cli::reports::{CriterionArg, Judged, not_compared};

/// Replay the cases whose names come from stdin, each ended by a NUL, and print a line of JSON for each
#[derive(Args)]
pub(crate) struct GroupArguments {
    #[arg(long, value_enum)]
    numerics: NumericsArg,
    #[command(flatten)]
    device: DeviceOption,
    #[arg(long, value_enum)]
    criterion: CriterionArg,
    #[arg(long)]
    in_detail: bool,
    #[arg(long)]
    program: bool,
    #[arg(long)]
    jobs: Option<NonZeroUsize>,
}

/// How cases are replayed and compared.
#[derive(Clone, Copy)]
pub(super) struct How {
    pub(super) device: DeviceChoice,
    pub(super) criterion: CriterionArg,
    /// Whether a comparison has all that a page shows.
    pub(super) in_detail: bool,
    /// Whether also a case of the notebook's net is run by its program.
    pub(super) by_program: bool,
    /// Whether cases after one that does not pass need not be replayed.
    pub(super) fail_fast: bool,
    /// How many cases are replayed at once; `None` stands for one for each core.
    pub(super) jobs: Option<NonZeroUsize>,
}

/// Replays `files`, and passes the result of each to `then`, in order, until it breaks.
///
/// Every file is replayed with `numerics` or, if that is `None`, with the numerics that it was recorded with.
pub(super) fn replayed(
    files: &[PathBuf],
    numerics: Option<Numerics>,
    how: How,
    then: &mut dyn FnMut(Judged) -> ControlFlow<()>,
) {
    let recorded = |file: &PathBuf| numerics.or_else(|| recorded_numerics(file));
    let recorded = files.iter().map(recorded).collect::<Vec<_>>();
    // A file that cannot be read leads to an error when it is replayed, whatever the numerics.
    let first = recorded.iter().flatten().next().copied().unwrap_or(Numerics::Portable);
    let of = |recorded: &Option<Numerics>| recorded.unwrap_or(first);
    if recorded.iter().all(|recorded| of(recorded) == first) {
        return replay_all(&files.iter().collect::<Vec<_>>(), first, how, then);
    }
    let start = |numerics: NumericsArg| {
        let of_group = files.iter().zip(&recorded);
        let of_group = of_group.filter(|(_, recorded)| of(recorded) == numerics.into());
        let files = of_group.map(|(file, _)| file).collect::<Vec<_>>();
        Group::start(&files, numerics, how)
    };
    let mut portable = start(NumericsArg::Portable);
    let mut native = start(NumericsArg::Native);
    for (file, recorded) in files.iter().zip(&recorded) {
        let group = match of(recorded) {
            Numerics::Portable => &mut portable,
            Numerics::Native => &mut native,
        };
        let judged = match group {
            Ok(group) => group.next(),
            Err(err) => Err(anyhow!("{err:#}")),
        };
        if then(judged.unwrap_or_else(|err| Err(not_compared(file, &err)))).is_break() {
            return;
        }
    }
}

fn recorded_numerics(file: &PathBuf) -> Option<Numerics> {
    let environment = Trace::load_environment::<Environment>(file).ok()??;
    Some(environment.numerics)
}

/// Returns the name that a value has on the command line.
fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
}

/// A process that replays a group of cases.
struct Group {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Group {
    fn start(files: &[&PathBuf], numerics: NumericsArg, how: How) -> Result<Group> {
        let mut child = Command::new(env::current_exe()?)
            .arg("check-group")
            .args(["--numerics", &name_of(&numerics)])
            .args(["--criterion", &name_of(&how.criterion)])
            .args(["--device", &how.device.to_string()])
            .args(how.in_detail.then_some("--in-detail"))
            .args(how.by_program.then_some("--program"))
            .args(how.jobs.map(|jobs| format!("--jobs={jobs}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start a process for these numerics")?;
        let lines = BufReader::new(child.stdout.take().context("no stdout")?).lines();
        let mut group = Group { child, lines };
        // The child reads all of its stdin before it writes anything.
        let mut stdin = group.child.stdin.take().context("no stdin")?;
        for file in files {
            stdin.write_all(file.as_os_str().as_bytes())?;
            stdin.write_all(b"\0")?;
        }
        drop(stdin);
        Ok(group)
    }

    /// Returns the result of the next case.
    fn next(&mut self) -> Result<Judged> {
        match self.lines.next() {
            Some(line) => Ok(serde_json::from_str(&line?)?),
            None => {
                Err(anyhow!("the process for its numerics ended early: {}", self.child.wait()?))
            }
        }
    }
}

/// A program that ends before its groups does not leave them running.
impl Drop for Group {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the command that [`Group::start`] starts: replays the cases that stdin names, and prints their results.
pub(crate) fn run_group(arguments: GroupArguments) -> Result<Outcome> {
    let GroupArguments { numerics, device, criterion, in_detail, program, jobs } = arguments;
    let how = How {
        device: device.device,
        criterion,
        in_detail,
        by_program: program,
        // Which case of both groups is the first that does not pass is known to the process that started this one.
        fail_fast: false,
        jobs,
    };
    let_ctrl_c_ask(); // and that process ends this one
    let mut names = Vec::new();
    io::stdin().read_to_end(&mut names)?;
    let names = names.strip_suffix(b"\0").unwrap_or(&names);
    let files =
        names.split(|byte| *byte == 0).map(|name| PathBuf::from(OsString::from_vec(name.to_vec())));
    let files = files.collect::<Vec<_>>();
    let files = files.iter().collect::<Vec<_>>();
    let mut out = io::stdout().lock();
    replay_all(&files, numerics.into(), how, &mut |judged| {
        let line = serde_json::to_string(&judged).map_err(io::Error::from);
        if line.and_then(|line| writeln!(out, "{line}")).is_err() {
            exit(Outcome::CouldNotRun as i32); // nobody waits for the results any more
        }
        ControlFlow::Continue(())
    });
    Ok(Outcome::Done)
}

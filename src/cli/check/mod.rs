//! `tch-parity check`: replays recorded cases and compares each with its recording.
//!
//! The cases are found, grouped by the numerics that each was recorded with, replayed, and reported in order. None
//! is kept after that. Numerics are a setting of a whole process, so if there are several groups, each is computed
//! in a process of its own.

mod find;
mod group;
mod partition;
mod replay;

use std::num::NonZeroUsize;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use tch_parity::report::Stopped;

use super::computing::{DeviceOption, NumericsArg};
use super::exit::Outcome;
use super::interruption::{has_ctrl_c_asked, let_ctrl_c_ask};
use super::output::ensure_apart;
use super::progress::bar;
use super::reports::{ReportOptions, Reports, not_compared};
use find::Found;
pub(super) use group::{GroupArguments, run_group};
use group::{How, replayed};
use partition::Partition;

/// Replay recorded runs from their inputs and compare all remaining tensors with the recording
///
/// A case of a ThreeLayerNet is replayed by the port of the notebook, and one of any other model by the program that
/// it holds.
#[derive(Args)]
#[command(after_help = "Examples:
  tch-parity check run.safetensors
  tch-parity check tests/data/cases --partition 2/8 --junit parity.xml --json parity.json
  tch-parity check cases --device cuda --criterion close --verbose")]
pub(super) struct Arguments {
    /// Case files, or folders of them
    #[arg(value_name = "CASE", required = true)]
    cases: Vec<PathBuf>,
    /// How to compute [default: as each case was recorded]
    #[arg(long, value_enum)]
    numerics: Option<NumericsArg>,
    /// Replay also a case of a ThreeLayerNet by the program that it holds
    #[arg(long)]
    program: bool,
    #[command(flatten)]
    device: DeviceOption,
    /// Check every N-th case, from the M-th on, so that N machines share the work
    #[arg(long, value_name = "M/N", allow_hyphen_values = true)]
    partition: Option<Partition>,
    /// Stop at the first case that does not pass
    #[arg(long)]
    fail_fast: bool,
    /// How many portable cases to check at once on the CPU [default: one for each core]
    #[arg(long, value_name = "N", value_parser = jobs, allow_hyphen_values = true)]
    jobs: Option<NonZeroUsize>,
    #[command(flatten)]
    options: ReportOptions,
}

fn jobs(text: &str) -> Result<NonZeroUsize> {
    text.parse().context("it is not a number of cases from 1 on")
}

pub(super) fn run(arguments: Arguments) -> Result<Outcome> {
    let Arguments { cases, numerics, program, device, partition, fail_fast, jobs, options } =
        arguments;
    let paths = cases.iter().map(PathBuf::as_path).collect::<Vec<&Path>>();
    ensure_apart(&paths, &options.files())?;
    let mut found = Found::default();
    cases.iter().for_each(|path| found.add(path));
    let Found { mut files, errors } = found;
    if let Some(partition) = partition {
        files = partition.of(files)?;
    }
    let_ctrl_c_ask();
    let mut reports = Reports::new(&options, files.len() + errors.len() > 1);
    if !reports.can_be_written() {
        return reports.conclude();
    }
    for (path, err) in &errors {
        reports.add(&Err(not_compared(path, err)));
    }
    let numerics = numerics.map(Into::into);
    let progress = bar(files.len() as u64, "{pos} of {len} cases");
    let how = How {
        device: device.device,
        criterion: options.criterion,
        in_detail: options.in_detail(),
        by_program: program,
        fail_fast,
        jobs,
    };
    let mut count = 0;
    replayed(&files, numerics, how, &mut |judged| {
        count += 1;
        progress.inc(1);
        let passes = judged.as_ref().is_ok_and(|report| report.comparison.passes());
        reports.add(&judged);
        match has_ctrl_c_asked() || fail_fast && !passes {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    });
    let not_checked = files.len() - count;
    if not_checked > 0 {
        reports.interrupted = has_ctrl_c_asked();
        let reason = match reports.interrupted {
            true => "stopped by Ctrl-C",
            false => "stopped at a case that does not pass",
        };
        let (reason, cases) = (reason.to_owned(), files.len());
        reports.stopped = Some(Stopped { reason, not_checked, cases });
    }
    progress.finish_and_clear();
    reports.conclude()
}

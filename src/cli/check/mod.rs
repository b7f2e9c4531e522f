//! `tch-parity check`: replays recorded cases and compares each with its recording.
//!
//! The cases are found, grouped by the numerics that each was recorded with, replayed, and reported in order. None
//! is kept after that. Numerics are a setting of a whole process, so if there are several groups, each is computed
//! in a process of its own.

mod find;
mod group;
mod replay;

use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;

use super::computing::{DeviceOption, NumericsArg};
use super::exit::Outcome;
use super::output::ensure_apart;
use super::progress::bar;
use super::reports::{ReportOptions, Reports, not_compared};
use find::Found;
pub(super) use group::{GroupArguments, run_group};
use group::{How, replayed};

/// Replay recorded runs from their inputs and compare all remaining tensors with the recording
///
/// A case of a ThreeLayerNet is replayed by the port of the notebook, and one of any other model by the program that
/// it holds.
#[derive(Args)]
#[command(after_help = "Examples:
  tch-parity check run.safetensors
  tch-parity check tests/data/cases --junit parity.xml --json parity.json
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
    #[command(flatten)]
    options: ReportOptions,
}

pub(super) fn run(arguments: Arguments) -> Result<Outcome> {
    let Arguments { cases, numerics, program, device, options } = arguments;
    let paths = cases.iter().map(PathBuf::as_path).collect::<Vec<&Path>>();
    ensure_apart(&paths, &options.files())?;
    let mut found = Found::default();
    cases.iter().for_each(|path| found.add(path));
    let Found { files, errors } = found;
    let mut reports = Reports::new(&options, files.len() + errors.len() > 1);
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
    };
    replayed(&files, numerics, how, &mut |judged| {
        reports.add(&judged);
        progress.inc(1);
    });
    progress.finish_and_clear();
    reports.conclude()
}

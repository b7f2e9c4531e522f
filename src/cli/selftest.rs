//! `tch-parity selftest`: the control experiment for `check`.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use tch_parity::{Case, selftest};

use super::computing::{CPU, compute_with};
use super::exit::Outcome;
use super::output::{print, unless_closed};
use super::progress::bar;
use super::recorded::Recorded;

/// Damage a replay in every tensor, one thing at a time, and count what `check` would see
///
/// A case of a ThreeLayerNet is run by the port of the notebook, and one of any other model by the program that it holds.
#[derive(Args)]
#[command(after_help = "Examples:
  tch-parity selftest run.safetensors
  tch-parity selftest examples/convnet.safetensors")]
pub(super) struct Arguments {
    /// A case file
    case: PathBuf,
}

pub(super) fn run(Arguments { case: file }: Arguments) -> Result<Outcome> {
    let name = || file.display().to_string();
    let recorded = Recorded::of(Case::load(&file)?, &file, false).with_context(name)?;
    let case = recorded.case();
    let (device, _) = compute_with(case.environment.numerics, CPU)?;
    let progress = bar(10, "{pos} of {len} kinds of damage");
    let controls = recorded
        .run(device)
        .and_then(|replay| selftest(&replay, &case.trace, &mut || progress.inc(1)))
        .with_context(name)?;
    progress.finish_and_clear();
    let mut out = BufWriter::new(io::stdout().lock());
    print(&mut out, format_args!("{:<22}{:>9}{:>9}\n", "damage", "injected", "caught"))?;
    for control in &controls {
        let caught = control.injected - control.passed.len();
        let row = format!("{:<22}{:>9}{caught:>9}", control.damage, control.injected);
        print(&mut out, format_args!("{row}\n"))?;
    }
    for control in &controls {
        for name in &control.passed {
            print(&mut out, format_args!("PASSED: {} in {name}\n", control.damage))?;
        }
    }
    let injected = controls.iter().map(|control| control.injected).sum::<usize>();
    let passed = controls.iter().map(|control| control.passed.len()).sum::<usize>();
    print(&mut out, format_args!("{injected} injected, {} caught\n", injected - passed))?;
    unless_closed(out.flush())?;
    Ok(if passed == 0 { Outcome::Done } else { Outcome::Differs })
}

//! `tch-parity figure`: draws the net.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use tch_parity::worksheet::Worksheet;

use super::exit::Outcome;
use super::worksheet::fill_in;

/// Draw the net with its values and gradients, as SVG
#[derive(Args)]
#[command(after_help = "Examples:
  tch-parity figure > net.svg
  tch-parity figure run.safetensors --output net.svg")]
pub(super) struct Arguments {
    /// A case file of a ThreeLayerNet [default: the notebook's run]
    case: Option<PathBuf>,
    /// Write to this file [default: -, which is stdout]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(Arguments { case, output }: Arguments) -> Result<Outcome> {
    fill_in(case.as_deref(), Worksheet::figure, output.as_deref())
}

//! `tch-parity notebook`: runs the notebook.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use tch_parity::notebook::{LR, Notebook};

use super::computing::{DeviceOption, NumericsArg, compute_with};
use super::exit::Outcome;
use super::output::{Output, print, text_beside, unless_closed};
use super::progress::bar;

/// The largest number of steps. The header of a longer recording would exceed the 100 MB that safetensors allows.
const MAX_STEPS: i64 = 100_000;

/// Run the notebook and print what its code cells print under PyTorch, and the optimizer's step
#[derive(Args)]
#[command(after_help = "Examples:
  tch-parity notebook
  tch-parity notebook --lr 0.5 --steps 20 --record run.safetensors
  tch-parity notebook --device cuda --numerics native")]
pub(super) struct Arguments {
    /// The learning rate of the SGD step
    #[arg(long, default_value_t = LR, value_parser = learning_rate, allow_hyphen_values = true)]
    lr: f64,
    /// How often to repeat forward, backward and step: the cells print the first pass, and the last cell the
    /// parameters after all of them
    #[arg(long, value_name = "N", default_value_t = 1, allow_hyphen_values = true,
          value_parser = clap::value_parser!(u32).range(1..=MAX_STEPS))]
    steps: u32,
    /// Write every tensor of the run to this safetensors file, a case for `check`, or to stdout if it is -
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Compute with the same bits on every machine, or with what is fastest on this one
    #[arg(long, value_enum, default_value_t = NumericsArg::Portable)]
    numerics: NumericsArg,
    #[command(flatten)]
    device: DeviceOption,
}

fn learning_rate(text: &str) -> Result<f64, String> {
    let lr = text.parse::<f64>().map_err(|err| err.to_string())?;
    // torch.optim.SGD refuses negative numbers, too, but accepts nan and inf.
    if lr.is_finite() && lr >= 0. {
        Ok(lr)
    } else {
        Err("not a finite number of at least 0".to_owned())
    }
}

pub(super) fn run(arguments: Arguments) -> Result<Outcome> {
    let Arguments { lr, steps, record, numerics, device } = arguments;
    let (device, environment) = compute_with(numerics.into(), device.device)?;
    let progress = bar(steps.into(), "{len} steps");
    let mut notebook = Notebook::run(lr, steps, device)?;
    progress.finish_and_clear();
    if let Some(file) = &record {
        notebook.trace.describe(&notebook.run, &environment)?;
        let mut output = Output::create(file)?;
        output.write(|mut out| notebook.trace.write(&mut out))?;
        output.persist()?;
    }
    let mut text = Vec::new();
    notebook.print(&mut text)?;
    let mut out = text_beside(record.as_deref().as_slice());
    print(&mut out, format_args!("{}", String::from_utf8_lossy(&text)))?;
    unless_closed(out.flush())?;
    Ok(Outcome::Done)
}

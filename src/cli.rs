//! The command line: what the arguments mean, and what each command does.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use tch_parity::notebook::{self, Notebook};
use tch_parity::{Trace, repr};

/// A recording of more steps would outgrow the header that safetensors allows (100 MB).
const MAX_STEPS: i64 = 100_000;

/// PyTorch's notebook on backpropagation, on libtorch, to the bit.
///
/// Exit codes: 0 done, 2 could not run.
#[derive(Parser)]
#[command(version, subcommand_required = true, arg_required_else_help = false)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the notebook and print what its code cells print under PyTorch, and the optimizer step
    Notebook {
        /// Learning rate of the SGD step
        #[arg(long, default_value_t = notebook::LR, value_parser = learning_rate, allow_hyphen_values = true)]
        lr: f64,
        /// How often to zero_grad, forward, backward and step: the cells print the first pass, the
        /// last cell the parameters after all of them
        #[arg(long, value_name = "N", default_value_t = 1, allow_hyphen_values = true,
              value_parser = clap::value_parser!(u32).range(1..=MAX_STEPS))]
        steps: u32,
        /// Write every tensor of the run to this safetensors file
        #[arg(long, value_name = "FILE")]
        record: Option<PathBuf>,
    },
    /// Print tensors of a safetensors file, each as its name, a tab and Python's repr
    Show {
        /// The safetensors file
        file: PathBuf,
        /// The tensors to print [default: all, in the order that the file records, else by name]
        names: Vec<String>,
    },
}

impl Cli {
    /// Does what the command line asks for, writing to stdout.
    pub(crate) fn run(self) -> Result<()> {
        let out = BufWriter::new(io::stdout().lock());
        match self.command {
            Command::Notebook { lr, steps, record } => notebook(lr, steps, record.as_deref(), out),
            Command::Show { file, names } => show(&file, names, out),
        }
    }
}

fn learning_rate(text: &str) -> Result<f64, String> {
    let lr = text.parse::<f64>().map_err(|err| err.to_string())?;
    // As torch.optim.SGD, which lets nan and inf pass.
    if lr.is_finite() && lr >= 0. {
        Ok(lr)
    } else {
        Err("not a finite number from 0 up".to_owned())
    }
}

fn notebook(lr: f64, steps: u32, record: Option<&Path>, mut out: impl Write) -> Result<()> {
    let notebook = Notebook::run(lr, steps)?;
    if let Some(file) = record {
        notebook.trace.save(file)?;
    }
    notebook.print(&mut out).context("stdout")?;
    out.flush().context("stdout")
}

fn show(file: &Path, names: Vec<String>, mut out: impl Write) -> Result<()> {
    let trace = Trace::load(file)?;
    for name in &names {
        ensure!(trace.get(name).is_some(), "{} holds no tensor {name:?}", file.display());
    }
    let names = if names.is_empty() { trace.names().map(str::to_owned).collect() } else { names };
    for name in names {
        let text = trace.tensor(&name).and_then(|tensor| repr(&tensor).context(name.clone()));
        writeln!(out, "{name}\t{}", text.with_context(|| file.display().to_string())?)?;
    }
    out.flush().context("stdout")
}

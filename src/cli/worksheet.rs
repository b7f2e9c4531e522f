//! `tch-parity worksheet`: fills in the notebook's worksheet.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use tch_parity::notebook::{LR, Notebook};
use tch_parity::report::one_line;
use tch_parity::worksheet::Worksheet;
use tch_parity::{Case, Numerics, Replay};

use super::computing::{CPU, compute_with};
use super::exit::Outcome;
use super::output::{Output, STDOUT, ensure_apart};

/// Fill in the notebook's worksheet: of the notebook's own run, or of a recorded one
#[derive(Args)]
#[command(after_help = "Examples:
  tch-parity worksheet
  tch-parity worksheet run.safetensors --format html --output worksheet.html
  tch-parity worksheet --format ipynb --output worksheet.ipynb")]
pub(super) struct Arguments {
    /// A case file of a ThreeLayerNet [default: the notebook's run]
    case: Option<PathBuf>,
    /// The format: text for a terminal, markdown for GitHub and Jupyter, html for a browser, or ipynb, the whole
    /// notebook for Jupyter
    #[arg(long, value_enum, default_value_t = SheetFormat::Text)]
    format: SheetFormat,
    /// Write to this file [default: -, which is stdout]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum SheetFormat {
    Text,
    Markdown,
    Html,
    Ipynb,
}

pub(super) fn run(Arguments { case, format, output }: Arguments) -> Result<Outcome> {
    let render = match format {
        SheetFormat::Text => Worksheet::text,
        SheetFormat::Markdown => Worksheet::markdown,
        SheetFormat::Html => Worksheet::html,
        SheetFormat::Ipynb => Worksheet::ipynb,
    };
    fill_in(case.as_deref(), render, output.as_deref())
}

/// Renders the worksheet of a case or, without one, of the notebook's run.
pub(super) fn fill_in(
    case: Option<&Path>,
    render: fn(&Worksheet) -> Result<String>,
    output: Option<&Path>,
) -> Result<Outcome> {
    ensure_apart(case.as_slice(), output.as_slice())?;
    let (title, replay) = match case {
        Some(file) => {
            let replay = Replay::load(file)?;
            compute_with(replay.case.environment.numerics, CPU)?;
            (one_line(&file.display().to_string()), replay)
        }
        None => {
            let (device, environment) = compute_with(Numerics::Portable, CPU)?;
            let mut notebook = Notebook::run(LR, 1, device)?;
            notebook.trace.describe(&notebook.run, &environment)?;
            ("the notebook's run".to_owned(), Replay::new(Case::new(notebook.trace)?)?)
        }
    };
    let worksheet = Worksheet::new(&title, replay).and_then(|sheet| Ok((render(&sheet)?, sheet)));
    let (text, worksheet) = worksheet.context(title)?;
    let mut output = Output::create(output.unwrap_or(Path::new(STDOUT)))?;
    output.write(|out| Ok(out.write_all(text.as_bytes())?))?;
    output.persist()?;
    Ok(if worksheet.agrees() { Outcome::Done } else { Outcome::Differs })
}

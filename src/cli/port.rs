//! `tch-parity port`: writes the Rust port of a recorded model, and the test that proves it.

use std::io::stdout;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use tch_parity::{Case, Port, ProgramReplay, Proof};

use super::exit::Outcome;
use super::output::print;

/// Write the Rust port of a model, and the test that proves it
///
/// The source is written from the program that torch.export made of the model, which a recorded case holds. The new
/// folder is a crate of its own: `cargo test` in it takes the recorded steps and compares every result.
#[derive(Args)]
#[command(after_help = "Examples:
  tch-parity port case.safetensors --output my-model
  tch-parity port model.pt2 --output my-model
  tch-parity port case.safetensors --single-file")]
pub(super) struct Arguments {
    /// The recorded case, or the file that torch.export.save wrote
    file: PathBuf,
    /// The folder to write, which must not exist
    #[arg(long, value_name = "FOLDER", required_unless_present = "single_file")]
    output: Option<PathBuf>,
    /// Print the model alone, as one file
    #[arg(long, conflicts_with = "output")]
    single_file: bool,
}

pub(super) fn run(arguments: Arguments) -> Result<Outcome> {
    let Arguments { file, output, .. } = arguments;
    let shown = file.display().to_string();
    let (port, proof) = read(&file)?;
    match output {
        None => print(&mut stdout(), format_args!("{}", port.single_file().context(shown)?))?,
        Some(folder) => port.write_crate(&folder, &proof)?,
    }
    Ok(Outcome::Done)
}

/// Reads the port of a case or of a program, and what it is proved by.
fn read(file: &Path) -> Result<(Port, Proof)> {
    if file.extension().is_some_and(|extension| extension == "pt2") {
        return Ok((Port::load(file)?, Proof::Program(file.to_owned())));
    }
    let case = Case::load(file)?;
    ProgramReplay::new(case)
        .and_then(|replay| replay.port(file))
        .with_context(|| file.display().to_string())
}

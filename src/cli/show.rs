//! `tch-parity show`: prints the tensors of a file.

use std::io::{self, BufWriter, Write};
use std::path::PathBuf;

use anyhow::{Result, ensure};
use clap::Args;
use tch_parity::report::one_line;
use tch_parity::{Digest, Trace, repr_view};

use super::exit::{Outcome, complain, message};
use super::output::{print, unless_closed};

/// Print tensors of a file, each as its name, a tab and Python's repr
///
/// The file is a safetensors file, a PyTorch checkpoint (.pt), NumPy's .npz or .npy, or the index of a checkpoint in
/// several files, or the folder that it is in. A tensor that is the storage of another one is not printed twice,
/// unless it is named.
#[derive(Args)]
#[command(after_help = "Examples:
  tch-parity show model.safetensors
  tch-parity show run.safetensors grad/fc1.weight step/20/L
  tch-parity show checkpoint.pt fc1.weight")]
pub(super) struct Arguments {
    /// The file, or a folder that holds a checkpoint
    file: PathBuf,
    /// The tensors to print [default: all, in the order that the file records, else by name]
    names: Vec<String>,
}

pub(super) fn run(Arguments { file, names }: Arguments) -> Result<Outcome> {
    let trace = Trace::load(&file)?;
    for name in &names {
        ensure!(trace.contains(name), "{} holds no tensor {name:?}", file.display());
    }
    let all = names.is_empty();
    let names = if all {
        trace.names().collect()
    } else {
        names.iter().map(String::as_str).collect::<Vec<_>>()
    };
    let mut out = BufWriter::new(io::stdout().lock());
    let mut outcome = Outcome::Done;
    for name in names {
        if let Some(first) = trace.tied_to(name).filter(|_| all) {
            let (name, first) = (one_line(name), one_line(first));
            print(&mut out, format_args!("{name}\tis the storage of {first}\n"))?;
            continue;
        }
        // Of a tensor that is checked above to be there.
        let text = match trace.get(name) {
            Some(view) => repr_view(&view),
            None => Ok(trace.digest(name).map(|digest| shown(&digest)).unwrap_or_default()),
        };
        match text {
            Ok(text) => print(&mut out, format_args!("{}\t{text}\n", one_line(name)))?,
            // A tensor that cannot be printed does not hide the others.
            Err(err) => {
                let err = err.context(name.to_owned()).context(file.display().to_string());
                complain(&format!("error: {}", message(&err)));
                outcome = Outcome::CouldNotRun;
            }
        }
    }
    unless_closed(out.flush())?;
    Ok(outcome)
}

/// Returns a digest as Python would print an object of it.
fn shown(digest: &Digest) -> String {
    let Digest { dtype, shape, sha256, .. } = digest;
    let summary = digest.to_string();
    let summary = if summary.is_empty() { summary } else { format!(": {summary}") };
    format!("digest({dtype}, {shape:?}, sha256 {sha256}{summary})")
}

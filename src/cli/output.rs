//! The outputs of a command: stdout, stderr, and files that never overwrite an input.

use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::{fmt, fs};

use anyhow::{Context, Result, ensure};
use tch_parity::AtomicFile;

/// The name that stands for stdout wherever a command takes a file to write.
pub(super) const STDOUT: &str = "-";

/// A file to write, or stdout.
pub(super) enum Output {
    Stdout(BufWriter<io::Stdout>),
    File(AtomicFile),
}

impl Output {
    pub(super) fn create(path: &Path) -> Result<Output> {
        Ok(match is_stdout(path) {
            true => Output::Stdout(BufWriter::new(io::stdout())),
            false => Output::File(AtomicFile::create(path)?),
        })
    }

    /// Completes what was written.
    pub(super) fn persist(self) -> Result<()> {
        match self {
            Output::Stdout(mut out) => unless_closed(out.flush()),
            Output::File(file) => file.persist(),
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Output::Stdout(out) => out.write(bytes),
            Output::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Output::Stdout(out) => out.flush(),
            Output::File(file) => file.flush(),
        }
    }
}

/// Returns the output for the text that people read: stdout, or stderr if one of `outputs` is stdout.
pub(super) fn text_beside(outputs: &[&Path]) -> Box<dyn Write> {
    match outputs.iter().any(|path| is_stdout(path)) {
        true => Box::new(BufWriter::new(io::stderr())),
        false => Box::new(BufWriter::new(io::stdout())),
    }
}

fn is_stdout(path: &Path) -> bool {
    path == Path::new(STDOUT)
}

pub(super) fn print(out: &mut impl Write, text: fmt::Arguments) -> Result<()> {
    unless_closed(out.write_fmt(text))
}

/// Ignores the error of a closed pipe. A reader that stops early changes neither the verdict nor the reports.
pub(super) fn unless_closed(written: io::Result<()>) -> Result<()> {
    match written {
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("stdout"),
    }
}

/// Checks that no output overwrites an input, a safetensors file or another output.
pub(super) fn ensure_apart(inputs: &[&Path], outputs: &[&Path]) -> Result<()> {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let inputs = inputs.iter().map(|path| real(path)).collect::<Vec<_>>();
    let mut taken = Vec::new();
    for &output in outputs {
        let shown = output.display();
        let real = real(output);
        ensure!(!taken.contains(&real), "cannot write {shown}: two outputs go there");
        let is_case = real.extension().is_some_and(|extension| extension == "safetensors");
        ensure!(
            is_stdout(output) || !is_case && !inputs.contains(&real),
            "cannot write {shown}: refusing to overwrite {} file",
            if inputs.contains(&real) { "an input" } else { "a safetensors" }
        );
        taken.push(real);
    }
    Ok(())
}

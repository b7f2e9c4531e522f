//! The outputs of a command: stdout, stderr, and files that never overwrite an input.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::{fmt, fs};

use anyhow::{Context, Result, ensure};
use rustix::fs::OFlags;
use tch_parity::AtomicFile;

/// The name that stands for stdout wherever a command takes a file to write.
pub(super) const STDOUT: &str = "-";

/// A file to write, or stdout.
pub(super) struct Output {
    name: String,
    to: To,
}

enum To {
    Stdout(BufWriter<io::Stdout>),
    File(AtomicFile),
}

impl Output {
    pub(super) fn create(path: &Path) -> Result<Output> {
        let to = match is_stdout(path) {
            true => To::Stdout(BufWriter::new(io::stdout())),
            false => To::File(AtomicFile::create(path)?),
        };
        let name = match is_stdout(path) {
            true => "stdout".to_owned(),
            false => path.display().to_string(),
        };
        Ok(Output { name, to })
    }

    /// Writes with `contents`, whose error then names the file.
    pub(super) fn write(
        &mut self,
        contents: impl FnOnce(&mut dyn Write) -> Result<()>,
    ) -> Result<()> {
        let written = match &mut self.to {
            To::Stdout(out) => contents(out),
            To::File(file) => contents(file),
        };
        match written {
            Err(err) if err.downcast_ref().is_some_and(is_closed) => Ok(()),
            written => written.with_context(|| format!("cannot write {}", self.name)),
        }
    }

    /// Completes what was written.
    pub(super) fn persist(self) -> Result<()> {
        match self.to {
            To::Stdout(mut out) => unless_closed(out.flush()),
            To::File(file) => file.persist(),
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

/// Returns the path without links and dots; of a file that does not exist yet, its folder's and its name.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = fs::canonicalize(folder.unwrap_or(Path::new(".")));
        match (folder, path.file_name()) {
            (Ok(folder), Some(name)) => folder.join(name),
            _ => path.to_owned(),
        }
    })
}

pub(super) fn print(out: &mut impl Write, text: fmt::Arguments) -> Result<()> {
    unless_closed(out.write_fmt(text))
}

/// Ignores the error of a closed pipe. A reader that stops early changes neither the verdict nor the reports.
pub(super) fn unless_closed(written: io::Result<()>) -> Result<()> {
    match written {
        Err(err) if is_closed(&err) => Ok(()),
        written => written.context("stdout"),
    }
}

fn is_closed(err: &io::Error) -> bool {
    err.kind() == io::ErrorKind::BrokenPipe
}

/// Whether stdout was open when the process began. Before `main`, Rust opens /dev/null in the place of one that
/// was closed.
#[ctor::ctor(unsafe)]
#[allow(unsafe_code)] // what the attribute makes of it: a look at a number, which needs nothing of Rust's runtime
static STDOUT_WAS_OPEN: bool = rustix::io::fcntl_getfd(rustix::stdio::stdout()).is_ok();

/// Checks that what is written to stdout goes somewhere: Rust's own stdout takes whatever is written to one that
/// was closed, or that can only be read.
pub(super) fn ensure_stdout() -> Result<()> {
    ensure!(*STDOUT_WAS_OPEN, "stdout is closed: send it to a file, or to /dev/null");
    let flags = rustix::fs::fcntl_getfl(io::stdout()).context("stdout")? & OFlags::ACCMODE;
    ensure!(flags != OFlags::RDONLY, "stdout cannot be written to: it is open for reading alone");
    Ok(())
}

/// Checks that a file to write does not take the place of an input.
pub(super) fn ensure_no_input(inputs: &[&Path], output: &Path) -> Result<()> {
    let is_input = !is_stdout(output) && inputs.iter().any(|path| real(path) == real(output));
    ensure!(!is_input, "cannot write {}: refusing to overwrite an input file", output.display());
    Ok(())
}

/// Checks that no report takes the place of an input, of another output, or of a case.
pub(super) fn ensure_apart(inputs: &[&Path], outputs: &[&Path]) -> Result<()> {
    let mut taken = Vec::new();
    for &output in outputs {
        let shown = output.display();
        let real = if is_stdout(output) { output.to_owned() } else { real(output) };
        ensure!(!taken.contains(&real), "cannot write {shown}: two outputs go there");
        let is_case = real.extension().is_some_and(|extension| extension == "safetensors");
        ensure_no_input(inputs, output)?;
        ensure!(
            is_stdout(output) || !is_case,
            "cannot write {shown}: refusing to overwrite a safetensors file"
        );
        taken.push(real);
    }
    Ok(())
}

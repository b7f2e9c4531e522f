//! How a comparison ends: what is printed, the reports that CI reads, and the exit code.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::{env, fmt, fs};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use tch_parity::report::{self, NotCompared, Report};
use tch_parity::{Required, write_whole};

/// What the exit code says.
pub(crate) enum Outcome {
    Done,
    Differs,
    CouldNotRun,
}

#[derive(Args)]
pub(crate) struct ReportOptions {
    /// What is required; `auto`: bitwise where the environments promise it, else close
    #[arg(long, value_enum, default_value_t = CriterionArg::Auto)]
    pub(crate) criterion: CriterionArg,
    /// Write the reports as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the reports as JUnit XML to this file, a test case per tensor
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(crate) enum CriterionArg {
    Auto,
    Bitwise,
    Close,
}

impl From<CriterionArg> for Required {
    fn from(arg: CriterionArg) -> Required {
        match arg {
            CriterionArg::Auto => Required::Auto,
            CriterionArg::Bitwise => Required::Bitwise,
            CriterionArg::Close => Required::Close,
        }
    }
}

/// What was found, in the order of the cases.
#[derive(Default)]
pub(crate) struct Checked {
    pub(crate) reports: Vec<Report>,
    pub(crate) errors: Vec<NotCompared>,
}

/// Why `file` was not compared.
pub(crate) fn not_compared(file: &Path, err: &anyhow::Error) -> NotCompared {
    NotCompared { file: file.display().to_string(), message: crate::message(err) }
}

pub(crate) fn print(out: &mut impl Write, text: fmt::Arguments) -> Result<()> {
    unless_closed(out.write_fmt(text))
}

/// A reader that has seen enough changes neither the verdict nor the reports.
pub(crate) fn unless_closed(written: io::Result<()>) -> Result<()> {
    match written {
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("stdout"),
    }
}

impl ReportOptions {
    /// The files to be written.
    pub(crate) fn reports(&self) -> Vec<&Path> {
        [&self.json, &self.junit].into_iter().flatten().map(PathBuf::as_path).collect()
    }
}

/// What is written must not take the place of what is read, nor of each other.
pub(crate) fn ensure_apart(inputs: &[&Path], outputs: &[&Path]) -> Result<()> {
    let real = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut taken = inputs.iter().map(|path| real(path)).collect::<Vec<_>>();
    for output in outputs {
        let output = real(output);
        let is_case = output.extension().is_some_and(|extension| extension == "safetensors");
        ensure!(
            !is_case && !taken.contains(&output),
            "cannot write {}: it is no place for what is written, but for what is read",
            output.display()
        );
        taken.push(output);
    }
    Ok(())
}

/// First what CI reads, so that nothing that goes wrong with stdout leaves the reports of another run
/// there; then `text`, and the outcome.
pub(crate) fn conclude(
    checked: &Checked,
    text: &str,
    options: &ReportOptions,
    out: &mut impl Write,
) -> Result<Outcome> {
    let Checked { reports, errors } = checked;
    for error in errors {
        crate::complain(&format!("error: {}", error.message));
    }
    let save = |file: &PathBuf, text: Result<String>| {
        let text = text?;
        write_whole(file, |file| file.write_all(text.as_bytes()))
    };
    let json = options.json.as_ref().map(|file| save(file, report::json(reports, errors)));
    let junit = options.junit.as_ref().map(|file| save(file, Ok(report::junit(reports, errors))));
    let unwritten = [json, junit].into_iter().flatten().filter_map(Result::err);
    let unwritten = unwritten.collect::<Vec<_>>();
    for err in &unwritten {
        crate::complain(&format!("error: {}", crate::message(err)));
    }

    print(out, format_args!("{text}"))?;
    if env::var_os("GITHUB_ACTIONS").is_some() {
        let errors = errors.iter().map(NotCompared::annotation);
        for annotation in reports.iter().filter_map(Report::annotation).chain(errors) {
            print(out, format_args!("{annotation}\n"))?;
        }
    }
    let same = reports.iter().all(|report| report.comparison.passes());
    Ok(match (errors.is_empty() && unwritten.is_empty(), same) {
        (false, _) => Outcome::CouldNotRun,
        (true, false) => Outcome::Differs,
        (true, true) => Outcome::Done,
    })
}

//! The command line: what the arguments mean, and what each command does.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::{env, fmt};

use anyhow::{Context, Result, ensure};
use clap::{Args, Parser, Subcommand, ValueEnum};
use tch_parity::notebook::{self, Notebook};
use tch_parity::report::{self, Report};
use tch_parity::selftest::selftest;
use tch_parity::{Case, Criterion, Environment, Numerics, Trace, compare, dataflow, repr};

use crate::check::{self, Checked};

/// A recording of more steps would outgrow the header that safetensors allows (100 MB).
const MAX_STEPS: i64 = 100_000;

/// PyTorch's notebook on backpropagation, on libtorch, to the bit.
///
/// Exit codes: 0 done, or the same; 1 differs; 2 could not run.
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
        /// Write every tensor of the run to this safetensors file, a case for `check`
        #[arg(long, value_name = "FILE")]
        record: Option<PathBuf>,
        /// Compute with the same bits on every machine, or with what is fastest on this one
        #[arg(long, value_enum, default_value_t = NumericsArg::Portable)]
        numerics: NumericsArg,
    },
    /// Print tensors of a safetensors file, each as its name, a tab and Python's repr
    Show {
        /// The safetensors file
        file: PathBuf,
        /// The tensors to print [default: all, in the order that the file records, else by name]
        names: Vec<String>,
    },
    /// Replay recorded runs from their inputs and compare every other tensor
    Check {
        /// Case files, or folders of them
        #[arg(value_name = "CASE", required = true)]
        cases: Vec<PathBuf>,
        /// How to compute [default: as the cases were recorded]
        #[arg(long, value_enum)]
        numerics: Option<NumericsArg>,
        /// Print the whole table of every case, not only of those that differ
        #[arg(long)]
        verbose: bool,
        #[command(flatten)]
        options: ReportOptions,
    },
    /// Compare two safetensors files without running anything
    Compare {
        /// What is to be judged
        actual: PathBuf,
        /// What it is judged by
        expected: PathBuf,
        #[command(flatten)]
        options: ReportOptions,
    },
    /// Damage a replay in every tensor, one thing at a time, and see whether `check` would notice
    Selftest {
        /// A case file
        case: PathBuf,
    },
}

#[derive(Args)]
struct ReportOptions {
    /// What is required; `auto`: bitwise where the environments promise it, else close
    #[arg(long, value_enum, default_value_t = CriterionArg::Auto)]
    criterion: CriterionArg,
    /// Write the reports as JSON to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the reports as JUnit XML to this file, a test case per tensor
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum CriterionArg {
    Auto,
    Bitwise,
    Close,
}

impl CriterionArg {
    fn given(self) -> Option<Criterion> {
        match self {
            CriterionArg::Auto => None,
            CriterionArg::Bitwise => Some(Criterion::Bitwise),
            CriterionArg::Close => Some(Criterion::Close),
        }
    }
}

#[derive(Clone, Copy, ValueEnum)]
enum NumericsArg {
    Portable,
    Native,
}

impl From<NumericsArg> for Numerics {
    fn from(arg: NumericsArg) -> Numerics {
        match arg {
            NumericsArg::Portable => Numerics::Portable,
            NumericsArg::Native => Numerics::Native,
        }
    }
}

/// What the exit code says.
pub(crate) enum Outcome {
    Done,
    Differs,
    CouldNotRun,
}

impl Cli {
    /// Does what the command line asks for, writing to stdout. To be called while the process has one
    /// thread.
    pub(crate) fn run(self) -> Result<Outcome> {
        let mut out = BufWriter::new(io::stdout().lock());
        let outcome = match self.command {
            Command::Notebook { lr, steps, record, numerics } => {
                notebook(lr, steps, record.as_deref(), numerics.into(), &mut out)
            }
            Command::Show { file, names } => show(&file, names, &mut out),
            Command::Check { cases, numerics, verbose, options } => {
                check(&cases, numerics.map(Numerics::from), verbose, &options, &mut out)
            }
            Command::Compare { actual, expected, options } => {
                compare_files(&actual, &expected, &options, &mut out)
            }
            Command::Selftest { case } => control(&case, &mut out),
        }?;
        unless_closed(out.flush())?;
        Ok(outcome)
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

/// Decides how the process computes, and says where that is.
fn compute_with(numerics: Numerics) -> Result<Environment> {
    // SAFETY: `Cli::run` is called while there is one thread, and nothing before this starts another.
    #[allow(unsafe_code)]
    unsafe {
        numerics.set();
    }
    Environment::current(numerics)
}

fn notebook(
    lr: f64,
    steps: u32,
    record: Option<&Path>,
    numerics: Numerics,
    out: &mut impl Write,
) -> Result<Outcome> {
    let environment = compute_with(numerics)?;
    let mut notebook = Notebook::run(lr, steps)?;
    if let Some(file) = record {
        notebook.trace.describe(&notebook.run, &environment)?;
        notebook.trace.save(file)?;
    }
    notebook.print(out).context("stdout")?;
    Ok(Outcome::Done)
}

fn show(file: &Path, names: Vec<String>, out: &mut impl Write) -> Result<Outcome> {
    let trace = Trace::load(file)?;
    for name in &names {
        ensure!(trace.get(name).is_some(), "{} holds no tensor {name:?}", file.display());
    }
    let names = if names.is_empty() { trace.names().map(str::to_owned).collect() } else { names };
    // All before the first is printed: half an answer is none.
    let mut texts = Vec::new();
    for name in &names {
        let text = trace.tensor(name).and_then(|tensor| repr(&tensor).context(name.clone()));
        texts.push(text.with_context(|| file.display().to_string())?);
    }
    for (name, text) in names.iter().zip(texts) {
        print(out, format_args!("{name}\t{text}\n"))?;
    }
    Ok(Outcome::Done)
}

fn print(out: &mut impl Write, text: fmt::Arguments) -> Result<()> {
    unless_closed(out.write_fmt(text))
}

/// A reader that has seen enough changes neither the verdict nor the reports.
fn unless_closed(written: io::Result<()>) -> Result<()> {
    match written {
        Err(err) if err.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("stdout"),
    }
}

fn check(
    paths: &[PathBuf],
    numerics: Option<Numerics>,
    verbose: bool,
    options: &ReportOptions,
    out: &mut impl Write,
) -> Result<Outcome> {
    let cases = check::load(check::case_files(paths)?);
    let numerics = numerics.map_or_else(|| check::recorded_numerics(&cases), Ok)?;
    let here = compute_with(numerics)?;
    let checked = check::check(&cases, options.criterion.given(), &here);
    let count = checked.reports.len() + checked.errors.len();
    for report in &checked.reports {
        if count == 1 {
            print(out, format_args!("{}", report.text()))?;
        } else if verbose || !report.comparison.passes() {
            print(out, format_args!("{}\n", report.text()))?;
        } else {
            print(out, format_args!("{}\n", report.line()))?;
        }
    }
    if count > 1 {
        let same = checked.reports.iter().filter(|report| report.comparison.passes()).count();
        let (differ, failed) = (checked.reports.len() - same, checked.errors.len());
        print(
            out,
            format_args!(
                "{count} cases: {same} same, {differ} differ, {failed} could not be compared\n"
            ),
        )?;
    }
    finish(&checked, options, out)
}

fn compare_files(
    actual: &Path,
    expected: &Path,
    options: &ReportOptions,
    out: &mut impl Write,
) -> Result<Outcome> {
    let name = format!("{} against {}", actual.display(), expected.display());
    let (actual, expected) = (Trace::load(actual)?, Trace::load(expected)?);
    let environments =
        actual.environment::<Environment>()?.zip(expected.environment::<Environment>()?);
    let (criterion, reason) = match (options.criterion.given(), environments) {
        (Some(criterion), _) => (criterion, "as asked".to_owned()),
        (None, Some((ours, theirs))) => check::required(&ours, &theirs),
        (None, None) => (Criterion::Close, "no record of both environments".to_owned()),
    };
    let comparison = compare(&actual, &expected, criterion);
    ensure!(!comparison.tensors.is_empty(), "{name}: neither holds a tensor");
    let origin = match comparison.passes() {
        true => None,
        // The dataflow of a whole case; of any other file, the order of its tensors.
        false => {
            let dataflow = Case::new(expected).map_or(Vec::new(), |case| dataflow(case.run.steps));
            comparison.origin(&dataflow)
        }
    };
    let report = Report { name, reason, origin, comparison };
    print(out, format_args!("{}", report.text()))?;
    finish(&Checked { reports: vec![report], errors: Vec::new() }, options, out)
}

/// What CI reads, and the outcome.
fn finish(checked: &Checked, options: &ReportOptions, out: &mut impl Write) -> Result<Outcome> {
    let Checked { reports, errors } = checked;
    if env::var_os("GITHUB_ACTIONS").is_some() {
        for annotation in reports.iter().filter_map(Report::annotation) {
            print(out, format_args!("{annotation}\n"))?;
        }
    }
    if let Some(file) = &options.json {
        report::save_json(file, reports, errors)?;
    }
    if let Some(file) = &options.junit {
        report::save_junit(file, reports, errors)?;
    }
    for error in errors {
        let _ = writeln!(io::stderr(), "error: {error}");
    }
    let same = reports.iter().all(|report| report.comparison.passes());
    Ok(match (errors.is_empty(), same) {
        (false, _) => Outcome::CouldNotRun,
        (true, false) => Outcome::Differs,
        (true, true) => Outcome::Done,
    })
}

fn control(file: &Path, out: &mut impl Write) -> Result<Outcome> {
    let case = Case::load(file)?;
    compute_with(case.environment.numerics)?;
    let controls = selftest(&case).with_context(|| file.display().to_string())?;
    print(out, format_args!("{:<22}{:>9}{:>9}\n", "damage", "injected", "caught"))?;
    for control in &controls {
        let caught = control.injected - control.passed.len();
        print(out, format_args!("{:<22}{:>9}{caught:>9}\n", control.damage, control.injected))?;
    }
    for control in &controls {
        for name in &control.passed {
            print(out, format_args!("PASSED: {} in {name}\n", control.damage))?;
        }
    }
    let injected = controls.iter().map(|control| control.injected).sum::<usize>();
    let passed = controls.iter().map(|control| control.passed.len()).sum::<usize>();
    print(out, format_args!("{injected} injected, {} caught\n", injected - passed))?;
    Ok(if passed == 0 { Outcome::Done } else { Outcome::Differs })
}

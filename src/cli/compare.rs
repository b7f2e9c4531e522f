//! `tch-parity compare`: judges one file by another.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Args, ValueEnum};
use tch_parity::report::{Acceptance, Report};
use tch_parity::{Accepted, Environment, Names, Required, Side, Trace, compare_watched};

use super::exit::Outcome;
use super::output::ensure_apart;
use super::progress::bar;
use super::reports::{ReportOptions, Reports, not_compared};
use super::{Computation, computation_of};

/// Compare two files of tensors without running anything
///
/// A file is a safetensors file, a PyTorch checkpoint (.pt), NumPy's .npz or .npy, or the index of a checkpoint in
/// several files, or the folder that it is in.
#[derive(Args)]
#[command(after_help = "Examples:
  tch-parity compare port.safetensors case.safetensors --partial
  tch-parity compare sharded/ checkpoint.pt --criterion close
  tch-parity compare port.safetensors case.safetensors --rename layers.*.norm=blocks.*.ln --json -")]
pub(super) struct Arguments {
    /// The file to be judged
    actual: PathBuf,
    /// The file that it is judged by
    expected: PathBuf,
    /// List the tensors that ACTUAL lacks as not compared, instead of as different; with =expected those that
    /// EXPECTED lacks, with =both those that either lacks
    #[arg(long, value_name = "SIDE", num_args = 0..=1, require_equals = true, default_missing_value = "actual")]
    partial: Option<Partial>,
    /// Rename EXPECTED's modules to ACTUAL's names, such as layers.*.norm=blocks.*.ln; the first rule that
    /// matches a name applies
    #[arg(long, value_name = "EXPECTED=ACTUAL")]
    rename: Vec<String>,
    /// Accept differences of these tensors up to a tolerance, under every criterion
    #[arg(long, value_name = "PATTERN=rtol:R,atol:A,scaled:S,reason:TEXT")]
    tolerance: Vec<String>,
    /// Accept any difference of these tensors, and that one side lacks them
    #[arg(long, value_name = "PATTERN=REASON")]
    ignore: Vec<String>,
    /// Accept what this TOML file says, in [[tolerance]] and [[ignore]] tables
    #[arg(long, value_name = "FILE")]
    tolerances: Option<PathBuf>,
    #[command(flatten)]
    options: ReportOptions,
}

/// The side that may lack tensors.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Partial {
    Actual,
    Expected,
    Both,
}

impl Arguments {
    fn accepted(&self) -> Result<Accepted> {
        let mut accepted = Accepted::default();
        if let Some(file) = &self.tolerances {
            let text = read(file).with_context(|| format!("cannot read {}", file.display()))?;
            accepted = accepted.toml(&text).with_context(|| file.display().to_string())?;
        }
        for rule in &self.tolerance {
            accepted = accepted.tolerance(rule).context("--tolerance")?;
        }
        for rule in &self.ignore {
            accepted = accepted.ignore(rule).context("--ignore")?;
        }
        Ok(accepted)
    }
}

/// The most bytes of a file of tolerances, so that a mistaken name does not fill the memory.
const MAX_TOLERANCES: u64 = 1 << 20;

fn read(tolerances: &Path) -> Result<String> {
    let mut text = Vec::new();
    File::open(tolerances)?.take(MAX_TOLERANCES + 1).read_to_end(&mut text)?;
    ensure!(text.len() as u64 <= MAX_TOLERANCES, "it has more than {MAX_TOLERANCES} bytes");
    String::from_utf8(text).map_err(|err| {
        let before = &err.as_bytes()[..err.utf8_error().valid_up_to()];
        let line = before.iter().filter(|byte| **byte == b'\n').count() + 1;
        anyhow!("line {line}: it is not UTF-8")
    })
}

pub(super) fn run(arguments: Arguments) -> Result<Outcome> {
    let Arguments { actual, expected, options, .. } = &arguments;
    ensure!(
        Required::from(options.criterion) != Required::Accurate,
        "--criterion accurate needs a case with its program, which check replays in float64"
    );
    let names = Names::new(&arguments.rename).context("--rename")?;
    let accepted = arguments.accepted()?;
    let inputs = [Some(actual), Some(expected), arguments.tolerances.as_ref()];
    let inputs = inputs.into_iter().flatten().map(PathBuf::as_path).collect::<Vec<_>>();
    ensure_apart(&inputs, &options.files())?;
    let mut reports = Reports::new(options, false);
    if !reports.can_be_written() {
        return reports.conclude();
    }
    let judged = compared(&arguments, &names, &accepted);
    reports.add(&judged.map_err(|(file, err)| not_compared(file, &err)));
    reports.conclude()
}

/// Returns the report or, after an error, the file that caused it and the error.
fn compared<'a>(
    arguments: &'a Arguments,
    names: &Names,
    accepted: &Accepted,
) -> Result<Report, (&'a Path, anyhow::Error)> {
    let Arguments { actual, expected, options, .. } = arguments;
    let required = Required::from(options.criterion);
    let name = format!("{} against {}", actual.display(), expected.display());
    let load = |file: &'a Path| {
        let trace = Trace::load(file).map_err(|err| (file, err))?;
        let environment = match trace.environment::<Environment>() {
            // Only `auto` uses the environments.
            Err(err) if required == Required::Auto => {
                return Err((file, err.context(file.display().to_string())));
            }
            environment => environment.ok().flatten(),
        };
        Ok((trace, environment))
    };
    let ((ours, here), (theirs, there)) = (load(actual)?, load(expected)?);
    let theirs = theirs.renamed(names).map_err(|err| (&**expected, err))?;
    let (criterion, reason) = required.between(here.as_ref().zip(there.as_ref()));
    let bytes = theirs.iter().map(|(_, view)| view.data().len() as u64).sum();
    let progress = bar(bytes, "{binary_bytes} of {binary_total_bytes}");
    let mut comparison =
        compare_watched(&ours, &theirs, criterion, &mut |bytes| progress.inc(bytes));
    progress.finish_and_clear();
    for (side, other) in [(Side::Actual, Partial::Expected), (Side::Expected, Partial::Actual)] {
        if arguments.partial.is_some_and(|partial| partial != other) {
            comparison.leave_out(side);
        }
    }
    comparison.accept(accepted, &ours, &theirs);
    if options.in_detail() {
        comparison.detail(&ours, &theirs);
    }
    if comparison.tensors.is_empty() {
        let hint = comparison.prefix.map_or(String::new(), |hint| format!("; {hint}"));
        return Err((actual, anyhow!("{name}: there is nothing to compare{hint}")));
    }
    let file = Some(actual.display().to_string());
    let differ = comparison.tensors.iter().filter(|tensor| !tensor.passes);
    let differ = differ.map(|tensor| tensor.name.clone()).collect::<HashSet<_>>();
    let mut operators = BTreeMap::new();
    let dataflow = || {
        let (dataflow, known) = computation(theirs, ours, &|name| differ.contains(name));
        operators = known;
        dataflow
    };
    let mut report = Report::new(name, reason, comparison, dataflow);
    report.operations.extend(operators);
    let acceptance = Acceptance::Option;
    Ok(Report { file, environments: [here, there], acceptance, ..report })
}

/// Returns how the tensors are computed if one of the two is a whole case. Otherwise nothing is known, and the order of
/// the tensors is used instead.
fn computation(theirs: Trace, ours: Trace, wanted: &dyn Fn(&str) -> bool) -> Computation {
    let mut cases = [theirs, ours].into_iter().filter_map(|trace| computation_of(trace, wanted));
    cases.next().unwrap_or_default()
}

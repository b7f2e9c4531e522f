//! The command line: what the arguments mean, and what each command does.

use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use tch::Device;
use tch_parity::notebook::{self, Notebook};
use tch_parity::report::{Report, one_line};
use tch_parity::selftest::selftest;
use tch_parity::worksheet::Worksheet;
use tch_parity::{
    Case, DeviceChoice, Environment, Names, Numerics, Replay, Required, Trace, compare, dataflow,
    open_device, repr, write_whole,
};

use crate::check;
use crate::outcome::{
    Checked, Outcome, ReportOptions, conclude, ensure_apart, not_compared, print, unless_closed,
};

/// A recording of more steps would outgrow the header that safetensors allows (100 MB).
const MAX_STEPS: i64 = 100_000;

const CPU: DeviceChoice = DeviceChoice::This(Device::Cpu);

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
        /// Where to compute: cpu, cuda, cuda:N, mps, or auto, which takes CUDA where it can be used
        #[arg(long, default_value_t = CPU)]
        device: DeviceChoice,
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
        /// Where to compute: cpu, cuda, cuda:N, mps, or auto, which takes CUDA where it can be used
        #[arg(long, default_value_t = CPU)]
        device: DeviceChoice,
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
        /// What ACTUAL does not have is listed as not compared
        #[arg(long)]
        partial: bool,
        /// EXPECTED's module names in ACTUAL, such as layers.*.norm=blocks.*.ln; the first that fits counts
        #[arg(long, value_name = "EXPECTED=ACTUAL")]
        rename: Vec<String>,
        #[command(flatten)]
        options: ReportOptions,
    },
    /// Fill in the notebook's worksheet: of its own run, or of a recorded one
    Worksheet {
        /// A case file of a ThreeLayerNet [default: the notebook's run]
        case: Option<PathBuf>,
        /// For a terminal, for GitHub and Jupyter, for a browser, or the whole notebook to open in Jupyter
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
        /// Write to this file instead of stdout
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Draw the net with its values and gradients, as SVG
    Figure {
        /// A case file of a ThreeLayerNet [default: the notebook's run]
        case: Option<PathBuf>,
        /// Write to this file instead of stdout
        #[arg(long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Damage a replay in every tensor, one thing at a time, and see whether `check` would notice
    Selftest {
        /// A case file
        case: PathBuf,
    },
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

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Text,
    Markdown,
    Html,
    Ipynb,
}

impl Cli {
    /// Does what the command line asks for, writing to stdout. To be called while the process has one
    /// thread.
    pub(crate) fn run(self) -> Result<Outcome> {
        let mut out = BufWriter::new(io::stdout().lock());
        let outcome = match self.command {
            Command::Notebook { lr, steps, record, numerics, device } => {
                notebook(lr, steps, record.as_deref(), numerics.into(), device, &mut out)
            }
            Command::Show { file, names } => show(&file, names, &mut out),
            Command::Check { cases, numerics, device, verbose, options } => {
                let numerics = numerics.map(Numerics::from);
                check(&cases, numerics, device, verbose, &options, &mut out)
            }
            Command::Compare { actual, expected, partial, rename, options } => {
                let names = Names::new(&rename).context("--rename")?;
                compare_files(&actual, &expected, partial, &names, &options, &mut out)
            }
            Command::Worksheet { case, format, output } => {
                let render = match format {
                    Format::Text => Worksheet::text,
                    Format::Markdown => Worksheet::markdown,
                    Format::Html => Worksheet::html,
                    Format::Ipynb => Worksheet::ipynb,
                };
                worksheet(case.as_deref(), render, output.as_deref(), &mut out)
            }
            Command::Figure { case, output } => {
                worksheet(case.as_deref(), Worksheet::figure, output.as_deref(), &mut out)
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

/// Decides how and where the process computes, and says what that is.
fn compute_with(numerics: Numerics, choice: DeviceChoice) -> Result<(Device, Environment)> {
    // SAFETY: `Cli::run` is called while there is one thread, and nothing before this starts another.
    #[allow(unsafe_code)]
    unsafe {
        numerics.set();
    }
    let device = match choice {
        DeviceChoice::This(device) => open_device(device).map(|()| device)?,
        DeviceChoice::Auto => {
            let cuda = Device::Cuda(0);
            let (device, chosen) = match open_device(cuda) {
                Ok(()) => (cuda, "cuda:0".to_owned()),
                Err(err) => (Device::Cpu, format!("cpu ({})", crate::message(&err))),
            };
            crate::complain(&format!("device auto: {chosen}"));
            device
        }
    };
    Ok((device, Environment::current(numerics, device)?))
}

fn notebook(
    lr: f64,
    steps: u32,
    record: Option<&Path>,
    numerics: Numerics,
    device: DeviceChoice,
    out: &mut impl Write,
) -> Result<Outcome> {
    let (device, environment) = compute_with(numerics, device)?;
    let mut notebook = Notebook::run(lr, steps, device)?;
    if let Some(file) = record {
        notebook.trace.describe(&notebook.run, &environment)?;
        notebook.trace.save(file)?;
    }
    let mut text = Vec::new();
    notebook.print(&mut text)?;
    unless_closed(out.write_all(&text))?;
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
        print(out, format_args!("{}\t{text}\n", one_line(name)))?;
    }
    Ok(Outcome::Done)
}

fn check(
    paths: &[PathBuf],
    numerics: Option<Numerics>,
    device: DeviceChoice,
    verbose: bool,
    options: &ReportOptions,
    out: &mut impl Write,
) -> Result<Outcome> {
    ensure_apart(&paths.iter().map(PathBuf::as_path).collect::<Vec<_>>(), &options.reports())?;
    let checked = check::check(paths, numerics, options.criterion.into(), |numerics| {
        compute_with(numerics, device)
    });
    let count = checked.reports.len() + checked.errors.len();
    let mut text = String::new();
    for report in &checked.reports {
        text += &match (count, verbose || !report.comparison.passes()) {
            (1, _) => report.text(),
            (_, true) => report.text() + "\n",
            (_, false) => report.line() + "\n",
        };
    }
    if count > 1 {
        let same = checked.reports.iter().filter(|report| report.comparison.passes()).count();
        let (differ, failed) = (checked.reports.len() - same, checked.errors.len());
        text += &format!(
            "{count} cases: {same} same, {differ} differ, {failed} could not be compared\n"
        );
    }
    conclude(&checked, &text, options, out)
}

fn compare_files(
    actual: &Path,
    expected: &Path,
    partial: bool,
    names: &Names,
    options: &ReportOptions,
    out: &mut impl Write,
) -> Result<Outcome> {
    ensure_apart(&[actual, expected], &options.reports())?;
    let mut checked = Checked::default();
    match compared(actual, expected, partial, names, options.criterion.into()) {
        Ok(report) => checked.reports.push(report),
        Err((file, err)) => checked.errors.push(not_compared(file, &err)),
    }
    let text = checked.reports.iter().map(Report::text).collect::<String>();
    conclude(&checked, &text, options, out)
}

/// The report, or which of the files is at fault, and why.
fn compared<'a>(
    actual: &'a Path,
    expected: &'a Path,
    partial: bool,
    names: &Names,
    required: Required,
) -> Result<Report, (&'a Path, anyhow::Error)> {
    let name = format!("{} against {}", actual.display(), expected.display());
    let load = |file: &'a Path| {
        let trace = Trace::load(file).map_err(|err| (file, err))?;
        let environment = match trace.environment::<Environment>() {
            // Of use to `auto` alone.
            Err(err) if required == Required::Auto => {
                return Err((file, err.context(file.display().to_string())));
            }
            environment => environment.ok().flatten(),
        };
        Ok((trace, environment))
    };
    let ((ours, here), (theirs, there)) = (load(actual)?, load(expected)?);
    let theirs = theirs.renamed(names).map_err(|err| (expected, err))?;
    let (criterion, reason) = required.between(here.as_ref().zip(there.as_ref()));
    let mut comparison = compare(&ours, &theirs, criterion);
    if partial {
        comparison.leave_out_missing();
    }
    if comparison.tensors.is_empty() {
        return Err((actual, anyhow!("{name}: there is nothing to compare")));
    }
    // The dataflow of a whole case; of any other file, the order of its tensors.
    let dataflow = || {
        let mut replays =
            [theirs, ours].into_iter().map(|trace| Case::new(trace).and_then(Replay::new));
        let replay = replays.find_map(Result::ok);
        replay.map_or(Vec::new(), |replay| dataflow(replay.run.steps))
    };
    let file = Some(actual.display().to_string());
    Ok(Report { file, ..Report::new(name, reason, comparison, dataflow) })
}

/// Renders the worksheet of a case, or of the notebook's run.
fn worksheet(
    case: Option<&Path>,
    render: fn(&Worksheet) -> Result<String>,
    output: Option<&Path>,
    out: &mut impl Write,
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
            let mut notebook = Notebook::run(notebook::LR, 1, device)?;
            notebook.trace.describe(&notebook.run, &environment)?;
            ("the notebook's run".to_owned(), Replay::new(Case::new(notebook.trace)?)?)
        }
    };
    let worksheet = Worksheet::new(&title, replay).and_then(|sheet| Ok((render(&sheet)?, sheet)));
    let (text, worksheet) = worksheet.context(title)?;
    match output {
        Some(file) => write_whole(file, |file| file.write_all(text.as_bytes()))?,
        None => unless_closed(out.write_all(text.as_bytes()))?,
    }
    Ok(if worksheet.agrees() { Outcome::Done } else { Outcome::Differs })
}

fn control(file: &Path, out: &mut impl Write) -> Result<Outcome> {
    let recorded = Replay::load(file)?;
    compute_with(recorded.case.environment.numerics, CPU)?;
    let controls = selftest(&recorded).with_context(|| file.display().to_string())?;
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

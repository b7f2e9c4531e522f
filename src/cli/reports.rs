//! The results of comparisons, as text that people read, as files that CI reads, and as the exit code.

use std::env;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::{Args, ValueEnum};
use tch_parity::Required;
use tch_parity::report::{Format, Html, JUnit, Json, NotCompared, Report, Stopped};

use super::exit::{Outcome, complain, message};
use super::output::{Output, print, text_beside, unless_closed};

#[derive(Args)]
pub(super) struct ReportOptions {
    /// What is required; `auto` is bitwise where the environments promise the same bits, else close
    #[arg(long, value_enum, default_value_t = CriterionArg::Auto)]
    pub(super) criterion: CriterionArg,
    /// Print a row for every tensor, not only for those that differ
    #[arg(long)]
    verbose: bool,
    /// Write the reports as JSON to this file, or to stdout if it is -
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write the reports as JUnit XML to this file, or to stdout if it is -; a test case is a tensor
    #[arg(long, value_name = "FILE")]
    junit: Option<PathBuf>,
    /// Write the reports as one HTML page to this file, or to stdout if it is -
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
pub(super) enum CriterionArg {
    Auto,
    Bitwise,
    Close,
    Accurate,
}

impl From<CriterionArg> for Required {
    fn from(arg: CriterionArg) -> Required {
        match arg {
            CriterionArg::Auto => Required::Auto,
            CriterionArg::Bitwise => Required::Bitwise,
            CriterionArg::Close => Required::Close,
            CriterionArg::Accurate => Required::Accurate,
        }
    }
}

impl ReportOptions {
    /// Returns the report files that are to be written.
    pub(super) fn files(&self) -> Vec<&Path> {
        [&self.json, &self.junit, &self.html].into_iter().flatten().map(PathBuf::as_path).collect()
    }

    /// Returns whether a report shows more of a comparison than its verdict, which takes another look at the values.
    pub(super) fn in_detail(&self) -> bool {
        self.html.is_some()
    }
}

/// The report of one comparison, or why there is none.
pub(super) type Judged = Result<Report, NotCompared>;

/// Returns the record of a file that was not compared, with the reason.
pub(super) fn not_compared(file: &Path, err: &anyhow::Error) -> NotCompared {
    NotCompared { file: file.display().to_string(), message: message(err) }
}

/// A collector that takes results one by one, in order, and keeps no more than the text of each.
pub(super) struct Reports<'a> {
    options: &'a ReportOptions,
    /// Whether there are several results, which are counted at the end. Then an empty line follows each long one.
    several: bool,
    files: Vec<ReportFile>,
    text: String,
    /// The lines that are written to stderr at the end, when no progress bar is shown any more.
    complaints: Vec<String>,
    annotations: Vec<String>,
    same: usize,
    differ: usize,
    failed: usize,
    unwritten: bool,
    /// What is said if not every case was checked, and whether Ctrl-C is the reason.
    pub(super) stopped: Option<Stopped>,
    pub(super) interrupted: bool,
}

struct ReportFile {
    format: Box<dyn Format>,
    /// The file itself; `None` after an error.
    output: Option<Output>,
}

impl<'a> Reports<'a> {
    pub(super) fn new(options: &'a ReportOptions, several: bool) -> Reports<'a> {
        let mut reports = Reports {
            options,
            several,
            files: Vec::new(),
            text: String::new(),
            complaints: Vec::new(),
            annotations: Vec::new(),
            same: 0,
            differ: 0,
            failed: 0,
            unwritten: false,
            stopped: None,
            interrupted: false,
        };
        let formats: [(_, Box<dyn Format>); 3] = [
            (&options.json, Box::new(Json::default())),
            (&options.junit, Box::new(JUnit::default())),
            (&options.html, Box::new(Html::default())),
        ];
        let mut refused = Vec::new();
        for (path, format) in formats {
            if let Some(path) = path {
                let output = Output::create(path).map_err(|err| refused.push((path, err))).ok();
                reports.files.push(ReportFile { format, output });
            }
        }
        // The others say why they hold nothing, in the place of what an earlier run has written there.
        for (path, err) in refused {
            let mut error = not_compared(path, &err);
            error.message += ": nothing was compared; name a file that can be written";
            reports.add(&Err(error));
            reports.unwritten = true;
            reports.several = false;
        }
        reports
    }

    /// Returns whether every report file can be written, as far as is known before there is anything to write. If not,
    /// comparing would be of no use.
    pub(super) fn can_be_written(&self) -> bool {
        !self.unwritten
    }

    pub(super) fn add(&mut self, judged: &Judged) {
        match judged {
            Ok(report) => {
                let passes = report.comparison.passes();
                *(if passes { &mut self.same } else { &mut self.differ }) += 1;
                self.text +=
                    &if self.options.verbose { report.verbose_text() } else { report.text() };
                if self.several && (self.options.verbose || !passes) {
                    self.text.push('\n');
                }
                self.annotations.extend(report.annotation());
            }
            Err(error) => {
                self.failed += 1;
                self.complaints.push(format!("error: {}", error.message));
                self.annotations.push(error.annotation());
            }
        }
        self.write(|format, output| match judged {
            Ok(report) => format.report(output, report),
            Err(error) => format.not_compared(output, error),
        });
    }

    /// Says that not every case was checked. Where Ctrl-C is the reason, that is an error.
    fn say_stopped(&mut self, stopped: &Stopped) {
        if self.interrupted {
            self.complaints.push(format!("error: {}", stopped.line()));
        }
        self.text += &format!("{}\n", stopped.line());
        self.annotations.push(stopped.annotation());
        self.write(|format, output| format.stopped(output, stopped));
    }

    fn write(&mut self, write: impl Fn(&mut dyn Format, &mut dyn Write) -> Result<()>) {
        let mut errors = Vec::new();
        for file in &mut self.files {
            if let Some(output) = &mut file.output
                && let Err(err) = output.write(|out| write(&mut *file.format, out))
            {
                file.output = None;
                errors.push(err);
            }
        }
        for err in errors {
            self.could_not_write(&err);
        }
    }

    fn could_not_write(&mut self, err: &anyhow::Error) {
        self.unwritten = true;
        self.complaints.push(format!("error: {}", message(err)));
    }

    /// Completes the report files, then writes the text, and returns the outcome.
    ///
    /// The files come first. Otherwise an error of stdout could leave the reports of an earlier run in place.
    pub(super) fn conclude(mut self) -> Result<Outcome> {
        if let Some(stopped) = self.stopped.take() {
            self.say_stopped(&stopped);
        }
        self.write(|format, output| format.finish(output));
        for file in std::mem::take(&mut self.files) {
            if let Some(Err(err)) = file.output.map(Output::persist) {
                self.could_not_write(&err);
            }
        }
        if self.several {
            let Reports { same, differ, failed, .. } = self;
            let count = match same + differ + failed {
                1 => "1 case".to_owned(),
                count => format!("{count} cases"),
            };
            self.text +=
                &format!("{count}: {same} same, {differ} differ, {failed} could not be compared\n");
        }
        self.complaints.iter().for_each(|line| complain(line));
        let mut out = text_beside(&self.options.files());
        print(&mut out, format_args!("{}", self.text))?;
        if env::var_os("GITHUB_ACTIONS").is_some_and(|value| value == "true") {
            for annotation in &self.annotations {
                print(&mut out, format_args!("{annotation}\n"))?;
            }
        }
        unless_closed(out.flush())?;
        Ok(match (self.failed, self.differ) {
            _ if self.unwritten || self.interrupted => Outcome::CouldNotRun,
            (0, 0) => Outcome::Done,
            (0, _) => Outcome::Differs,
            _ => Outcome::CouldNotRun,
        })
    }
}

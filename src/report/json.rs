//! The reports as JSON: `{"reports": […], "errors": […], "passes": bool}`, with a report in each line, and with
//! `stopped` before `passes` if not every case was checked. Since JSON has no infinity, it is written as the string
//! `"Infinity"`.

use std::io::Write;

use anyhow::Result;
use serde::Serialize;

use super::{Format, NotCompared, Report, Stopped};

/// A report, and whether it passes, which its reader would have to work out.
#[derive(Serialize)]
struct WithVerdict<'a> {
    passes: bool,
    #[serde(flatten)]
    report: &'a Report,
}

/// The JSON of all reports.
#[derive(Debug)]
pub struct Json {
    reports: usize,
    errors: Vec<NotCompared>,
    stopped: Option<Stopped>,
    passes: bool,
}

impl Default for Json {
    fn default() -> Json {
        Json { reports: 0, errors: Vec::new(), stopped: None, passes: true }
    }
}

impl Json {
    /// Writes what separates a report, or the end of the list, from what precedes it.
    fn open(&mut self, out: &mut dyn Write) -> Result<()> {
        let start = if self.reports == 0 { "{\n  \"reports\": [" } else { "," };
        Ok(out.write_all(start.as_bytes())?)
    }
}

impl Format for Json {
    fn report(&mut self, out: &mut dyn Write, report: &Report) -> Result<()> {
        self.open(out)?;
        let passes = report.comparison.passes();
        // In one line, since indented, a shape of many dimensions would be ten times as long as in the file.
        let json = serde_json::to_string(&WithVerdict { passes, report })?;
        write!(out, "\n    {json}")?;
        self.reports += 1;
        self.passes &= passes;
        Ok(())
    }

    fn not_compared(&mut self, _: &mut dyn Write, error: &NotCompared) -> Result<()> {
        self.errors.push(error.clone());
        Ok(())
    }

    fn stopped(&mut self, _: &mut dyn Write, stopped: &Stopped) -> Result<()> {
        self.stopped = Some(stopped.clone());
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<()> {
        match self.reports {
            0 => self.open(out)?,
            _ => out.write_all(b"\n  ")?,
        }
        let errors = serde_json::to_string_pretty(&self.errors)?.replace('\n', "\n  ");
        let passes = self.passes && self.errors.is_empty() && self.stopped.is_none();
        write!(out, "],\n  \"errors\": {errors},\n")?;
        if let Some(stopped) = &self.stopped {
            writeln!(out, "  \"stopped\": {},", serde_json::to_string(stopped)?)?;
        }
        Ok(write!(out, "  \"passes\": {passes}\n}}\n")?)
    }
}

//! The reports as one self-contained HTML page, which is readable without JavaScript and loads nothing.

mod axis;
mod cells;
mod drift;
mod environments;
mod lines;
mod map;
mod plot;
mod tensors;

use std::fmt::Write as _;
use std::io::Write;

use anyhow::Result;

use super::xml::escape;
use super::{Format, NotCompared, Report, Stopped, one_line};
use crate::compare::run::shortened;

/// The bytes of a page after which a report is its verdict alone.
const MAX_PAGE: usize = 3 << 20;

/// The largest number of characters of a name or a note: files hold them of any length.
const MAX_TEXT: usize = 300;

/// The page of all reports.
#[derive(Debug, Default)]
pub struct Html {
    written: usize,
    same: usize,
    differ: usize,
    failed: usize,
    stopped: Option<Stopped>,
}

impl Html {
    fn write(&mut self, out: &mut dyn Write, text: &str) -> Result<()> {
        if self.written == 0 {
            let style = include_str!("style.css");
            let head = format!(
                "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
                 <meta name=\"viewport\" content=\"width=device-width\">\n<link rel=\"icon\" href=\"data:,\">\n\
                 <title>tch-parity</title>\n<style>\n{style}</style>\n</head>\n<body>\n"
            );
            out.write_all(head.as_bytes())?;
            self.written += head.len();
        }
        out.write_all(text.as_bytes())?;
        self.written += text.len();
        Ok(())
    }
}

impl Format for Html {
    fn report(&mut self, out: &mut dyn Write, report: &Report) -> Result<()> {
        let passes = report.comparison.passes();
        *(if passes { &mut self.same } else { &mut self.differ }) += 1;
        let section = match self.written > MAX_PAGE {
            true => format!("<section>{}</section>\n", verdict(report)),
            false => section(report),
        };
        self.write(out, &section)
    }

    fn not_compared(&mut self, out: &mut dyn Write, error: &NotCompared) -> Result<()> {
        self.failed += 1;
        let (file, message) = (shown(&error.file), shown(&error.message));
        let section = format!(
            "<section><h2><span class=\"bad\">not compared</span>: {file}</h2><p>{message}</p></section>\n"
        );
        self.write(out, &section)
    }

    fn stopped(&mut self, _: &mut dyn Write, stopped: &Stopped) -> Result<()> {
        self.stopped = Some(stopped.clone());
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<()> {
        let Html { same, differ, failed, stopped, .. } = self;
        let count = *same + *differ + *failed;
        let what = if count == 1 { "comparison" } else { "comparisons" };
        let passes = *differ + *failed == 0 && *same > 0 && stopped.is_none();
        let class = if passes { "good" } else { "bad" };
        let stopped = stopped.as_ref().map_or(String::new(), |stopped| {
            format!("<p class=\"bad\">{}</p>", shown(&stopped.line()))
        });
        let script = include_str!("script.js");
        let text = format!(
            "<footer><h1>tch-parity</h1><p class=\"{class}\">{count} {what}: {same} same, {differ} differ, \
             {failed} could not be compared</p>{stopped}</footer>\n<script>\n{script}</script>\n</body>\n</html>\n"
        );
        self.write(out, &text)
    }
}

fn section(report: &Report) -> String {
    let comparison = &report.comparison;
    let mut text = format!("<section>{}", verdict(report));
    if let Some(origin) = &report.origin {
        let _ = write!(text, "<p><strong>{}.</strong></p>", shown(origin));
    }
    // The first field is what the origin says.
    let notes = comparison.run.iter().skip(1).map(|field| ("run", field));
    let notes = notes.chain(comparison.noted.iter().map(|note| ("noted", note)));
    let notes = notes.chain(comparison.prefix.iter().map(|hint| ("hint", hint)));
    for (kind, note) in notes.take(MAX_NOTES) {
        let _ = write!(text, "<p>{kind}: {}</p>", shown(note));
    }
    text += &environments::table(report);
    text += &map::map(comparison);
    text += &drift::plots(comparison);
    text += &tensors::table(report);
    text += &tensors::details(report);
    text += &left_out(report);
    text + "</section>\n"
}

/// The largest number of notes, and of tensors that were not compared.
const MAX_NOTES: usize = 100;

fn verdict(report: &Report) -> String {
    let line = report.line();
    let (verdict, rest) = line.split_once(": ").unwrap_or((&line, ""));
    let class = if report.comparison.passes() { "good" } else { "bad" };
    // A name and a reason are in the line, each as long as a file has it.
    let rest = escape(&shortened(rest, 4 * MAX_TEXT));
    format!("<h2><span class=\"{class}\">{}</span>: {rest}</h2>", escape(verdict))
}

fn left_out(report: &Report) -> String {
    let left_out = &report.comparison.not_compared;
    if left_out.is_empty() {
        return String::new();
    }
    let mut text =
        format!("<details><summary>{} tensors were not compared</summary><table>", left_out.len());
    for tensor in left_out.iter().take(MAX_NOTES) {
        let (name, why) = (shown(&tensor.name), shown(&tensor.why()));
        let _ = write!(text, "<tr><td>{name}</td><td>{why}</td></tr>");
    }
    text += "</table>";
    if left_out.len() > MAX_NOTES {
        let _ = write!(text, "<p>… and {} more</p>", left_out.len() - MAX_NOTES);
    }
    text + "</details>"
}

/// Returns a text of a file's as one line of the page.
fn shown(text: &str) -> String {
    escape(&shortened(&one_line(text), MAX_TEXT))
}

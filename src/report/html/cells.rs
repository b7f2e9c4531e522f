//! How the map is drawn: its key, the numbers of its steps, and its rows of cells.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::map::{Cell, Row, State};
use super::shown;
use crate::report::text::number;

/// The largest number of rows.
pub(super) const MAX_ROWS: usize = 4000;

/// The number of colours of errors, each of which stands for a power of ten.
const LEVELS: i32 = 10;

/// The width of the outermost names; those of each level within are one narrower.
const NAMES: usize = 20;

/// The widths in pixels of a cell with the space after it, of the space between two steps, and of a digit: those of the
/// style sheet.
const CELL: usize = 10;
const SPACE: usize = 5;
const DIGIT: usize = 7;

pub(super) fn key() -> String {
    let mut text =
        "<p class=\"key\"><span><i class=\"b\"></i> bitwise</span><span>scaled error ".to_owned();
    for level in 0..LEVELS {
        let _ = write!(text, "<i class=\"e{level}\" title=\"{}\"></i>", bound(level));
    }
    text + " 1e-9 to 1</span><span><i class=\"e4 d\"></i> does not pass</span><span><i class=\"u\"></i> differs, size \
            unknown (digests)</span><span><i class=\"m\"></i> missing, or another shape or dtype</span><span>\
            <i class=\"x\"></i> not compared</span></p>"
}

fn bound(level: i32) -> String {
    format!("from 1e{}", level - LEVELS + 1)
}

pub(super) struct Drawing<'a> {
    pub(super) text: String,
    pub(super) rows: usize,
    columns: usize,
    parts: &'a BTreeSet<usize>,
}

impl<'a> Drawing<'a> {
    /// Draws the rows of `columns` columns, and over them the numbers of the steps, if there are some.
    pub(super) fn of(
        top: &Row,
        steps: &[u32],
        columns: usize,
        parts: &'a BTreeSet<usize>,
    ) -> Drawing<'a> {
        let text = numbers(steps, parts.len());
        let mut drawing = Drawing { text, rows: 0, columns, parts };
        top.below.iter().for_each(|(name, row)| drawing.row(name, row, 0));
        drawing
    }

    fn row(&mut self, name: &str, row: &Row, depth: usize) {
        // A module that has one module and no tensor of its own shows the same cells as that one.
        let (mut name, mut row) = (name.to_owned(), row);
        while let (false, 1, Some((below, only))) =
            (row.has_own, row.below.len(), row.below.first())
        {
            name = format!("{name}.{below}");
            row = only;
        }
        self.rows += 1;
        if self.rows > MAX_ROWS {
            return;
        }
        let mut cells = String::new();
        for column in 0..self.columns {
            let last = self.parts.last().copied();
            for part in self.parts {
                let space = if Some(*part) == last { " s" } else { "" };
                let cell = row.cells.get(&(column, *part));
                let _ = write!(cells, "{}", drawn(cell, space));
            }
        }
        let name = shown(&name);
        // The names of inner rows begin further right, and all cells stand below each other.
        let width = NAMES - depth;
        let line =
            format!("<span class=\"row\"><b style=\"width:{width}rem\">{name}</b>{cells}</span>");
        if row.below.is_empty() {
            let _ = write!(self.text, "<div class=\"leaf\">{line}</div>");
            return;
        }
        // What passes is folded, except at the top.
        let differs = row.cells.values().any(|cell| cell.state >= State::Differs);
        let open = if differs || depth == 0 { " open" } else { "" };
        let _ = write!(self.text, "<details{open}><summary>{line}</summary>");
        row.below.iter().for_each(|(name, row)| self.row(name, row, depth + 1));
        self.text += "</details>";
    }
}

/// Writes the number of the first step of a column over it, where there is room: the others are left out.
fn numbers(steps: &[u32], parts: usize) -> String {
    let Some(last) = steps.last() else { return String::new() };
    let width = parts * CELL + SPACE;
    let every = ((last.to_string().len() + 1) * DIGIT).div_ceil(width);
    let numbers = steps.chunks(every).map(|columns| {
        let width = columns.len() * width;
        format!("<u style=\"width:{width}px\">{}</u>", columns[0])
    });
    let numbers = numbers.collect::<String>();
    format!(
        "<div class=\"leaf\"><span class=\"row\"><b style=\"width:{NAMES}rem\">step</b>{numbers}</span></div>"
    )
}

fn drawn(cell: Option<&Cell>, space: &str) -> String {
    let Some(Cell { name, scaled, state }) = cell else {
        return format!("<i class=\"{}\"></i>", space.trim());
    };
    let name = shown(name);
    let level = match scaled.log10() + f64::from(LEVELS - 1) {
        level if level.is_nan() => 0,
        level => level.floor().clamp(0., f64::from(LEVELS - 1)) as i32,
    };
    let (class, says) = match state {
        State::NotCompared => ("x".to_owned(), "not compared".to_owned()),
        State::Bitwise => ("b".to_owned(), "bitwise".to_owned()),
        State::Close => (format!("e{level}"), number(*scaled)),
        State::Differs => (format!("e{level} d"), format!("{} DIFFERS", number(*scaled))),
        State::Unknown => ("u".to_owned(), "the digests differ".to_owned()),
        State::Missing => ("m".to_owned(), "cannot be compared".to_owned()),
    };
    format!("<i class=\"{class}{space}\" title=\"{name}: {says}\"></i>")
}

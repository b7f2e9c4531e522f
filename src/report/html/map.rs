//! The map: where a difference begins, and how it spreads. A row is a module, a column a step.

use std::collections::BTreeSet;
use std::fmt::Write;

use indexmap::IndexMap;

use super::shown;
use crate::compare::{Comparison, TensorComparison, Verdict};
use crate::report::text::number;
use crate::trace::{is_given, split_call, split_step};

/// The largest number of columns, each of which then stands for several steps.
const MAX_COLUMNS: usize = 120;

/// The largest number of rows, and of cells.
const MAX_ROWS: usize = 4000;
const MAX_CELLS: usize = 30_000;

/// The deepest modules that have rows of their own.
const MAX_DEPTH: usize = 8;

/// The parts of a step, in their order: a column of each step has a cell for every part that some tensor is of.
const PARTS: [&str; 4] = ["given", "forward", "backward", "after the step"];

const LEVELS: i32 = 10;

/// The width of the outermost names; those of each level within are one narrower.
const NAMES: usize = 20;

/// The cells of a row by their columns, and the rows below it.
#[derive(Default)]
struct Row<'a> {
    cells: IndexMap<(usize, usize), Cell<'a>>,
    /// Whether some cell is of a tensor of the module itself, and not of one below it.
    has_own: bool,
    below: IndexMap<&'a str, Row<'a>>,
}

/// What a cell says: that of the worst tensor in it.
#[derive(Clone, Copy)]
struct Cell<'a> {
    name: &'a str,
    scaled: f64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, PartialOrd)]
enum State {
    NotCompared,
    Bitwise,
    Close,
    Differs,
    Missing,
}

/// A tensor's place on the map: its step, the part of the step, and the path of its module.
fn place(name: &str) -> (u32, usize, Vec<&str>) {
    let (step, rest) = match split_step(name) {
        Some((step, rest)) => (step.parse().ok(), rest),
        None => (None, name),
    };
    let (part, of) = match rest.split_once('/') {
        Some(("forward", of)) => (1, of),
        Some(("grad" | "taken", of)) => (2, of),
        Some(("state", of)) if step.is_some() => (3, of.rsplit('/').next().unwrap_or(of)),
        Some(("param" | "buffer" | "input" | "state", of)) => (0, of),
        // What follows `step/k/` and no section is the value after the step.
        _ if step.is_some() => (3, rest),
        _ => (0, rest),
    };
    let (module, _) = split_call(of);
    let path = module.split(['.', '/']).take(MAX_DEPTH).collect();
    (step.unwrap_or(1), part, path)
}

pub(super) fn map(comparison: &Comparison) -> String {
    let tensors = comparison.in_order_of_execution();
    let left_out = comparison.not_compared.iter().map(|left_out| {
        let cell = Cell { name: &left_out.name, scaled: 0., state: State::NotCompared };
        (left_out.name.as_str(), cell)
    });
    let cells = tensors.iter().map(|tensor| (tensor.name.as_str(), cell(tensor))).chain(left_out);
    let cells = cells.take(MAX_CELLS).map(|(name, cell)| (place(name), cell)).collect::<Vec<_>>();
    let steps = cells.iter().map(|((step, ..), _)| *step).collect::<BTreeSet<_>>();
    let steps = steps.into_iter().collect::<Vec<_>>();
    let parts = cells.iter().map(|((_, part, _), _)| *part).collect::<BTreeSet<_>>();
    if cells.is_empty() {
        return String::new();
    }
    let share = steps.len().div_ceil(MAX_COLUMNS);
    let mut top = Row::default();
    // The rows are in the order in which the modules run. Parameters stand in the order of their definition.
    let (runs, rest) = cells.iter().partition::<Vec<_>, _>(|((_, part, _), cell)| {
        PARTS[*part] == "forward" || cell.name.starts_with("input/")
    });
    for ((step, part, path), cell) in runs.into_iter().chain(rest) {
        let column = steps.binary_search(step).unwrap_or(0) / share;
        top.add(path, (column, *part), *cell);
    }
    let columns = steps.len().div_ceil(share);
    let mut drawing = Drawing { text: String::new(), columns, parts: &parts, rows: 0 };
    top.below.iter().for_each(|(name, row)| drawing.row(name, row, 0));
    let Drawing { text: rows, rows: count, .. } = drawing;
    let shown_parts = parts.iter().map(|part| PARTS[*part]).collect::<Vec<_>>().join(", ");
    let mut text = "<h3>Map</h3>".to_owned();
    let _ = write!(
        text,
        "<p class=\"dim\">A row a module, in the order of execution. A column a step{}, with a cell each for: \
         {shown_parts}. A cell shows the tensor that differs most.</p>",
        if share > 1 {
            format!(" (each stands for {share} of {})", steps.len())
        } else {
            String::new()
        },
    );
    text += &key();
    let _ = write!(text, "<div class=\"wide\"><div class=\"map\">{rows}</div></div>");
    if count >= MAX_ROWS || cells.len() == MAX_CELLS {
        text += "<p>The map is cut here: there are too many modules or steps to show.</p>";
    }
    text
}

fn key() -> String {
    let mut text =
        "<p class=\"key\"><span><i class=\"b\"></i> bitwise</span><span>scaled error ".to_owned();
    for level in 0..LEVELS {
        let _ = write!(text, "<i class=\"e{level}\" title=\"{}\"></i>", bound(level));
    }
    text + " 1e-9 to 1</span><span><i class=\"e4 d\"></i> does not pass</span><span><i class=\"m\"></i> missing, or \
            another shape or dtype</span><span><i class=\"x\"></i> not compared</span></p>"
}

fn bound(level: i32) -> String {
    format!("from 1e{}", level - LEVELS + 1)
}

fn cell(tensor: &TensorComparison) -> Cell<'_> {
    let state = match tensor.verdict {
        _ if tensor.ignored => State::NotCompared,
        _ if tensor.problem.is_some() => State::Missing,
        Verdict::Bitwise => State::Bitwise,
        _ if tensor.passes => State::Close,
        _ => State::Differs,
    };
    Cell { name: &tensor.name, scaled: tensor.statistics.scaled, state }
}

impl<'a> Row<'a> {
    /// Adds a cell to the row of a path, and to those that it is below.
    fn add(&mut self, path: &[&'a str], at: (usize, usize), cell: Cell<'a>) {
        let Some((first, rest)) = path.split_first() else { return };
        let row = self.below.entry(first).or_default();
        let worst = row.cells.entry(at).or_insert(cell);
        let given = |cell: &Cell| is_given(cell.name);
        if (given(worst), worst.state, worst.scaled) < (given(&cell), cell.state, cell.scaled)
            || (cell.state, cell.scaled) > (worst.state, worst.scaled)
        {
            *worst = cell;
        }
        row.has_own |= rest.is_empty();
        row.add(rest, at, cell);
    }
}

struct Drawing<'a> {
    text: String,
    columns: usize,
    parts: &'a BTreeSet<usize>,
    rows: usize,
}

impl Drawing<'_> {
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
        State::Missing => ("m".to_owned(), "cannot be compared".to_owned()),
    };
    format!("<i class=\"{class}{space}\" title=\"{name}: {says}\"></i>")
}

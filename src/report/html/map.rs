//! The map: where a difference begins, and how it spreads. A row is a module, a column a step.

use std::collections::BTreeSet;
use std::fmt::Write;

use indexmap::IndexMap;

use super::cells::{Drawing, MAX_ROWS, key};
use crate::compare::{Comparison, TensorComparison, Verdict};
use crate::trace::{is_given, split_call, split_step};

/// The largest number of columns, each of which then stands for several steps.
const MAX_COLUMNS: usize = 120;

/// The largest number of tensors that are looked at.
const MAX_CELLS: usize = 30_000;

/// The deepest modules that have rows of their own.
const MAX_DEPTH: usize = 8;

/// The parts of a step, in their order: a column of each step has a cell for every part that some tensor is of.
const PARTS: [&str; 4] = ["given", "forward", "backward", "after the step"];

/// The cells of a row by their columns, and the rows below it.
#[derive(Default)]
pub(super) struct Row<'a> {
    pub(super) cells: IndexMap<(usize, usize), Cell<'a>>,
    /// Whether some cell is of a tensor of the module itself, and not of one below it.
    pub(super) has_own: bool,
    pub(super) below: IndexMap<&'a str, Row<'a>>,
}

/// What a cell says: that of the worst tensor in it.
#[derive(Clone, Copy)]
pub(super) struct Cell<'a> {
    pub(super) name: &'a str,
    pub(super) scaled: f64,
    pub(super) state: State,
}

#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub(super) enum State {
    NotCompared,
    Bitwise,
    Close,
    Differs,
    /// The digests differ, and nothing says how far.
    Unknown,
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
    let firsts = steps.iter().copied().step_by(share).collect::<Vec<_>>();
    let is_case = comparison.tensors.iter().any(|tensor| tensor.name.contains('/'));
    let mut text = "<h3>Map</h3><p class=\"dim\">A row a module".to_owned();
    if is_case {
        let shown_parts = parts.iter().map(|part| PARTS[*part]).collect::<Vec<_>>().join(", ");
        let stands = match share {
            1 => String::new(),
            share => format!(" (each stands for {share} of {})", steps.len()),
        };
        let _ = write!(
            text,
            ", in the order of execution. A column a step{stands}, with a cell each for: {shown_parts}"
        );
    } else {
        text += ", in the order of the file";
    }
    text += ". A cell shows the tensor that differs most.</p>";
    let drawing = Drawing::of(&top, if is_case { &firsts } else { &[] }, firsts.len(), &parts);
    let _ = write!(
        text,
        "{}<div class=\"wide\"><div class=\"map\">{}</div></div>",
        key(),
        drawing.text
    );
    let count = drawing.rows;
    if count >= MAX_ROWS || cells.len() == MAX_CELLS {
        text += "<p>The map is cut here: there are too many modules or steps to show.</p>";
    }
    text
}

fn cell(tensor: &TensorComparison) -> Cell<'_> {
    let state = match tensor.verdict {
        _ if tensor.ignored => State::NotCompared,
        _ if tensor.by_digest => State::Unknown,
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

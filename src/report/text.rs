//! A report for a terminal: the tensors that differ as rows of a table, an explanation of each, the origin, and
//! the verdict.

use std::fmt::Write;

use comfy_table::{ContentArrangement, Table, presets};
use indexmap::{IndexMap, IndexSet};

use super::explanation::explanation;
use super::{Report, one_line};
use crate::compare::run::shortened;
use crate::compare::{
    COMPLEX128, Comparison, Criterion, Distance, MAX_ULP, TensorComparison, Verdict,
};
use crate::repr::float::exponential;
use crate::trace::split_step;

/// The largest number of rows of differing tensors, and of names that were not compared.
const MAX_ROWS: usize = 20;

/// The largest number of differing tensors that are explained below the rows.
const MAX_EXPLANATIONS: usize = 5;

/// The largest number of characters in a cell, so that one long name does not widen every row.
const MAX_CELL: usize = 100;

/// The largest number of characters of a note, which quotes a file.
const MAX_NOTE: usize = 300;

/// The largest number of characters of the names that were not compared for one reason.
const MAX_NAMES: usize = 1000;

/// The largest number of characters of the hint at a prefix, which quotes names.
const MAX_HINT: usize = 1000;

impl Report {
    /// Returns the verdict in one line.
    pub fn line(&self) -> String {
        let Comparison { criterion, run, tensors, not_compared, .. } = &self.comparison;
        let criterion = match criterion {
            Criterion::Bitwise => "bitwise",
            Criterion::Close => "close",
            Criterion::CloseToGpu => "close (to a GPU)",
            Criterion::Accurate => "accurate",
            Criterion::AccurateOnGpu => "accurate (on a GPU)",
        };
        let differ = tensors.iter().filter(|tensor| !tensor.passes).count();
        let mut found = Vec::new();
        if !run.is_empty() {
            found.push("the run".to_owned());
        }
        let tiers = self.tiers();
        let all = match tensors.len() {
            1 => "1 tensor".to_owned(),
            count => format!("{count} tensors"),
        };
        match (differ, &tiers[..]) {
            (0, [(tier, _)]) => found.push(format!("{all} {tier}")),
            (0, _) => found.push(format!("{all}: {}", counts(&tiers))),
            (_, []) => found.push(format!("{differ} of {all} differ")),
            _ => found.push(format!("{differ} of {all} differ, {}", counts(&tiers))),
        }
        if !not_compared.is_empty() {
            found.push(format!("{} not compared", not_compared.len()));
        }
        let verdict = if self.comparison.passes() { "same" } else { "DIFFERS" };
        let (name, reason) = (one_line(&self.name), one_line(&self.reason));
        format!("{verdict}: {name} ({}; {criterion} required: {reason})", found.join(", "))
    }

    /// Counts the tensors that pass in each tier, and leaves out empty tiers.
    fn tiers(&self) -> Vec<(String, usize)> {
        let tiers = [
            ("bitwise".to_owned(), |v| v == Verdict::Bitwise),
            (format!("within {MAX_ULP} ulp"), |v| matches!(v, Verdict::Ulp(_))),
            ("close".to_owned(), |v| v == Verdict::Close),
        ] as [(String, fn(Verdict) -> bool); 3];
        let passing = || {
            self.comparison
                .tensors
                .iter()
                .filter(|tensor| tensor.passes && tensor.accepted.is_none())
        };
        let accepted = self.comparison.tensors.iter().filter(|tensor| tensor.accepted.is_some());
        let accepted = ("accepted".to_owned(), accepted.count());
        let counts = tiers
            .into_iter()
            .map(|(tier, is)| (tier, passing().filter(|tensor| is(tensor.verdict)).count()));
        counts.chain([accepted]).filter(|(_, count)| *count > 0).collect()
    }

    /// Returns the first rows of the tensors that differ, the explanation of the first few, the origin and the
    /// verdict.
    pub fn text(&self) -> String {
        self.render(false)
    }

    /// Returns the same text, but with a row for every tensor and the explanation of every tensor that differs.
    pub fn verbose_text(&self) -> String {
        self.render(true)
    }

    fn render(&self, verbose: bool) -> String {
        let up_to = |most: usize| if verbose { usize::MAX } else { most };
        let Comparison { run, noted, not_compared, unneeded, .. } = &self.comparison;
        let mut text = String::new();
        // In the order of execution, so that what differs first is shown, whatever is cut.
        let ordered = self.comparison.in_order_of_execution();
        let differing = || ordered.iter().copied().filter(|tensor| !tensor.passes);
        if verbose || differing().next().is_some() {
            let shown = ordered.iter().copied().filter(|tensor| verbose || !tensor.passes);
            let _ = writeln!(text, "{}", table(shown.take(up_to(MAX_ROWS))));
            let hidden = differing().count().saturating_sub(up_to(MAX_ROWS));
            if hidden > 0 {
                let _ = writeln!(text, "… and {hidden} more that differ");
            }
        }
        // A tensor that is missing, or has another shape, is explained by its problem: the others come first.
        let (values, problems) = differing().partition::<Vec<_>, _>(|t| t.problem.is_none());
        for tensor in values.into_iter().chain(problems).take(up_to(MAX_EXPLANATIONS)) {
            let why = explanation(tensor, self.acceptance);
            let _ = writeln!(text, "\n{}: {why}", one_line(&tensor.name));
        }
        // One name stands for the same tensor of every step, and one line for all names of a reason.
        let mut reasons = IndexMap::<_, IndexSet<String>>::new();
        for left_out in not_compared {
            let why = left_out.reason.as_ref().map(|_| left_out.why());
            reasons.entry(why).or_default().insert(of_any_step(&left_out.name));
        }
        for (why, names) in reasons.iter().take(up_to(MAX_ROWS)) {
            // A reason holds for every step, the first one included.
            let is_said = |name: &&String| why.is_some() && names.contains(&in_any_step(name));
            let names = names.iter().filter(|name| !is_said(name)).collect::<Vec<_>>();
            let shown = names.iter().take(up_to(MAX_ROWS));
            let mut shown = shown.map(|name| one_line(name)).collect::<Vec<_>>().join(" ");
            let hidden = names.len().saturating_sub(up_to(MAX_ROWS));
            if hidden > 0 {
                let _ = write!(shown, " … and {hidden} more");
            }
            let why = why.as_ref().map_or(String::new(), |why| format!(": {why}"));
            let shown = if verbose { shown } else { shortened(&shown, MAX_NAMES) };
            let line = shown + &one_line(&shortened(&why, MAX_NOTE));
            let _ = writeln!(text, "\nnot compared: {line}");
        }
        let hidden = reasons.len().saturating_sub(up_to(MAX_ROWS));
        if hidden > 0 {
            let _ = writeln!(text, "… and {hidden} more reasons");
        }
        let accepted = ordered.iter().filter_map(|t| Some((&t.name, t.accepted.as_ref()?)));
        for (name, reason) in accepted.clone().take(up_to(MAX_ROWS)) {
            let _ = writeln!(text, "\naccepted: {}: {}", one_line(name), one_line(reason));
        }
        let hidden = accepted.count().saturating_sub(up_to(MAX_ROWS));
        if hidden > 0 {
            let _ = writeln!(text, "… and {hidden} more that are accepted");
        }
        for note in noted.iter().take(up_to(MAX_ROWS)) {
            let _ = writeln!(text, "\nnoted: {}", one_line(&shortened(note, MAX_NOTE)));
        }
        if let Some(prefix) = &self.comparison.prefix {
            let _ = writeln!(text, "\nhint: {}", one_line(&shortened(prefix, MAX_HINT)));
        }
        for rule in unneeded {
            let _ = writeln!(text, "\nno tensor needed {:?}: remove it", one_line(rule));
        }
        for field in run {
            let _ = writeln!(text, "\nrun: {}", one_line(field));
        }
        if let Some(origin) = &self.origin {
            let _ = writeln!(text, "\n{}", one_line(origin));
        }
        let _ = writeln!(text, "{}", self.line());
        text.trim_start().to_owned()
    }
}

/// Returns the name with a `*` in place of the number of the step.
fn of_any_step(name: &str) -> String {
    match split_step(name) {
        Some((_, name)) => in_any_step(name),
        None => name.to_owned(),
    }
}

fn in_any_step(name: &str) -> String {
    format!("step/*/{name}")
}

fn counts(tiers: &[(String, usize)]) -> String {
    tiers.iter().map(|(tier, count)| format!("{count} {tier}")).collect::<Vec<_>>().join(", ")
}

fn table<'a>(tensors: impl Iterator<Item = &'a TensorComparison>) -> String {
    let tensors = tensors.collect::<Vec<_>>();
    let mut header = vec!["name", "shape", "verdict", "max|Δ|", "scaled", "ulp", "unequal"];
    let with_distances = tensors.iter().any(|tensor| tensor.distances.is_some());
    if with_distances {
        header.extend(["rms to float64", "expected's"]);
    }
    let header = header.into_iter().map(str::to_owned).collect::<Vec<_>>();
    let rows = tensors.into_iter().map(|tensor| {
        let distances = tensor.distances.as_ref();
        let of = |distance: Option<Distance>| distance.map_or("-".to_owned(), |d| number(d.rms));
        let cells = [of(distances.map(|d| d.actual)), of(distances.map(|d| d.expected))];
        row(tensor).into_iter().chain(cells.into_iter().filter(|_| with_distances)).collect()
    });
    aligned([header].into_iter().chain(rows), 2)
}

/// Returns rows of cells, which may have several lines, in columns that are `gap` apart.
pub(crate) fn aligned<Row: IntoIterator<Item = String>>(
    rows: impl IntoIterator<Item = Row>,
    gap: u16,
) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, gap));
    }
    table.trim_fmt()
}

fn row(tensor: &TensorComparison) -> [String; 7] {
    let found = &tensor.statistics;
    let [max_abs, scaled, ulp, unequal] = match &tensor.problem {
        Some(problem) => ["-", "-", "-", &cell(problem)].map(str::to_owned),
        None => [
            number(found.max_abs),
            number(found.scaled),
            ulp(tensor, found.max_ulp),
            format!("{} of {}", found.unequal, found.numel),
        ],
    };
    let (name, shape) = (cell(&one_line(&tensor.name)), cell(&format!("{:?}", tensor.shape)));
    [name, shape, verdict(tensor), max_abs, scaled, ulp, unequal]
}

fn cell(text: &str) -> String {
    shortened(text, MAX_CELL)
}

pub(super) fn verdict(tensor: &TensorComparison) -> String {
    match tensor.verdict {
        Verdict::Bitwise => "bitwise".to_owned(),
        Verdict::Ulp(ulp) => format!("{ulp} ulp"),
        Verdict::Close => "close".to_owned(),
        Verdict::Differs => "DIFFERS".to_owned(),
    }
}

/// Writes a distance in ulp, or `-` for a dtype that has no such unit: an integer, or a float of fewer than 8 bits.
pub(super) fn ulp(tensor: &TensorComparison, ulp: u64) -> String {
    let wide = ["F16", "BF16", "F32", "F64", "C64", COMPLEX128];
    match wide.contains(&&*tensor.dtype) || tensor.dtype.starts_with("F8") {
        true => ulp.to_string(),
        false => "-".to_owned(),
    }
}

pub(super) fn number(value: f64) -> String {
    if value == 0. { "0".to_owned() } else { exponential(value, 1) }
}

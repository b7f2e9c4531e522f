//! How two runs drift apart: the loss of both, and the scaled error of the parameters, over the steps.

use std::collections::BTreeMap;

use indexmap::IndexMap;

use super::lines::{Line, lines};
use crate::compare::Comparison;
use crate::compare::run::shortened;
use crate::report::one_line;
use crate::trace::split_step;

/// The largest number of parameters that have a line of their own, those with the largest last error.
const MAX_LINES: usize = 4;

/// The largest number of characters of a name in the key.
const MAX_NAME: usize = 60;

pub(super) fn plots(comparison: &Comparison) -> String {
    let plots = losses(comparison) + &parameters(comparison);
    if plots.is_empty() { plots } else { format!("<h3>Drift</h3>{plots}") }
}

fn losses(comparison: &Comparison) -> String {
    let losses = &comparison.losses;
    let line = |name: &str, of: fn(&crate::compare::StepLoss) -> Option<f64>| Line {
        name: name.to_owned(),
        points: losses.iter().filter_map(|loss| Some((loss.step, of(loss)?))).collect(),
    };
    let both =
        [line("loss, actual", |loss| loss.actual), line("loss, expected", |loss| loss.expected)];
    if losses.len() < 2 {
        return String::new();
    }
    let there = both.into_iter().filter(|line| !line.points.is_empty()).collect::<Vec<_>>();
    lines("The loss over the steps", &there, false)
}

fn parameters(comparison: &Comparison) -> String {
    let mut each = IndexMap::<&str, Vec<(u32, f64)>>::new();
    let mut worst = BTreeMap::<u32, f64>::new();
    for tensor in comparison.tensors.iter().filter(|tensor| tensor.problem.is_none()) {
        let Some((step, name)) = split_step(&tensor.name) else { continue };
        let Ok(step) = step.parse() else { continue };
        if name == "L" || name.contains('/') {
            continue;
        }
        let scaled = tensor.statistics.scaled;
        each.entry(name).or_default().push((step, scaled));
        let most = worst.entry(step).or_default();
        *most = most.max(scaled);
    }
    if worst.len() < 2 || worst.values().all(|scaled| *scaled == 0.) {
        return String::new();
    }
    // A file without an order has step 10 before step 2.
    each.values_mut().for_each(|points| points.sort_by_key(|(step, _)| *step));
    let last = |points: &[(u32, f64)]| points.last().map_or(0., |(_, scaled)| *scaled);
    each.sort_by(|_, a, _, b| last(b).total_cmp(&last(a)));
    let largest =
        Line { name: "the largest of all".to_owned(), points: worst.into_iter().collect() };
    let each = each.into_iter().take(MAX_LINES);
    let each =
        each.map(|(name, points)| Line { name: shortened(&one_line(name), MAX_NAME), points });
    let all = [largest].into_iter().chain(each).collect::<Vec<_>>();
    lines("The scaled error of the parameters over the steps", &all, true)
}

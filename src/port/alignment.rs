//! Which parts of a call in one program are those of the same call in another: its own operators, and the calls in it.

use std::ops::Range;

use super::flat::{Results, Step};

/// An operator of a call, or a call of a module in it, by its steps.
pub(super) struct Part {
    pub(super) steps: Range<usize>,
    pub(super) is_call: bool,
}

/// Splits the steps of a call, which stands at `depth`, into its parts.
pub(super) fn parts(steps: &[Step], range: Range<usize>, depth: usize) -> Vec<Part> {
    let key = |at: usize| steps[at].modules.get(depth + 1).map(|module| &module.key);
    let mut parts = Vec::<Part>::new();
    for at in range {
        match parts.last_mut() {
            Some(part) if part.is_call && key(at).is_some() && key(at) == key(at - 1) => {
                part.steps.end = at + 1;
            }
            _ => parts.push(Part { steps: at..at + 1, is_call: key(at).is_some() }),
        }
    }
    parts
}

/// Finds the longest common sequence of the parts of a call in two programs, as pairs of their places.
pub(super) fn pairs(
    (one, of_one): (&[Step], &[Part]),
    (two, of_two): (&[Step], &[Part]),
    depth: usize,
) -> Vec<(usize, usize)> {
    let same = |a: usize, b: usize| {
        let (a, b) = (&of_one[a], &of_two[b]);
        let (first, second) = (&one[a.steps.start], &two[b.steps.start]);
        match (a.is_call, b.is_call) {
            (true, true) => first.modules[depth + 1].key == second.modules[depth + 1].key,
            (false, false) => are_alike(first, second),
            _ => false,
        }
    };
    let (mut rows, mut columns) = (of_one.len(), of_two.len());
    let (mut a, mut b) = (0, 0);
    let mut pairs = Vec::new();
    while a < rows && b < columns && same(a, b) {
        pairs.push((a, b));
        (a, b) = (a + 1, b + 1);
    }
    let mut last = Vec::new();
    while a < rows && b < columns && same(rows - 1, columns - 1) {
        (rows, columns) = (rows - 1, columns - 1);
        last.push((rows, columns));
    }
    // The lengths of the longest common sequences of what is left between them, from two places on.
    let (first_a, first_b) = (a, b);
    let mut longest = vec![vec![0_usize; columns - b + 1]; rows - a + 1];
    for a in (first_a..rows).rev() {
        for b in (first_b..columns).rev() {
            let (row, column) = (a - first_a, b - first_b);
            longest[row][column] = if same(a, b) {
                longest[row + 1][column + 1] + 1
            } else {
                longest[row + 1][column].max(longest[row][column + 1])
            };
        }
    }
    while a < rows && b < columns {
        let (row, column) = (a - first_a, b - first_b);
        if same(a, b) {
            pairs.push((a, b));
            (a, b) = (a + 1, b + 1);
        } else if longest[row + 1][column] >= longest[row][column + 1] {
            a += 1;
        } else {
            b += 1;
        }
    }
    pairs.extend(last.into_iter().rev());
    pairs
}

/// Returns whether two steps are one operator of one line of their own `forward`.
fn are_alike(one: &Step, two: &Step) -> bool {
    let kinds = match (&one.results, &two.results) {
        (Results::One(_), Results::One(_)) => true,
        (Results::Tuple(a), Results::Tuple(b)) | (Results::List(a), Results::List(b)) => {
            a.len() == b.len()
        }
        _ => false,
    };
    kinds && one.operator == two.operator && one.frames.last() == two.frames.last()
}

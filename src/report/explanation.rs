//! Why a tensor does not pass, in a few lines.

use std::fmt::Write;

use super::text::number;
use super::{Acceptance, one_line};
use crate::compare::{Distances, TensorComparison, shell_word};
use crate::repr::float::exponential;

/// Explains why a tensor does not pass, in the words of torch.testing.assert_close.
pub(super) fn explanation(tensor: &TensorComparison, acceptance: Acceptance) -> String {
    let hint = tensor.hint.as_ref().map_or(String::new(), |hint| format!("\n    But {hint}."));
    if let Some(problem) = &tensor.problem {
        return problem.clone() + &hint;
    }
    let found = &tensor.statistics;
    let percent = 100. * found.unequal as f64 / found.numel.max(1) as f64;
    let mut text =
        format!("Mismatched elements: {} / {} ({percent:.1}%)", found.unequal, found.numel);
    if found.zero_signs == found.unequal {
        text += "\n    The sign of a zero is all that differs.";
    }
    if let Some(worst) = &found.worst {
        let _ = write!(
            text,
            "\n    Greatest absolute difference: {} at index {:?}\
             \n    actual   {} ({})\n    expected {} ({})",
            number(worst.abs),
            worst.index,
            worst.actual.0,
            worst.actual.1,
            worst.expected.0,
            worst.expected.1,
        );
    }
    if let Some(allowance) = &tensor.allowance
        && !allowance.because.is_empty()
    {
        let (max_abs, because) = (number(allowance.max_abs), one_line(&allowance.because));
        let _ = write!(text, "\n    Rounding explains up to {max_abs}: {because}.");
    }
    if let Some(distances) = &tensor.distances {
        let _ = write!(text, "\n    {}.", of_distances(distances));
    }
    let _ = write!(text, "\n    {}", of_acceptance(tensor, acceptance));
    text + &hint
}

/// Says with which tolerance a tensor would pass, in the form in which the reader can give it.
fn of_acceptance(tensor: &TensorComparison, acceptance: Acceptance) -> String {
    let max_abs = tensor.statistics.max_abs;
    if !max_abs.is_finite() {
        return "No tolerance would pass it.".to_owned();
    }
    let atol = tolerance(max_abs);
    let rule = format!("{}=atol:{atol},reason:TEXT", one_line(&tensor.name));
    match acceptance {
        Acceptance::None => format!("It would pass with an absolute tolerance of {atol}."),
        Acceptance::Option => format!("It would pass with --tolerance {}", shell_word(&rule)),
        Acceptance::Rule => format!("It would pass with Accepted::default().tolerance({rule:?})"),
    }
}

/// Says how far both tensors are from the run in float64.
fn of_distances(distances: &Distances) -> String {
    let [actual, expected, one] = [distances.actual, distances.expected, distances.rounding]
        .map(|distance| format!("{} (at most {})", number(distance.rms), number(distance.max)));
    format!(
        "From the run in float64, the actual is {actual} away, the expected {expected}, and one rounding {one}"
    )
}

/// Writes a tolerance, rounded up, so that the printed one suffices.
pub(super) fn tolerance(value: f64) -> String {
    if value == 0. || !value.is_finite() { number(value) } else { exponential(value * 1.001, 3) }
}

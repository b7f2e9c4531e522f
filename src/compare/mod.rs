//! The comparison of two traces, tensor by tensor. Its result is a [`Comparison`], which is plain data.
//!
//! This room knows bytes, shapes, dtypes, tolerances, environments, and the names that a case gives to outputs and
//! gradients. It does not know libtorch, any model, or how a result is shown.

mod accepted;
mod accurate;
mod allowance;
mod complex;
mod criterion;
mod details;
mod digested;
mod element;
mod excused;
mod hint;
mod layout;
mod left_out;
mod number;
mod origin;
mod prefix;
pub(crate) mod run;
mod selftest;
mod shell;
pub(crate) mod statistics;
mod tensor;
mod tied;
mod tolerance;
mod verdict;

use serde::{Deserialize, Serialize};

pub use accepted::Accepted;
pub use accurate::{Distance, Distances};
pub use allowance::Allowance;
pub(crate) use complex::COMPLEX128;
use complex::{Parts, part_of};
pub use criterion::{Criterion, Required};
pub use details::{Details, StepLoss};
use excused::{Reasons, only_lacks, take_without_effect};
pub use layout::Layout;
pub use left_out::{LeftOut, Side};
pub use origin::Edge;
use run::compare_run;
pub use selftest::{Control, selftest};
pub(crate) use shell::shell_word;
pub use statistics::{Statistics, Worst};
pub use tensor::TensorComparison;
use tensor::{compare_parts, compare_tensor, lacked};
pub use tolerance::{Between, ROUNDINGS_BY_HAND, TOLERANCES, Tolerance};
pub use verdict::{MAX_ULP, Verdict};

use crate::trace::{Stored, Trace, is_given, is_instruction, operator_value};

/// The result of comparing two traces.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Comparison {
    /// The criterion that was required.
    pub criterion: Criterion,
    /// The fields in which the two runs differ, in words. It is empty if one of the traces records no run.
    pub run: Vec<String>,
    /// What never decides the verdict, in words: the options of an optimizer that choose between implementations of
    /// the same formula, and tensors that are the storage of another one on both sides.
    pub noted: Vec<String>,
    /// The tensors in the order of the expected trace, then those that only the actual trace has.
    pub tensors: Vec<TensorComparison>,
    /// The tensors that one of the traces lacks, where that does not count as a difference.
    pub not_compared: Vec<LeftOut>,
    /// A prefix of names that only one of the traces has, in words. It is never removed.
    pub prefix: Option<String>,
    /// The rules of [`Comparison::accept`] that no tensor needed.
    pub unneeded: Vec<String>,
    /// The loss of both runs in every step, if [`Comparison::detail`] was asked for it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub losses: Vec<StepLoss>,
}

/// Compares every tensor of two traces, and what was run where both record it.
///
/// Nothing is broadcast, cast or transposed.
pub fn compare(actual: &Trace, expected: &Trace, criterion: Criterion) -> Comparison {
    compare_watched(actual, expected, criterion, &mut |_| ())
}

/// Compares as [`compare`] does. A tensor passes as well if it is as near as PyTorch's own to `truth`, which is the same
/// run in float64, by the formula of [`TOLERANCES`].
pub fn compare_with_truth(
    actual: &Trace,
    expected: &Trace,
    truth: &Trace,
    criterion: Criterion,
) -> Comparison {
    judged(actual, expected, Some(truth), criterion, &mut |_| ())
}

/// Compares as [`compare`] does, and tells `progress` after each expected tensor how many bytes it has.
pub fn compare_watched(
    actual: &Trace,
    expected: &Trace,
    criterion: Criterion,
    progress: &mut dyn FnMut(u64),
) -> Comparison {
    judged(actual, expected, None, criterion, progress)
}

fn judged(
    actual: &Trace,
    expected: &Trace,
    truth: Option<&Trace>,
    criterion: Criterion,
    progress: &mut dyn FnMut(u64),
) -> Comparison {
    let runs = [actual, expected].map(Trace::run_json);
    let (mut run, mut noted) = (Vec::new(), Vec::new());
    if let [Some(actual), Some(expected)] = &runs
        && !only_lacks(actual)
        && !only_lacks(expected)
    {
        let (mut actual, mut expected) = (actual.clone(), expected.clone());
        noted = take_without_effect(&mut actual, &mut expected);
        run = compare_run("", &actual, &expected);
    }
    let (mut tensors, mut not_compared) = (Vec::new(), Vec::new());
    let [ours, theirs] = &runs;
    let actual_reasons = Reasons::of(ours.as_ref(), actual);
    let expected_reasons = Reasons::of(theirs.as_ref(), expected);
    // What operators returned are digests, which few recordings have, and which say nothing of close values.
    let has_operators = |trace: &Trace| trace.names().any(|name| operator_value(name).is_some());
    let of_operators =
        criterion == Criterion::Bitwise && has_operators(actual) && has_operators(expected);
    let of_run =
        |name: &&str| !is_instruction(name) && (of_operators || operator_value(name).is_none());
    for name in expected.names().filter(of_run) {
        let Some(theirs) = expected.stored(name) else { continue };
        noted.extend(tied::untied(name, actual, expected));
        let whole = part_of(name)
            .and_then(|(whole, at)| Some((whole, at, Parts::of_both(whole, actual, expected)?)));
        if let Some(note) = tied::stands_for(name, actual, expected) {
            noted.push(note);
        } else if let Some((whole, part, both)) = whole {
            // The imaginary part is compared with the real one.
            if part == 0 {
                tensors.push(compare_parts(whole, &both, criterion));
            }
        } else if let Some(ours) = actual.stored(name) {
            tensors.push(compare_tensor(name, &ours, &theirs, criterion));
        } else {
            let reason = actual_reasons.of_tensor(name).map(str::to_owned);
            match reason.or_else(|| tied::why_lacked(name, actual, expected)) {
                None => tensors.push(lacked(Side::Actual, name, &theirs, criterion)),
                reason => not_compared.push(LeftOut::new(name, Side::Actual, reason.as_deref())),
            }
        }
        if let Stored::Values(view) = theirs {
            progress(view.data().len() as u64);
        }
    }
    for name in actual.names().filter(of_run).filter(|name| !expected.contains(name)) {
        let Some(ours) = actual.stored(name) else { continue };
        let reason = expected_reasons.of_tensor(name).map(str::to_owned);
        match reason.or_else(|| tied::why_lacked(name, expected, actual)) {
            None => tensors.push(lacked(Side::Expected, name, &ours, criterion)),
            reason => not_compared.push(LeftOut::new(name, Side::Expected, reason.as_deref())),
        }
    }
    if let Some(truth) = truth {
        accurate::judge(&mut tensors, actual, expected, truth);
    }
    allowance::grant(&mut tensors, actual, expected, criterion);
    layout::note(&mut tensors, actual, expected);
    let prefix = prefix::hint(&tensors);
    Comparison {
        criterion,
        run,
        noted,
        tensors,
        not_compared,
        prefix,
        unneeded: Vec::new(),
        losses: Vec::new(),
    }
}

impl Comparison {
    /// Returns whether the same was run and every tensor is as near as was required. A comparison of nothing does
    /// not pass, and neither does one of [what was given](is_given) alone if something was computed.
    pub fn passes(&self) -> bool {
        self.run.is_empty()
            && !self.tensors.is_empty()
            && !self.compares_nothing_computed()
            && self.tensors.iter().all(|tensor| tensor.passes)
    }

    /// Returns whether every tensor that was compared has the same bits.
    pub fn is_bitwise(&self) -> bool {
        self.tensors.iter().all(|tensor| tensor.verdict == Verdict::Bitwise)
    }

    /// Returns whether one of the traces has tensors that were computed, and no values of these were compared.
    pub fn compares_nothing_computed(&self) -> bool {
        let mut computed = self.tensors.iter().filter(|tensor| !is_given(&tensor.name)).peekable();
        let left_out = self.not_compared.iter().any(|left_out| !is_given(&left_out.name));
        let has_proof = |tensor: &TensorComparison| tensor.problem.is_none() && !tensor.ignored;
        (left_out || computed.peek().is_some()) && !computed.any(has_proof)
    }
}

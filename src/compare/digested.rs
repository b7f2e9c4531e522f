//! The comparison of two tensors of which one side has the digest alone.

use super::tensor::{TensorComparison, incomparable};
use super::{Criterion, Statistics, Verdict};
use crate::trace::{Digest, Stored};

/// Compares the digests of two tensors of one shape and dtype.
///
/// The same digest is the same bits. Nothing says how far another one is, so no tolerance can be applied.
pub(super) fn compare_digests(
    name: &str,
    actual: &Stored,
    expected: &Stored,
    criterion: Criterion,
) -> TensorComparison {
    let (ours, theirs) = (actual.digest(), expected.digest());
    if !ours.is_same(&theirs) {
        let problem = problem(&ours, &theirs, criterion, (actual, expected));
        let by_digest = true;
        return TensorComparison { by_digest, ..incomparable(name, expected, criterion, problem) };
    }
    let magnitudes = [theirs.min, theirs.max].into_iter().flatten().map(f64::abs);
    let max_expected = magnitudes.fold(0., f64::max);
    TensorComparison {
        verdict: Verdict::Bitwise,
        passes: true,
        problem: None,
        statistics: Statistics { numel: theirs.numel(), max_expected, ..Statistics::default() },
        ..incomparable(name, expected, criterion, String::new())
    }
}

/// Says how the digests differ, and where it is the values that are needed to judge that.
fn problem(
    ours: &Digest,
    theirs: &Digest,
    criterion: Criterion,
    stored: (&Stored, &Stored),
) -> String {
    let (summary, other) = (ours.to_string(), theirs.to_string());
    let summaries = match summary == other {
        true => format!("both have {summary}"),
        false => format!("{summary} instead of {other}"),
    };
    let differ = format!("its SHA-256 is {}…, not {}…: {summaries}", ours.short(), theirs.short());
    if criterion == Criterion::Bitwise {
        return differ;
    }
    let asked = match criterion {
        Criterion::Accurate | Criterion::AccurateOnGpu => "accurate",
        _ => "close",
    };
    let sides = match stored {
        (Stored::Digest(_), Stored::Digest(_)) => "both sides have",
        (Stored::Digest(_), _) => "the actual side has",
        _ => "the expected side has",
    };
    format!(
        "{differ}; {asked} needs the values, and {sides} the digest alone: record with keep=\"values\""
    )
}

//! The comparison of two tensors of one name.

use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};

use super::complex::{self, COMPLEX128, Parts};
use super::digested::compare_digests;
use super::hint::hint;
use super::statistics::{Statistics, statistics};
use super::verdict::{Verdict, verdict};
use super::{Allowance, Criterion, Details, Distances, Layout, Side, Tolerance};
use crate::trace::Stored;

/// The comparison of the tensors of one name.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TensorComparison {
    /// The name of the tensor.
    pub name: String,
    /// The expected dtype, or the actual one where the tensor is not expected. That of complex128, which a file holds
    /// as two tensors, is `C128`.
    pub dtype: String,
    /// The expected shape, or the actual one where the tensor is not expected.
    pub shape: Vec<usize>,
    /// The verdict, which says how near the actual tensor comes to the expected one.
    pub verdict: Verdict,
    /// Whether the actual tensor is as near as was required, or its difference is accepted.
    pub passes: bool,
    /// The reason of the reader who accepts the difference ([`Comparison::accept`](super::Comparison::accept)).
    pub accepted: Option<String>,
    /// Whether any difference is accepted, so that nothing is required of the tensor.
    pub ignored: bool,
    /// The side that lacks the tensor.
    pub lacking: Option<Side>,
    /// The reason why the values cannot be compared: one side lacks the tensor, or has another shape or dtype.
    pub problem: Option<String>,
    /// Whether the digests of two tensors differ, so that nothing says how far apart their values are.
    #[serde(default)]
    pub by_digest: bool,
    /// A permutation of the dimensions that would bring the tensor near, in words, if there is one. It is never
    /// applied.
    pub hint: Option<String>,
    /// The strides that the two tensors had in memory, if they differ. They decide nothing, but may be the reason.
    pub layout: Option<Layout>,
    /// The tolerance of the dtype; `None` for a dtype whose tensors are either equal or different.
    pub tolerance: Option<Tolerance>,
    /// What rounding may make of the difference, given what the tensor was computed from. It is there for a tensor
    /// of a case that is not close by its own tolerance.
    pub allowance: Option<Allowance>,
    /// How far both tensors are from the same run in float64, where there is one
    /// ([`compare_with_truth`](super::compare_with_truth)).
    pub distances: Option<Distances>,
    /// The statistics of the values.
    pub statistics: Statistics,
    /// How the values differ, if [`Comparison::detail`](super::Comparison::detail) was asked for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Details>,
}

pub(super) fn lacked(
    side: Side,
    name: &str,
    stored: &Stored,
    criterion: Criterion,
) -> TensorComparison {
    let problem = match side {
        Side::Actual => "it is missing: only the expected side has it",
        Side::Expected => "it is not expected: only the actual side has it",
    };
    let lacking = Some(side);
    TensorComparison { lacking, ..incomparable(name, stored, criterion, problem.to_owned()) }
}

pub(super) fn incomparable(
    name: &str,
    stored: &Stored,
    criterion: Criterion,
    problem: String,
) -> TensorComparison {
    TensorComparison {
        name: name.to_owned(),
        dtype: stored.dtype().to_string(),
        shape: stored.shape().to_vec(),
        verdict: Verdict::Differs,
        passes: false,
        accepted: None,
        ignored: false,
        lacking: None,
        problem: Some(problem),
        by_digest: false,
        hint: None,
        layout: None,
        tolerance: criterion.tolerance(stored.dtype()),
        allowance: None,
        distances: None,
        statistics: Statistics::default(),
        details: None,
    }
}

pub(super) fn compare_tensor(
    name: &str,
    actual: &Stored,
    expected: &Stored,
    criterion: Criterion,
) -> TensorComparison {
    if actual.shape() != expected.shape() {
        let problem = format!("its shape is {:?}, not {:?}", actual.shape(), expected.shape());
        let hint = match (actual, expected) {
            (Stored::Values(actual), Stored::Values(expected)) => hint(actual, expected, criterion),
            _ => None,
        };
        return TensorComparison { hint, ..incomparable(name, expected, criterion, problem) };
    }
    if actual.dtype() != expected.dtype() {
        let problem = format!("its dtype is {}, not {}", actual.dtype(), expected.dtype());
        return incomparable(name, expected, criterion, problem);
    }
    let (Stored::Values(actual), Stored::Values(expected)) = (actual, expected) else {
        return compare_digests(name, actual, expected, criterion);
    };
    let tolerance = criterion.tolerance(expected.dtype());
    let statistics = statistics(actual, expected, tolerance);
    let (dtype, shape) = (expected.dtype().to_string(), expected.shape());
    let compared = compared(name, dtype, shape, tolerance, statistics, criterion);
    let differs = compared.verdict == Verdict::Differs;
    let hint = if differs { hint(actual, expected, criterion) } else { None };
    TensorComparison { hint, ..compared }
}

/// Compares two tensors of complex128, which have the tolerance of float64.
pub(super) fn compare_parts(
    name: &str,
    both: &[Parts; 2],
    criterion: Criterion,
) -> TensorComparison {
    let tolerance = criterion.tolerance(Dtype::F64);
    let statistics = complex::statistics(both, tolerance);
    let (dtype, shape) = (COMPLEX128.to_owned(), both[1].shape());
    let compared = compared(name, dtype, shape, tolerance, statistics, criterion);
    let differs = compared.verdict == Verdict::Differs;
    let hint = if differs { complex::hint_of_parts(both, criterion) } else { None };
    TensorComparison { hint, ..compared }
}

fn compared(
    name: &str,
    dtype: String,
    shape: &[usize],
    tolerance: Option<Tolerance>,
    statistics: Statistics,
    criterion: Criterion,
) -> TensorComparison {
    let verdict = verdict(&statistics, tolerance);
    let passes = match criterion {
        Criterion::Bitwise => verdict == Verdict::Bitwise,
        _ => verdict != Verdict::Differs,
    };
    TensorComparison {
        name: name.to_owned(),
        dtype,
        shape: shape.to_vec(),
        verdict,
        passes,
        accepted: None,
        ignored: false,
        lacking: None,
        problem: None,
        by_digest: false,
        hint: None,
        layout: None,
        tolerance,
        allowance: None,
        distances: None,
        statistics,
        details: None,
    }
}

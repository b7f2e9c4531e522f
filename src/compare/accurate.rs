//! How far two runs are from the truth: from the same run in float64, where rounding is negligible.

use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use super::complex::PARTS;
use super::{TensorComparison, Verdict};
use crate::trace::{Trace, floats};

/// How many times further from the truth than the expected run the actual one may be, as the root of the mean square.
const FURTHER: f64 = 2.;

/// The same for the element that is furthest from it, and for the expected run in the place of the actual one. A run
/// that is much further from the truth than rounding brings the other one is a run of something else.
const MUCH_FURTHER: f64 = 8.;

/// How far the elements of a tensor are from the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Distance {
    /// The root of the mean square of the differences.
    #[serde(with = "super::number")]
    pub rms: f64,
    /// The largest difference.
    #[serde(with = "super::number")]
    pub max: f64,
}

/// How far the same tensor of both runs is from the truth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distances {
    /// The distance of the actual tensor.
    pub actual: Distance,
    /// The distance of the expected tensor.
    pub expected: Distance,
    /// What one rounding to the dtype makes of the true tensor.
    pub rounding: Distance,
}

impl Distances {
    /// Returns whether the actual tensor is as near the truth as `TOLERANCES` says.
    pub fn hold(&self) -> bool {
        let Distances { actual, expected, rounding } = self;
        actual.max.is_finite()
            && expected.max.is_finite()
            && actual.rms <= FURTHER * expected.rms + rounding.rms
            && actual.max <= MUCH_FURTHER * expected.max + rounding.max
            && expected.rms <= MUCH_FURTHER * (actual.rms + rounding.rms)
    }
}

/// Measures how far the float tensors of both runs are from the truth. One that is near enough passes.
pub(super) fn judge(
    tensors: &mut [TensorComparison],
    actual: &Trace,
    expected: &Trace,
    truth: &Trace,
) {
    for tensor in tensors.iter_mut().filter(|tensor| tensor.problem.is_none()) {
        tensor.distances = distances(&tensor.name, actual, expected, truth);
        if !tensor.passes && tensor.distances.is_some_and(|distances| distances.hold()) {
            tensor.passes = true;
            tensor.verdict = Verdict::Close;
            tensor.hint = None;
        }
    }
}

/// Returns the distances of a float tensor, or `None` if the truth lacks it or is no number somewhere.
fn distances(name: &str, actual: &Trace, expected: &Trace, truth: &Trace) -> Option<Distances> {
    let tensors = [actual, expected, truth].map(|trace| parts(name, trace));
    let [actual, expected, truth] = tensors;
    let unit = match expected.first()?.dtype() {
        Dtype::F16 => 2f64.powi(-11),
        Dtype::BF16 => 2f64.powi(-8),
        Dtype::F32 => 2f64.powi(-24),
        Dtype::F64 => 2f64.powi(-53),
        _ => return None,
    };
    let shape =
        |parts: &[TensorView]| parts.iter().map(|part| part.shape().to_vec()).collect::<Vec<_>>();
    let is_exact = truth.iter().all(|part| part.dtype() == Dtype::F64);
    if shape(&truth) != shape(&expected) || shape(&actual) != shape(&expected) || !is_exact {
        return None;
    }
    let mut sums = [Sum::default(); 3];
    let [actual, expected, truth] =
        [&actual, &expected, &truth].map(|parts| parts.iter().flat_map(floats));
    for ((actual, expected), truth) in actual.zip(expected).zip(truth) {
        if actual == expected && !actual.is_finite() || actual.is_nan() && expected.is_nan() {
            continue;
        }
        if !truth.is_finite() {
            return None;
        }
        // The difference of a nan or an infinity is infinite, and never holds.
        let from_truth = |value: f64| if value.is_finite() { value - truth } else { f64::INFINITY };
        for (sum, value) in sums.iter_mut().zip([from_truth(actual), from_truth(expected), truth]) {
            sum.add(value);
        }
    }
    let [actual, expected, true_size] = sums.map(Sum::distance);
    let rounding = Distance { rms: unit * true_size.rms, max: unit * true_size.max };
    Some(Distances { actual, expected, rounding })
}

/// Returns the tensor of that name, or the two parts of one of complex128.
fn parts<'a>(name: &str, trace: &'a Trace) -> Vec<TensorView<'a>> {
    match trace.get(name) {
        Some(view) => vec![view],
        None => PARTS.iter().filter_map(|part| trace.get(&format!("{name}{part}"))).collect(),
    }
}

#[derive(Clone, Copy, Default)]
struct Sum {
    squares: f64,
    count: f64,
    max: f64,
}

impl Sum {
    fn add(&mut self, value: f64) {
        self.squares += value * value;
        self.count += 1.;
        self.max = self.max.max(value.abs());
    }

    fn distance(self) -> Distance {
        Distance { rms: (self.squares / self.count.max(1.)).sqrt(), max: self.max }
    }
}

//! The verdict on a tensor: how near it comes to the expected one.

use serde::{Deserialize, Serialize};

use super::statistics::Statistics;
use super::tolerance::Tolerance;

/// The largest distance in ulp that a verdict states. A larger one says little, since the rounding error of a sum
/// can put a gradient near zero a million ulp away.
pub const MAX_ULP: u64 = 4;

/// A measure of how near an actual tensor comes to the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The bits are the same; a nan equals any nan.
    Bitwise,
    /// The values are close and at most this many ulp apart; 0 where only signs of zeros differ.
    Ulp(u64),
    /// The values are within the tolerance of the dtype.
    Close,
    /// The values are not close, or cannot be compared: `problem` says why.
    Differs,
}

pub(super) fn verdict(statistics: &Statistics, tolerance: Option<Tolerance>) -> Verdict {
    let close =
        tolerance.is_some_and(|t| statistics.not_close == 0 && statistics.scaled <= t.scaled);
    match statistics.max_ulp {
        _ if statistics.unequal == 0 => Verdict::Bitwise,
        ulp if close && ulp <= MAX_ULP => Verdict::Ulp(ulp),
        _ if close => Verdict::Close,
        _ => Verdict::Differs,
    }
}

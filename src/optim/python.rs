//! Arithmetic on doubles as Python computes it, where Rust has another way. Its bits are those of the optimizer.

use std::hint::black_box;

use anyhow::{Result, ensure};

/// Computes `base ** exponent` by C's `pow`. The compiler would turn a constant exponent of 0.5 into a square root,
/// which is not always the same number.
pub(super) fn pow(base: f64, exponent: f64) -> f64 {
    black_box(base).powf(black_box(exponent))
}

/// Returns `min(a, b)`, which is `a` if one of them is NaN.
pub(super) fn min(a: f64, b: f64) -> f64 {
    if b < a { b } else { a }
}

/// Returns `max(a, b)`, which is `a` if one of them is NaN.
pub(super) fn max(a: f64, b: f64) -> f64 {
    if b > a { b } else { a }
}

/// Computes `a / b`, which Python refuses for a `b` of zero.
pub(super) fn div(a: f64, b: f64) -> Result<f64> {
    ensure!(b != 0., "float division by zero");
    Ok(a / b)
}

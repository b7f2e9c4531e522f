//! Floats as Python writes them.

/// The number of decimals, which is PyTorch's print option `precision`.
const PRECISION: usize = 4;

/// Returns what Python's `repr` returns for a float, which is the shortest text that reads back as the same float.
pub fn repr_float(value: f64) -> String {
    if value.is_nan() { "nan".to_owned() } else { python_exponent(format!("{value:?}")) }
}

/// Returns `f"{value:.0f}"`, followed by a point that shows that it is a float.
pub(crate) fn integer(value: f64) -> String {
    if value.is_finite() { format!("{value:.0}.") } else { fixed(value) }
}

/// Returns `f"{value:.4f}"`.
pub(crate) fn fixed(value: f64) -> String {
    if value.is_nan() { "nan".to_owned() } else { format!("{value:.PRECISION$}") }
}

/// Returns `f"{value:.4e}"`.
pub(crate) fn scientific(value: f64) -> String {
    exponential(value, PRECISION)
}

/// Returns `f"{value:.{precision}e}"`.
pub(crate) fn exponential(value: f64, precision: usize) -> String {
    if value.is_finite() { python_exponent(format!("{value:.precision$e}")) } else { fixed(value) }
}

/// Gives the exponent a sign and at least two digits, as Python does.
fn python_exponent(text: String) -> String {
    let Some((mantissa, exponent)) = text.split_once('e') else { return text };
    let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |digits| ('-', digits));
    format!("{mantissa}e{sign}{digits:0>2}")
}

//! The elements as text of one width.

use super::dtype::{Elements, LEAST_EXPONENT};
use super::float;

/// The elements in order, each as text that is padded to a common width, as PyTorch's `_Formatter` makes them.
pub(super) struct Column {
    pub(super) cells: Vec<String>,
    /// The width that PyTorch assumes for each element when it fills a line.
    pub(super) width: usize,
}

impl Column {
    pub(super) fn new(elements: Elements) -> Column {
        match elements {
            Elements::Words(words) => {
                let width = words.iter().map(String::len).max().unwrap_or(1);
                Column { cells: padded(words, width), width }
            }
            Elements::Floats(values) => Column::of_floats(&values, |value| value.is_finite()),
            Elements::Exponents(values) => {
                Column::of_floats(&values, |value| value != LEAST_EXPONENT)
            }
            Elements::Complex(values) => {
                let part = |part: usize| {
                    let values = values.iter().map(|value| value[part]).collect::<Vec<_>>();
                    Column::of_floats(&values, |value| value.is_finite())
                };
                let (real, imaginary) = (part(0), part(1));
                let cells = real.cells.iter().zip(&imaginary.cells).map(|(real, imaginary)| {
                    let imaginary = imaginary.trim_start();
                    let plus = if imaginary.starts_with(['+', '-']) { "" } else { "+" };
                    format!("{real}{plus}{imaginary}j")
                });
                Column { cells: cells.collect(), width: real.width + imaginary.width + 1 }
            }
        }
    }

    /// Formats floats. Zeros and values that are not `counted` influence neither the format nor the width, so they
    /// may be wider than the column.
    fn of_floats(values: &[f64], counted: fn(f64) -> bool) -> Column {
        let deciding = || values.iter().copied().filter(|&value| counted(value) && value != 0.);
        let max = deciding().map(f64::abs).fold(0., f64::max);
        let min = deciding().map(f64::abs).fold(f64::INFINITY, f64::min);
        let format = if deciding().next().is_none() {
            float::integer
        } else if deciding().any(f64::is_nan) {
            float::fixed // nan is neither large nor small nor an integer
        } else if max / min > 1000. || max > 1e8 || min < 1e-4 {
            float::scientific
        } else if deciding().all(|value| value == value.ceil()) {
            float::integer
        } else {
            float::fixed
        };
        let width = deciding().map(|value| format(value).len()).max().unwrap_or(1);
        Column { cells: padded(values.iter().copied().map(format).collect(), width), width }
    }
}

fn padded(cells: Vec<String>, width: usize) -> Vec<String> {
    cells.into_iter().map(|cell| format!("{cell:>width$}")).collect()
}

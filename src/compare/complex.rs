//! Complex numbers as elements, and the tensors of complex128, which a file holds as two tensors of float64.
//!
//! The bits are those of the parts. What is close is what `torch.isclose` takes for close: the distance is the magnitude
//! of the difference, and a number is nan if one of its parts is.

use safetensors::tensor::{Dtype, TensorView};

use super::element::Element;
use super::hint::hint;
use super::statistics::{Of, Statistics, compared_shares, index_of, scaled};
use super::{Criterion, Tolerance};
use crate::trace::Trace;
use crate::trace::case_name::{IMAG, REAL};

/// What is appended to the name of a tensor of complex128 for its two parts.
pub(super) const PARTS: [&str; 2] = [REAL, IMAG];

/// The dtype of complex128, which safetensors has no name for.
pub(crate) const COMPLEX128: &str = "C128";

/// The number of bytes of an element of complex128, and of a part.
const SIZE: usize = 16;
const PART: usize = SIZE / 2;

/// How many elements are put together at a time.
const SHARE: usize = 1 << 20;

macro_rules! complex_element {
    ($name:ident, $float:ty, $bits:ty) => {
        /// A complex number of two floats.
        #[derive(Clone, Copy)]
        pub(super) struct $name {
            real: $float,
            imaginary: $float,
        }

        impl $name {
            fn with(self, other: Self) -> [($float, $float); 2] {
                [(self.real, other.real), (self.imaginary, other.imaginary)]
            }
        }

        impl Element<{ 2 * size_of::<$float>() }> for $name {
            type Ulp = $bits;

            fn read(bytes: [u8; 2 * size_of::<$float>()]) -> Self {
                let parts = bytes.as_chunks().0;
                let part = |at: usize| <$float>::from_le_bytes(parts[at]);
                $name { real: part(0), imaginary: part(1) }
            }

            fn decimal(self) -> String {
                // A nan has no sign.
                let plus = if self.imaginary.is_nan() { "+" } else { "" };
                format!("{:?}{plus}{:+?}j", self.real, self.imaginary)
            }

            /// Returns the distance, which is 0 between numbers that are both nan.
            fn distance(self, other: Self) -> f64 {
                if self.is_nan() && other.is_nan() {
                    return 0.;
                }
                let [real, imaginary] = self.with(other).map(|(a, e)| f64::from(a) - f64::from(e));
                let abs = real.hypot(imaginary);
                // The magnitude of inf+nanj is infinite as well.
                if abs < f64::INFINITY { abs } else { f64::INFINITY }
            }

            fn is_nan(self) -> bool {
                self.real.is_nan() || self.imaginary.is_nan()
            }

            /// Each part has to be the same: nan in one of them says nothing of the other.
            fn is_same(self, other: Self) -> bool {
                let is_same = |(a, e): ($float, $float)| {
                    a.to_bits() == e.to_bits() || a.is_nan() && e.is_nan()
                };
                self.with(other).into_iter().all(is_same)
            }

            /// Returns the magnitude, of which nan has none.
            fn magnitude(self) -> f64 {
                let magnitude = f64::from(self.real).hypot(self.imaginary.into());
                if self.is_nan() { 0. } else { magnitude }
            }

            fn are_zeros(self, other: Self) -> bool {
                self.real == other.real && self.imaginary == other.imaginary
            }

            fn ulp_distance(self, other: Self) -> $bits {
                let [real, imaginary] = self.with(other).map(|(a, e)| a.ulp_distance(e));
                real.max(imaginary)
            }

            fn max_magnitude(elements: &[[u8; 2 * size_of::<$float>()]]) -> f64 {
                let magnitudes = elements.iter().map(|bytes| Self::read(*bytes).magnitude());
                magnitudes.filter(|magnitude| magnitude.is_finite()).fold(0., f64::max)
            }
        }
    };
}

complex_element!(Complex64, f32, u32);
complex_element!(Complex128, f64, u64);

/// A tensor of complex128, as its real and its imaginary part.
pub(super) struct Parts<'a>([TensorView<'a>; 2]);

/// Returns the name of the tensor of complex128 that a tensor is a part of, by its name, and which part it is.
pub(super) fn part_of(name: &str) -> Option<(&str, usize)> {
    let part = |at: usize| Some((name.strip_suffix(PARTS[at])?, at));
    part(0).or_else(|| part(1))
}

impl<'a> Parts<'a> {
    /// Returns the tensor of complex128 of that name, or `None` if the trace has none, or has the digest of a part.
    fn of(name: &str, trace: &'a Trace) -> Option<Parts<'a>> {
        let [Some(real), Some(imag)] = PARTS.map(|part| trace.get(&format!("{name}{part}"))) else {
            return None;
        };
        let fit = real.shape() == imag.shape() && [real.dtype(), imag.dtype()] == [Dtype::F64; 2];
        (fit && !trace.contains(name)).then_some(Parts([real, imag]))
    }

    /// Returns the tensors of complex128 of that name, if both traces have one, of one shape.
    pub(super) fn of_both(
        name: &str,
        actual: &'a Trace,
        expected: &'a Trace,
    ) -> Option<[Parts<'a>; 2]> {
        let [actual, expected] = [Parts::of(name, actual)?, Parts::of(name, expected)?];
        (actual.shape() == expected.shape()).then_some([actual, expected])
    }

    pub(super) fn shape(&self) -> &[usize] {
        self.0[0].shape()
    }

    /// Returns as many elements as `SHARE` says, or all from `first` on if there are fewer, as PyTorch holds them.
    fn elements(&self, first: usize, count: usize) -> Vec<u8> {
        let [real, imag] = self.0.each_ref().map(|part| part.data().as_chunks::<PART>().0);
        let end = real.len().min(first.saturating_add(count));
        let both = real[first..end].iter().zip(&imag[first..end]);
        both.flat_map(|(real, imag)| [*real, *imag]).flatten().collect()
    }
}

/// Compares two tensors of complex128 of one shape.
pub(super) fn statistics(
    [actual, expected]: &[Parts; 2],
    tolerance: Option<Tolerance>,
) -> Statistics {
    let numel = expected.shape().iter().product::<usize>();
    let shares = (0..numel).step_by(SHARE).map(|first| {
        let [a, e] = [actual, expected].map(|parts| parts.elements(first, SHARE));
        compared_shares::<SIZE, Complex128>(&a, &e, first, tolerance)
    });
    let found = shares.reduce(|mut all, share| {
        all.merge(share);
        all
    });
    scaled(found.unwrap_or_default(), &expected.0[0])
}

/// Computes what is asked for of all elements of two tensors of complex128.
pub(super) fn as_complex<T: Of>(of: T, [actual, expected]: &[Parts; 2]) -> T::Found {
    let [a, e] = [actual, expected].map(|parts| parts.elements(0, usize::MAX));
    of.of::<SIZE, Complex128>(&a, &e)
}

/// Returns the index of the element at a position in row-major order.
pub(super) fn index(flat: usize, [_, expected]: &[Parts; 2]) -> Vec<usize> {
    index_of(flat, &expected.0[0])
}

/// Returns the hint that holds for both parts, if there is one.
pub(super) fn hint_of_parts(
    [actual, expected]: &[Parts; 2],
    criterion: Criterion,
) -> Option<String> {
    let of = |part: usize| hint(&actual.0[part], &expected.0[part], criterion);
    of(0).filter(|hint| of(1).as_ref() == Some(hint))
}

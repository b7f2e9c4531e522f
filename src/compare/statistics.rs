//! The comparison of two tensors of one shape and dtype, element by element, in one pass.

use std::error::Error;
use std::ptr;
use std::sync::LazyLock;

use half::{bf16, f16};
use rayon::ThreadPoolBuilder;
use rayon::prelude::*;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};

use super::complex::Complex64;
use super::element::{E4M3, E4M3Fnuz, E5M2, E5M2Fnuz, E8M0, Element, Opaque, hex};
use super::number;
use super::tolerance::Tolerance;

/// Whether threads can be had, which rayon would panic over where there are none (`ulimit -u`).
static THREADS: LazyLock<bool> = LazyLock::new(|| match ThreadPoolBuilder::new().build_global() {
    Ok(()) => true,
    // Without a cause, the pool had been made before.
    Err(err) => err.source().is_none(),
});

/// How many elements one thread compares at a time; a smaller tensor is compared by one thread.
const SHARE: usize = 1 << 18;

/// A summary of how the values of two tensors differ.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Statistics {
    /// The number of elements.
    pub numel: usize,
    /// The number of elements whose bits differ; a nan equals any nan, and a part of a complex number that is nan any
    /// such part.
    pub unequal: usize,
    /// The number of elements that are not close.
    pub not_close: usize,
    /// The number of elements that differ only in the sign of a zero.
    pub zero_signs: usize,
    /// The greatest |actual - expected|.
    ///
    /// It is infinite where one of the two is nan or infinite and the other is not. It is also infinite where
    /// floats of fewer than 8 bits differ: only their bits are compared, a byte at a time. Of complex numbers it is
    /// the magnitude of the difference.
    #[serde(with = "number")]
    pub max_abs: f64,
    /// The greatest finite |expected|, or 0 if only bits are compared.
    pub max_expected: f64,
    /// The quotient `max_abs / max_expected`.
    #[serde(with = "number")]
    pub scaled: f64,
    /// The greatest distance in ulp, of complex numbers that of a part; 0 for integers.
    pub max_ulp: u64,
    /// The first element at which |actual - expected| is greatest.
    pub worst: Option<Worst>,
}

/// An element at which two tensors differ most.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worst {
    /// The index of the element, with one number for each dimension.
    pub index: Vec<usize>,
    /// The actual value, in decimal and as the hexadecimal digits of its bits.
    pub actual: (String, String),
    /// The expected value, in the same two forms.
    pub expected: (String, String),
    /// The value of |actual - expected|.
    #[serde(with = "number")]
    pub abs: f64,
    /// The distance in ulp, or 0 for integers.
    pub ulp: u64,
    #[serde(skip)]
    flat: usize,
}

/// Compares two tensors of one shape and dtype.
pub(crate) fn statistics(
    actual: &TensorView,
    expected: &TensorView,
    tolerance: Option<Tolerance>,
) -> Statistics {
    let found = as_elements(expected.dtype(), Compared(tolerance), actual.data(), expected.data());
    scaled(found, expected)
}

/// Adds what follows from the numbers of all elements, and from the shape of the expected tensor.
pub(super) fn scaled(mut found: Statistics, expected: &TensorView) -> Statistics {
    if found.max_abs > 0. {
        found.scaled = found.max_abs / found.max_expected;
    }
    if let Some(worst) = &mut found.worst {
        worst.index = index_of(worst.flat, expected);
    }
    found
}

/// What is computed of the elements of two tensors, whatever their type.
pub(super) trait Of {
    type Found;

    fn of<const N: usize, E: Element<N>>(self, actual: &[u8], expected: &[u8]) -> Self::Found;
}

struct Compared(Option<Tolerance>);

impl Of for Compared {
    type Found = Statistics;

    fn of<const N: usize, E: Element<N>>(self, actual: &[u8], expected: &[u8]) -> Statistics {
        compared_shares::<N, E>(actual, expected, 0, self.0)
    }
}

/// Reads the bytes of two tensors as the elements of their dtype.
pub(super) fn as_elements<T: Of>(dtype: Dtype, of: T, a: &[u8], e: &[u8]) -> T::Found {
    match dtype {
        Dtype::F16 => of.of::<2, f16>(a, e),
        Dtype::BF16 => of.of::<2, bf16>(a, e),
        Dtype::F32 => of.of::<4, f32>(a, e),
        Dtype::F64 => of.of::<8, f64>(a, e),
        Dtype::I8 => of.of::<1, i8>(a, e),
        Dtype::U8 | Dtype::BOOL => of.of::<1, u8>(a, e),
        Dtype::I16 => of.of::<2, i16>(a, e),
        Dtype::U16 => of.of::<2, u16>(a, e),
        Dtype::I32 => of.of::<4, i32>(a, e),
        Dtype::U32 => of.of::<4, u32>(a, e),
        Dtype::I64 => of.of::<8, i64>(a, e),
        Dtype::U64 => of.of::<8, u64>(a, e),
        Dtype::C64 => of.of::<8, Complex64>(a, e),
        Dtype::F8_E4M3 => of.of::<1, E4M3>(a, e),
        Dtype::F8_E5M2 => of.of::<1, E5M2>(a, e),
        Dtype::F8_E4M3FNUZ => of.of::<1, E4M3Fnuz>(a, e),
        Dtype::F8_E5M2FNUZ => of.of::<1, E5M2Fnuz>(a, e),
        Dtype::F8_E8M0 => of.of::<1, E8M0>(a, e),
        // Bytes that hold several smaller floats.
        _ => of.of::<1, Opaque>(a, e),
    }
}

/// Returns the index of the element at a position in row-major order. Elements smaller than a byte are compared by the
/// byte, so the index is that of the byte.
pub(super) fn index_of(flat: usize, expected: &TensorView) -> Vec<usize> {
    let bytes = [expected.data().len()];
    let whole = expected.dtype().bitsize() >= 8;
    unravel(flat, if whole { expected.shape() } else { &bytes })
}

/// Describes an element whose index is not known here.
pub(super) fn worst<const N: usize, E: Element<N>>(actual: [u8; N], expected: [u8; N]) -> Worst {
    let (a, e) = (E::read(actual), E::read(expected));
    Worst {
        index: Vec::new(),
        actual: (a.decimal(), hex(&actual)),
        expected: (e.decimal(), hex(&expected)),
        abs: a.distance(e),
        ulp: a.ulp_distance(e).into(),
        flat: 0,
    }
}

impl Statistics {
    pub(super) fn merge(&mut self, other: Statistics) {
        self.numel += other.numel;
        self.unequal += other.unequal;
        self.not_close += other.not_close;
        self.zero_signs += other.zero_signs;
        self.max_abs = self.max_abs.max(other.max_abs);
        self.max_expected = self.max_expected.max(other.max_expected);
        self.max_ulp = self.max_ulp.max(other.max_ulp);
        if let Some(theirs) = other.worst
            && self.worst.as_ref().is_none_or(|ours| theirs.abs > ours.abs)
        {
            self.worst = Some(theirs);
        }
    }
}

/// Compares elements of which the first is at position `first` of their tensor, on all threads where they are many.
pub(super) fn compared_shares<const N: usize, E: Element<N>>(
    actual: &[u8],
    expected: &[u8],
    first: usize,
    tolerance: Option<Tolerance>,
) -> Statistics {
    if expected.len() < SHARE * N || !*THREADS {
        return of_share::<N, E>(actual, expected, first, tolerance);
    }
    let shares = actual.par_chunks(SHARE * N).zip(expected.par_chunks(SHARE * N)).enumerate();
    let compared = shares.map(|(i, (a, e))| of_share::<N, E>(a, e, first + i * SHARE, tolerance));
    compared.reduce(Statistics::default, |mut ours, theirs| {
        ours.merge(theirs);
        ours
    })
}

/// Compares two shares block by block. Most blocks are equal, which is fast to check; only in the others are
/// single elements compared.
fn of_share<const N: usize, E: Element<N>>(
    actual: &[u8],
    expected: &[u8],
    first: usize,
    tolerance: Option<Tolerance>,
) -> Statistics {
    const BLOCK: usize = 128;
    let mut total = Statistics::default();
    let blocks = actual.chunks(BLOCK * N).zip(expected.chunks(BLOCK * N)).enumerate();
    for (block, (actual, expected)) in blocks {
        let (a, e) = (actual.as_chunks::<N>().0, expected.as_chunks::<N>().0);
        // The bytes of a trace may be those of the file that it is compared with.
        if ptr::eq(a, e) || a == e {
            total.numel += e.len();
            total.max_expected = total.max_expected.max(E::max_magnitude(e));
        } else {
            let known = if total.worst.is_some() { total.max_abs } else { -1. };
            total.merge(of_block::<N, E>(a, e, first + block * BLOCK, tolerance, known));
        }
    }
    total
}

/// Compares one block. The worst element is looked for only if its difference is greater than `known`.
fn of_block<const N: usize, E: Element<N>>(
    actual: &[[u8; N]],
    expected: &[[u8; N]],
    first: usize,
    tolerance: Option<Tolerance>,
    known: f64,
) -> Statistics {
    // Without a tolerance, elements that are not equal are not close.
    let (rtol, atol) = tolerance.map_or((0., -1.), |t| (t.rtol, t.atol));
    let mut found = Statistics { numel: expected.len(), ..Statistics::default() };
    found.max_expected = E::max_magnitude(expected);
    let difference = |actual: [u8; N], expected: [u8; N]| {
        let (a, e) = (E::read(actual), E::read(expected));
        let unequal = (actual != expected) & !a.is_same(e);
        (if unequal { a.distance(e) } else { 0. }, unequal, a, e)
    };
    // The loop has no branches and counts in narrow integers, so that the compiler compares several elements at
    // a time.
    let (mut unequal, mut not_close, mut zero_signs) = (0u32, 0u32, 0u32);
    let mut max_ulp = E::Ulp::default();
    for (&actual, &expected) in actual.iter().zip(expected) {
        let (abs, differs, a, e) = difference(actual, expected);
        let close = (abs <= atol + rtol * e.magnitude()) & (abs < f64::INFINITY);
        let ulp = a.ulp_distance(e);
        let ulp = if differs { ulp } else { E::Ulp::default() };
        unequal += u32::from(differs);
        not_close += u32::from(differs & !close);
        zero_signs += u32::from(differs & a.are_zeros(e));
        max_ulp = if ulp > max_ulp { ulp } else { max_ulp };
        found.max_abs = if abs > found.max_abs { abs } else { found.max_abs };
    }
    found.unequal = unequal as usize;
    found.not_close = not_close as usize;
    found.zero_signs = zero_signs as usize;
    found.max_ulp = max_ulp.into();
    if found.max_abs <= known {
        return found;
    }
    let at = actual.iter().zip(expected).position(|(&actual, &expected)| {
        let (abs, unequal, ..) = difference(actual, expected);
        unequal && abs == found.max_abs
    });
    found.worst = at.map(|i| Worst { flat: first + i, ..worst::<N, E>(actual[i], expected[i]) });
    found
}

/// Returns the index, in a tensor of `shape`, of the element at position `flat` in row-major order.
pub(crate) fn unravel(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let index = shape.iter().rev().map(|n| (flat % n, flat /= n).0);
    let mut index = index.collect::<Vec<_>>();
    index.reverse();
    index
}

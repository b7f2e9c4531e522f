//! Two tensors of one shape and dtype compared, element by element, in one pass.

use std::thread;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
use serde::{Serialize, Serializer};

use crate::element::{Element, Opaque, hex};
use crate::tolerance::Tolerance;

/// From this many elements on, a tensor is compared by several threads.
const PARALLEL_FROM: usize = 1 << 18;

/// What the values of two tensors have in common and what not.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Statistics {
    /// Elements.
    pub numel: usize,
    /// Elements of other bits (a nan equals any nan).
    pub unequal: usize,
    /// Elements that are not close.
    pub not_close: usize,
    /// Elements that differ in the sign of a zero alone.
    pub zero_signs: usize,
    /// The greatest |actual - expected|; infinite where one is nan or infinite and the other is not, and
    /// where a complex number or a float of 8 bits or fewer differs: of those the bits alone are compared, and
    /// of fewer than 8 bits a byte at a time.
    #[serde(serialize_with = "with_infinity")]
    pub max_abs: f64,
    /// The greatest finite |expected|; 0 where bits alone are compared.
    pub max_expected: f64,
    /// `max_abs / max_expected`
    #[serde(serialize_with = "with_infinity")]
    pub scaled: f64,
    /// The greatest distance in ulp; none for integers.
    pub max_ulp: u64,
    /// Where |actual - expected| is greatest, the first of several.
    pub worst: Option<Worst>,
}

/// The element that is furthest off.
#[derive(Clone, Debug, Serialize)]
pub struct Worst {
    /// Its index, one number a dimension.
    pub index: Vec<usize>,
    /// What the actual trace has there, in decimal and in the hex of its bits.
    pub actual: (String, String),
    /// What the expected trace has there.
    pub expected: (String, String),
    /// |actual - expected|
    #[serde(serialize_with = "with_infinity")]
    pub abs: f64,
    #[serde(skip)]
    flat: usize,
}

/// JSON has no number for it.
fn with_infinity<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() {
        serializer.serialize_f64(*value)
    } else {
        serializer.serialize_str("Infinity")
    }
}

/// Of two tensors of one shape and dtype.
pub(crate) fn statistics(
    actual: &TensorView,
    expected: &TensorView,
    tolerance: Option<Tolerance>,
) -> Statistics {
    let of = match expected.dtype() {
        Dtype::F16 => of_elements::<2, f16>,
        Dtype::BF16 => of_elements::<2, bf16>,
        Dtype::F32 => of_elements::<4, f32>,
        Dtype::F64 => of_elements::<8, f64>,
        Dtype::I8 => of_elements::<1, i8>,
        Dtype::U8 | Dtype::BOOL => of_elements::<1, u8>,
        Dtype::I16 => of_elements::<2, i16>,
        Dtype::U16 => of_elements::<2, u16>,
        Dtype::I32 => of_elements::<4, i32>,
        Dtype::U32 => of_elements::<4, u32>,
        Dtype::I64 => of_elements::<8, i64>,
        Dtype::U64 => of_elements::<8, u64>,
        Dtype::C64 => of_elements::<8, Opaque>,
        // Floats of 8 bits; of fewer, each byte of several.
        _ => of_elements::<1, Opaque>,
    };
    let mut statistics = of(actual.data(), expected.data(), tolerance);
    if statistics.max_abs > 0. {
        statistics.scaled = statistics.max_abs / statistics.max_expected;
    }
    if let Some(worst) = &mut statistics.worst {
        // Of elements below a byte there is no index: it is that of the byte.
        let bytes = [expected.data().len()];
        let whole = expected.dtype().bitsize() >= 8;
        let shape = if whole { expected.shape() } else { &bytes };
        worst.index = unravel(worst.flat, shape);
    }
    statistics
}

impl Statistics {
    fn merge(&mut self, other: Statistics) {
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

fn of_elements<const N: usize, E: Element<N>>(
    actual: &[u8],
    expected: &[u8],
    tolerance: Option<Tolerance>,
) -> Statistics {
    let numel = expected.len() / N;
    if numel < PARALLEL_FROM {
        return of_share::<N, E>(actual, expected, 0, tolerance);
    }
    let share = numel.div_ceil(thread::available_parallelism().map_or(1, usize::from));
    let shares = actual.chunks(share * N).zip(expected.chunks(share * N)).enumerate();
    thread::scope(|scope| {
        let spawn = |(i, (a, e))| scope.spawn(move || of_share::<N, E>(a, e, i * share, tolerance));
        let mut statistics = Statistics::default();
        for thread in shares.map(spawn).collect::<Vec<_>>() {
            match thread.join() {
                Ok(theirs) => statistics.merge(theirs),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        statistics
    })
}

/// In blocks: most are equal, which is seen fastest, and where few elements differ few are looked at.
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
        if actual == expected {
            total.numel += e.len();
            total.max_expected = total.max_expected.max(E::max_magnitude(e));
        } else {
            let known = if total.worst.is_some() { total.max_abs } else { -1. };
            total.merge(of_block::<N, E>(a, e, first + block * BLOCK, tolerance, known));
        }
    }
    total
}

/// The worst element is looked for only where it is further off than what is known.
fn of_block<const N: usize, E: Element<N>>(
    actual: &[[u8; N]],
    expected: &[[u8; N]],
    first: usize,
    tolerance: Option<Tolerance>,
    known: f64,
) -> Statistics {
    // What has no tolerance is not close where it is not equal.
    let (rtol, atol) = tolerance.map_or((0., -1.), |t| (t.rtol, t.atol));
    let mut found = Statistics { numel: expected.len(), ..Statistics::default() };
    found.max_expected = E::max_magnitude(expected);
    let difference = |actual: [u8; N], expected: [u8; N]| {
        let (a, e) = (E::read(actual), E::read(expected));
        let unequal = (actual != expected) & !(a.is_nan() & e.is_nan());
        (if unequal { a.distance(e) } else { 0. }, unequal, a, e)
    };
    // Without a branch on what is found, and counted in narrow numbers, so that several elements are compared
    // at a time.
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
    let worst = actual.iter().zip(expected).position(|(&actual, &expected)| {
        let (abs, unequal, ..) = difference(actual, expected);
        unequal && abs == found.max_abs
    });
    found.worst = worst.map(|i| Worst {
        index: Vec::new(),
        actual: (E::read(actual[i]).decimal(), hex(&actual[i])),
        expected: (E::read(expected[i]).decimal(), hex(&expected[i])),
        abs: found.max_abs,
        flat: first + i,
    });
    found
}

/// The index of the element at `flat`, counted row by row, in a tensor of `shape`.
pub(crate) fn unravel(mut flat: usize, shape: &[usize]) -> Vec<usize> {
    let index = shape.iter().rev().map(|n| (flat % n, flat /= n).0);
    let mut index = index.collect::<Vec<_>>();
    index.reverse();
    index
}

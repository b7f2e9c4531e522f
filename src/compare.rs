//! The comparison of two traces, tensor by tensor, as plain data. It knows bytes, shapes and dtypes,
//! and nothing of models or of how a result is shown.

use std::collections::HashSet;
use std::thread;

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;

use crate::element::{Element, hex};
use crate::trace::Trace;

/// How far two tensors of a dtype may be apart and still be close.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tolerance {
    /// Element-wise: `|actual - expected| <= atol + rtol * |expected|`.
    pub rtol: f64,
    /// The part of it that does not depend on `expected`.
    pub atol: f64,
    /// Over the tensor: `max|actual - expected| <= scaled * max|expected|`.
    pub scaled: f64,
}

/// The one table of tolerances. `rtol` and `atol` are the defaults of
/// [`torch.testing.assert_close`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/testing/_comparison.py#L54).
/// That `atol` alone passes most gradients of a hidden layer as zeros; `scaled` does not. It is 17
/// units of rounding for float32 (the largest seen between two machines was 7), and about as many for
/// float16 and bfloat16; 45 for float64. Whatever is not here is equal or it is not.
pub const TOLERANCES: [(Dtype, Tolerance); 4] = [
    (Dtype::F16, Tolerance { rtol: 1e-3, atol: 1e-5, scaled: 1.6e-2 }),
    (Dtype::BF16, Tolerance { rtol: 1.6e-2, atol: 1e-5, scaled: 1.3e-1 }),
    (Dtype::F32, Tolerance { rtol: 1.3e-6, atol: 1e-5, scaled: 2e-6 }),
    (Dtype::F64, Tolerance { rtol: 1e-7, atol: 1e-7, scaled: 1e-14 }),
];

/// Up to here, a tensor that is close is said to be so many ulp away; above, a number of ulp says
/// little, since a gradient near zero is a million away for the error of a sum.
const MAX_ULP: u64 = 4;

/// From this many elements on, a tensor is compared by several threads.
const PARALLEL_FROM: usize = 1 << 18;

/// What a comparison requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Criterion {
    /// The same bits, the signs of zeros included; a nan equals any nan.
    Bitwise,
    /// Within the tolerances of the dtype.
    Close,
}

/// How near an actual tensor comes to the expected one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The same bits; a nan equals any nan.
    Bitwise,
    /// Close, and no element further away than this many ulp; 0 where only signs of zeros differ.
    Ulp(u64),
    /// Within the tolerances of the dtype.
    Close,
    /// Neither, or not comparable: `problem` says why.
    Differs,
}

/// Two traces compared.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// What was required.
    pub criterion: Criterion,
    /// In the order of the expected trace; then what only the actual one has.
    pub tensors: Vec<TensorComparison>,
}

/// One name in two traces.
#[derive(Clone, Debug, Serialize)]
pub struct TensorComparison {
    /// Its name.
    pub name: String,
    /// The expected dtype, or the actual one of a tensor that is not expected.
    pub dtype: String,
    /// Likewise.
    pub shape: Vec<usize>,
    /// How near it comes.
    pub verdict: Verdict,
    /// Whether that is enough.
    pub passes: bool,
    /// Why the values cannot be compared: a side is missing, another shape, another dtype.
    pub problem: Option<String>,
    /// What the values have in common and what not.
    pub statistics: Statistics,
}

/// What one pass over two tensors of one shape and dtype finds.
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
    /// The greatest |actual - expected|; infinite where one is nan or infinite and the other is not.
    pub max_abs: f64,
    /// The greatest finite |expected|.
    pub max_expected: f64,
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
    pub abs: f64,
    #[serde(skip)]
    flat: usize,
}

/// One tensor computed from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The input that an operation reads.
    pub from: String,
    /// What it computes.
    pub to: String,
    /// Its name, as one would look for it.
    pub operation: String,
}

/// Compares every tensor of two traces; never broadcasts, casts or transposes.
pub fn compare(actual: &Trace, expected: &Trace, criterion: Criterion) -> Comparison {
    let mut tensors = Vec::new();
    for (name, expected) in expected.iter() {
        tensors.push(match actual.get(name) {
            Some(actual) => compare_tensor(name, &actual, &expected, criterion),
            None => incomparable(name, &expected, "it is missing".to_owned()),
        });
    }
    for (name, actual) in actual.iter().filter(|(name, _)| expected.get(name).is_none()) {
        tensors.push(incomparable(name, &actual, "it is not expected".to_owned()));
    }
    Comparison { criterion, tensors }
}

impl Comparison {
    /// Whether every tensor is as near as was required.
    pub fn passes(&self) -> bool {
        self.tensors.iter().all(|tensor| tensor.passes)
    }

    /// Where the difference comes from, in words: the first tensor of the dataflow that differs, in
    /// the order of execution, and the operation between it and the last that agrees. Without a
    /// dataflow, the first in the order of the trace.
    pub fn origin(&self, dataflow: &[Edge]) -> Option<String> {
        let differ = self.tensors.iter().filter(|tensor| !tensor.passes);
        let differ = differ.map(|tensor| tensor.name.as_str()).collect::<HashSet<_>>();
        let computed = dataflow.iter().map(|edge| edge.to.as_str()).collect::<HashSet<_>>();
        let given = |edge: &&Edge| !computed.contains(edge.from.as_str());
        if let Some(edge) =
            dataflow.iter().filter(given).find(|edge| differ.contains(edge.from.as_str()))
        {
            return Some(format!("{} differs: the runs do not start from the same", edge.from));
        }
        if let Some(Edge { from, to, operation }) =
            dataflow.iter().find(|e| differ.contains(e.to.as_str()))
        {
            return Some(format!(
                "{to} is the first to differ; {from} agrees: look at {operation}"
            ));
        }
        let first = self.tensors.iter().position(|tensor| !tensor.passes)?;
        let name = &self.tensors[first].name;
        Some(match first.checked_sub(1) {
            Some(before) => {
                format!("{name} is the first to differ; {} agrees", self.tensors[before].name)
            }
            None => format!("{name} is the first to differ"),
        })
    }
}

impl Statistics {
    /// `max|actual - expected| / max|expected|`
    pub fn scaled(&self) -> f64 {
        if self.max_abs == 0. { 0. } else { self.max_abs / self.max_expected }
    }

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

fn incomparable(name: &str, view: &TensorView, problem: String) -> TensorComparison {
    TensorComparison {
        name: name.to_owned(),
        dtype: view.dtype().to_string(),
        shape: view.shape().to_vec(),
        verdict: Verdict::Differs,
        passes: false,
        problem: Some(problem),
        statistics: Statistics::default(),
    }
}

fn compare_tensor(
    name: &str,
    actual: &TensorView,
    expected: &TensorView,
    criterion: Criterion,
) -> TensorComparison {
    if actual.shape() != expected.shape() {
        let problem = format!("its shape is {:?}, not {:?}", actual.shape(), expected.shape());
        return incomparable(name, expected, problem);
    }
    if actual.dtype() != expected.dtype() {
        let problem = format!("its dtype is {}, not {}", actual.dtype(), expected.dtype());
        return incomparable(name, expected, problem);
    }
    let dtype = expected.dtype();
    let tolerance = TOLERANCES.iter().find(|(of, _)| *of == dtype).map(|(_, tolerance)| *tolerance);
    let statistics = {
        let (a, e, shape) = (actual.data(), expected.data(), expected.shape());
        match dtype {
            Dtype::F16 => statistics::<2, f16>(a, e, shape, tolerance),
            Dtype::BF16 => statistics::<2, bf16>(a, e, shape, tolerance),
            Dtype::F32 => statistics::<4, f32>(a, e, shape, tolerance),
            Dtype::F64 => statistics::<8, f64>(a, e, shape, tolerance),
            Dtype::I8 => statistics::<1, i8>(a, e, shape, tolerance),
            Dtype::U8 | Dtype::BOOL => statistics::<1, u8>(a, e, shape, tolerance),
            Dtype::I16 => statistics::<2, i16>(a, e, shape, tolerance),
            Dtype::U16 => statistics::<2, u16>(a, e, shape, tolerance),
            Dtype::I32 => statistics::<4, i32>(a, e, shape, tolerance),
            Dtype::U32 => statistics::<4, u32>(a, e, shape, tolerance),
            Dtype::I64 => statistics::<8, i64>(a, e, shape, tolerance),
            Dtype::U64 => statistics::<8, u64>(a, e, shape, tolerance),
            // float8 and complex: by their bytes alone.
            _ => statistics::<1, u8>(a, e, &[a.len()], tolerance),
        }
    };
    let close = tolerance.is_some_and(|tolerance| {
        statistics.not_close == 0 && statistics.scaled() <= tolerance.scaled
    });
    let verdict = match statistics.max_ulp {
        _ if statistics.unequal == 0 => Verdict::Bitwise,
        ulp if close && ulp <= MAX_ULP => Verdict::Ulp(ulp),
        _ if close => Verdict::Close,
        _ => Verdict::Differs,
    };
    let passes = match criterion {
        Criterion::Bitwise => verdict == Verdict::Bitwise,
        Criterion::Close => verdict != Verdict::Differs,
    };
    TensorComparison {
        name: name.to_owned(),
        dtype: dtype.to_string(),
        shape: expected.shape().to_vec(),
        verdict,
        passes,
        problem: None,
        statistics,
    }
}

fn statistics<const N: usize, E: Element<N>>(
    actual: &[u8],
    expected: &[u8],
    shape: &[usize],
    tolerance: Option<Tolerance>,
) -> Statistics {
    let numel = expected.len() / N;
    let mut statistics = if numel < PARALLEL_FROM {
        share_statistics::<N, E>(actual, expected, 0, tolerance)
    } else {
        let share = numel.div_ceil(thread::available_parallelism().map_or(1, usize::from));
        let shares = actual.chunks(share * N).zip(expected.chunks(share * N)).enumerate();
        thread::scope(|scope| {
            let spawn = |(i, (a, e))| {
                scope.spawn(move || share_statistics::<N, E>(a, e, i * share, tolerance))
            };
            let mut statistics = Statistics::default();
            for thread in shares.map(spawn).collect::<Vec<_>>() {
                match thread.join() {
                    Ok(theirs) => statistics.merge(theirs),
                    Err(panic) => std::panic::resume_unwind(panic),
                }
            }
            statistics
        })
    };
    if let Some(worst) = &mut statistics.worst {
        let mut flat = worst.flat;
        worst.index = shape.iter().rev().map(|n| (flat % n, flat /= n).0).collect();
        worst.index.reverse();
    }
    statistics
}

/// In blocks: most are equal, which is seen fastest, and where few elements differ few are looked at.
fn share_statistics<const N: usize, E: Element<N>>(
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
            total.merge(block_statistics::<N, E>(a, e, first + block * BLOCK, tolerance, known));
        }
    }
    total
}

/// The worst element is looked for only where it is further off than what is known.
fn block_statistics<const N: usize, E: Element<N>>(
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
    let distance = |actual: [u8; N], expected: [u8; N]| {
        let (a, e) = (E::read(actual).to_f64(), E::read(expected).to_f64());
        // One nan or one infinity is as far off as can be.
        let abs = (a - e).abs();
        let abs = if abs < f64::INFINITY { abs } else { f64::INFINITY };
        let unequal = (actual != expected) & !(a.is_nan() & e.is_nan());
        (if unequal { abs } else { 0. }, unequal, a, e)
    };
    // Without a branch on what is found, so that several elements are compared at a time.
    for (&actual, &expected) in actual.iter().zip(expected) {
        let (abs, unequal, a, e) = distance(actual, expected);
        let close = (abs <= atol + rtol * e.abs()) & (abs < f64::INFINITY);
        let ulp = E::read(actual).ulp_distance(E::read(expected));
        let ulp = if unequal { ulp } else { 0 };
        found.unequal += usize::from(unequal);
        found.not_close += usize::from(unequal & !close);
        found.zero_signs += usize::from(unequal & (a == 0.) & (e == 0.));
        found.max_ulp = if ulp > found.max_ulp { ulp } else { found.max_ulp };
        found.max_abs = if abs > found.max_abs { abs } else { found.max_abs };
    }
    if found.max_abs <= known {
        return found;
    }
    let worst = actual.iter().zip(expected).position(|(&actual, &expected)| {
        let (abs, unequal, ..) = distance(actual, expected);
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

//! The comparison of two traces, tensor by tensor, as plain data. It knows bytes, shapes and dtypes,
//! and nothing of models or of how a result is shown.

use std::collections::HashSet;

use safetensors::tensor::{Dtype, TensorView};
use serde::Serialize;
use serde_json::Value;

use crate::permute::permutations;
use crate::statistics::{Statistics, statistics};
use crate::tolerance::{Between, Tolerance};
use crate::trace::Trace;

/// Up to here, a tensor that is close is said to be so many ulp away; above, a number of ulp says
/// little, since a gradient near zero is a million away for the error of a sum.
pub(crate) const MAX_ULP: u64 = 4;

/// The problem of a tensor that the actual trace does not have.
const MISSING: &str = "it is missing";

/// What a comparison requires.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Criterion {
    /// The same bits, the signs of zeros included; a nan equals any nan.
    Bitwise,
    /// Within the tolerances of the dtype.
    Close,
    /// Within those of results with a GPU's.
    #[serde(rename = "close to a GPU")]
    CloseToGpu,
}

impl Criterion {
    pub(crate) fn tolerance(self, dtype: Dtype) -> Option<Tolerance> {
        let between = if self == Criterion::CloseToGpu { Between::Gpus } else { Between::Cpus };
        Tolerance::of(dtype, between)
    }
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
    /// Where both say what was run: each field that differs, in words.
    pub run: Vec<String>,
    /// In the order of the expected trace; then what only the actual one has.
    pub tensors: Vec<TensorComparison>,
    /// What the actual trace does not have, where that is no difference.
    pub not_compared: Vec<String>,
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
    /// What would make it pass, where that is an order of its dimensions. It is never applied.
    pub hint: Option<String>,
    /// What is close in this dtype; none where it is equal or it is not.
    pub tolerance: Option<Tolerance>,
    /// What the values have in common and what not.
    pub statistics: Statistics,
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

/// Compares every tensor of two traces, and what they say was run where both do; never broadcasts,
/// casts or transposes.
pub fn compare(actual: &Trace, expected: &Trace, criterion: Criterion) -> Comparison {
    let mut run = Vec::new();
    if let Some((actual, expected)) = actual.run_json().zip(expected.run_json()) {
        compare_json("", &actual, &expected, &mut run);
    }
    let mut tensors = Vec::new();
    for (name, expected) in expected.iter() {
        tensors.push(match actual.get(name) {
            Some(actual) => compare_tensor(name, &actual, &expected, criterion),
            None => incomparable(name, &expected, criterion, MISSING.to_owned()),
        });
    }
    for (name, actual) in actual.iter().filter(|(name, _)| expected.get(name).is_none()) {
        tensors.push(incomparable(name, &actual, criterion, "it is not expected".to_owned()));
    }
    Comparison { criterion, run, tensors, not_compared: Vec::new() }
}

impl Comparison {
    /// Whether the same was run, and every tensor is as near as was required.
    pub fn passes(&self) -> bool {
        self.run.is_empty() && self.tensors.iter().all(|tensor| tensor.passes)
    }

    /// Takes it for no difference that the actual trace has fewer tensors: lists them as not compared.
    pub fn leave_out_missing(&mut self) {
        let tensors = std::mem::take(&mut self.tensors).into_iter();
        let (missing, there): (Vec<_>, _) =
            tensors.partition(|tensor| tensor.problem.as_deref() == Some(MISSING));
        self.tensors = there;
        self.not_compared = missing.into_iter().map(|tensor| tensor.name).collect();
    }

    /// Where the difference comes from, in words: what was run; else the first tensor of the dataflow
    /// that differs, in the order of execution, and the operation between it and the last that agrees.
    /// Without a dataflow, the first in the order of the trace.
    pub fn origin(&self, dataflow: &[Edge]) -> Option<String> {
        if let Some(field) = self.run.first() {
            return Some(format!("the runs are not the same: {field}"));
        }
        let differ = self.tensors.iter().filter(|tensor| !tensor.passes);
        let differ = differ.map(|tensor| tensor.name.as_str()).collect::<HashSet<_>>();
        let computed = dataflow.iter().map(|edge| edge.to.as_str()).collect::<HashSet<_>>();
        let given = |edge: &&Edge| !computed.contains(edge.from.as_str());
        if let Some(Edge { from, .. }) =
            dataflow.iter().filter(given).find(|edge| differ.contains(edge.from.as_str()))
        {
            let first = self.first(from);
            return Some(format!("{first}: the runs do not start from the same"));
        }
        if let Some(Edge { from, to, operation }) =
            dataflow.iter().find(|edge| differ.contains(edge.to.as_str()))
        {
            let agrees = match self.tensors.iter().any(|tensor| tensor.name == *from) {
                true => format!("{from} agrees: "),
                false => String::new(),
            };
            return Some(format!("{}; {agrees}look at {operation}", self.first(to)));
        }
        let first = self.tensors.iter().position(|tensor| !tensor.passes)?;
        let agrees = first.checked_sub(1).map(|before| &self.tensors[before].name);
        let agrees = agrees.map_or(String::new(), |name| format!("; {name} agrees"));
        Some(self.first(&self.tensors[first].name) + &agrees)
    }

    fn first(&self, name: &str) -> String {
        let problem = self.tensors.iter().find(|tensor| tensor.name == name);
        match problem.and_then(|tensor| tensor.problem.as_deref()) {
            Some(problem) => format!("{name} is the first to differ ({problem})"),
            None => format!("{name} is the first to differ"),
        }
    }
}

/// Adds the fields that differ, by their path from `at`.
pub(crate) fn compare_json(at: &str, actual: &Value, expected: &Value, differ: &mut Vec<String>) {
    let path = |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
    match (actual, expected) {
        (Value::Object(actual), Value::Object(expected)) => {
            for (key, expected) in expected {
                compare_json(&path(key), actual.get(key).unwrap_or(&Value::Null), expected, differ);
            }
            for (key, actual) in actual.iter().filter(|(key, _)| !expected.contains_key(*key)) {
                compare_json(&path(key), actual, &Value::Null, differ);
            }
        }
        // 0 is 0.0: a number's type says who wrote it. Of two integers every digit counts.
        (Value::Number(a), Value::Number(e))
            if (a.is_f64() || e.is_f64()) && a.as_f64() == e.as_f64() => {}
        _ if actual == expected => {}
        _ => differ.push(format!("{at} is {actual}, not {expected}")),
    }
}

fn incomparable(
    name: &str,
    view: &TensorView,
    criterion: Criterion,
    problem: String,
) -> TensorComparison {
    TensorComparison {
        name: name.to_owned(),
        dtype: view.dtype().to_string(),
        shape: view.shape().to_vec(),
        verdict: Verdict::Differs,
        passes: false,
        problem: Some(problem),
        hint: None,
        tolerance: criterion.tolerance(view.dtype()),
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
        let hint = hint(actual, expected, criterion);
        return TensorComparison { hint, ..incomparable(name, expected, criterion, problem) };
    }
    if actual.dtype() != expected.dtype() {
        let problem = format!("its dtype is {}, not {}", actual.dtype(), expected.dtype());
        return incomparable(name, expected, criterion, problem);
    }
    let tolerance = criterion.tolerance(expected.dtype());
    let statistics = statistics(actual, expected, tolerance);
    let verdict = verdict(&statistics, tolerance);
    let passes = match criterion {
        Criterion::Bitwise => verdict == Verdict::Bitwise,
        Criterion::Close | Criterion::CloseToGpu => verdict != Verdict::Differs,
    };
    let hint = if verdict == Verdict::Differs { hint(actual, expected, criterion) } else { None };
    TensorComparison {
        name: name.to_owned(),
        dtype: expected.dtype().to_string(),
        shape: expected.shape().to_vec(),
        verdict,
        passes,
        problem: None,
        hint,
        tolerance,
        statistics,
    }
}

fn verdict(statistics: &Statistics, tolerance: Option<Tolerance>) -> Verdict {
    let close =
        tolerance.is_some_and(|t| statistics.not_close == 0 && statistics.scaled <= t.scaled);
    match statistics.max_ulp {
        _ if statistics.unequal == 0 => Verdict::Bitwise,
        ulp if close && ulp <= MAX_ULP => Verdict::Ulp(ulp),
        _ if close => Verdict::Close,
        _ => Verdict::Differs,
    }
}

/// The first order of the actual tensor's dimensions in which it comes near the expected one.
fn hint(actual: &TensorView, expected: &TensorView, criterion: Criterion) -> Option<String> {
    let tolerance = criterion.tolerance(expected.dtype());
    if actual.dtype() != expected.dtype() {
        return None;
    }
    permutations(actual, expected.shape()).find_map(|(dims, bytes)| {
        let view = TensorView::new(actual.dtype(), expected.shape().to_vec(), &bytes).ok()?;
        let near = match verdict(&statistics(&view, expected, tolerance), tolerance) {
            Verdict::Bitwise => "bitwise the same",
            Verdict::Ulp(_) | Verdict::Close => "close",
            Verdict::Differs => return None,
        };
        Some(match dims[..] {
            [1, 0] => format!("its transpose is {near}"),
            _ => format!("with its dimensions permuted by {dims:?} it is {near}"),
        })
    })
}

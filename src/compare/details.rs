//! What a page shows of a comparison beyond its verdict: how the differences of a tensor are spread, which elements
//! differ most, and the loss of both runs. It takes another pass over the tensors that differ, and so has to be asked
//! for.

use std::collections::BTreeMap;

use safetensors::tensor::TensorView;
use serde::{Deserialize, Serialize};

use super::complex::{Parts, as_complex, index};
use super::element::Element;
use super::number;
use super::statistics::{Of, Worst, as_elements, index_of, worst};
use super::{Comparison, TensorComparison};
use crate::trace::{Trace, floats, in_step, split_step};

/// The largest number of tensors that have details, the first in the order of execution.
const MAX_TENSORS: usize = 200;

/// The number of elements that are named.
const MAX_WORST: usize = 10;

/// How the values of a tensor differ.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Details {
    /// The numbers of elements by the exponents of |actual - expected|: `(-7, 3)` says that three are at least 1e-7 and
    /// less than 1e-6. The exponents ascend.
    pub histogram: Vec<(i32, usize)>,
    /// The number of elements whose bits differ and whose values do not: signs of zeros, and complex numbers that are
    /// nan on both sides.
    pub zero: usize,
    /// The number of elements whose difference is not finite.
    pub infinite: usize,
    /// The elements that differ most, with the greatest first.
    pub worst: Vec<Worst>,
}

/// The loss of a step in both runs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepLoss {
    /// The step, counted from 1.
    pub step: u32,
    /// The loss of the actual run, or `None` if it has none.
    #[serde(with = "number::optional")]
    pub actual: Option<f64>,
    /// The loss of the expected run, or `None` if it has none.
    #[serde(with = "number::optional")]
    pub expected: Option<f64>,
}

impl Comparison {
    /// Adds the [`Details`] of the first tensors that do not pass, and the losses of both runs.
    pub fn detail(&mut self, actual: &Trace, expected: &Trace) {
        let differ = |tensor: &&&TensorComparison| !tensor.passes && tensor.problem.is_none();
        let tensors = self.in_order_of_execution();
        let first = tensors.iter().filter(differ).take(MAX_TENSORS);
        let names = first.map(|tensor| tensor.name.clone()).collect::<Vec<_>>();
        for tensor in self.tensors.iter_mut().filter(|tensor| names.contains(&tensor.name)) {
            tensor.details = match (actual.get(&tensor.name), expected.get(&tensor.name)) {
                (Some(ours), Some(theirs)) => Some(details(&ours, &theirs)),
                _ => Parts::of_both(&tensor.name, actual, expected).as_ref().map(details_of_parts),
            };
        }
        self.losses = losses(actual, expected);
    }
}

fn losses(actual: &Trace, expected: &Trace) -> Vec<StepLoss> {
    let steps = [actual, expected].into_iter().flat_map(Trace::names).filter_map(|name| {
        let (step, "L") = split_step(name)? else { return None };
        step.parse::<u32>().ok()
    });
    let mut steps = steps.collect::<Vec<_>>();
    steps.sort_unstable();
    steps.dedup();
    let loss = |trace: &Trace, step: u32| {
        let name = format!("step/{step}/L");
        let view = trace.get(&name).or_else(|| trace.get(&in_step(step, "forward/L")))?;
        floats(&view).next()
    };
    let both = steps.into_iter().map(|step| StepLoss {
        step,
        actual: loss(actual, step),
        expected: loss(expected, step),
    });
    both.filter(|loss| loss.actual.is_some() || loss.expected.is_some()).collect()
}

struct Differences;

impl Of for Differences {
    type Found = (Details, Vec<usize>);

    fn of<const N: usize, E: Element<N>>(self, actual: &[u8], expected: &[u8]) -> Self::Found {
        let mut details = Details::default();
        let mut histogram = BTreeMap::<i32, usize>::new();
        // The positions of the worst elements, with the greatest difference first.
        let mut largest = Vec::<(f64, usize)>::new();
        let elements =
            actual.as_chunks::<N>().0.iter().zip(expected.as_chunks::<N>().0).enumerate();
        for (at, (&ours, &theirs)) in elements {
            let (a, e) = (E::read(ours), E::read(theirs));
            if ours == theirs || a.is_same(e) {
                continue;
            }
            let abs = a.distance(e);
            match abs {
                0. => details.zero += 1,
                abs if abs.is_finite() => {
                    *histogram.entry(abs.log10().floor() as i32).or_default() += 1;
                }
                _ => details.infinite += 1,
            }
            if largest.len() < MAX_WORST || largest.last().is_some_and(|(least, _)| abs > *least) {
                let place = largest.partition_point(|(other, _)| *other >= abs);
                largest.insert(place, (abs, at));
                largest.truncate(MAX_WORST);
            }
        }
        details.histogram = histogram.into_iter().collect();
        let element = |at: usize| (actual.as_chunks().0[at], expected.as_chunks().0[at]);
        let named = largest.iter().map(|&(_, at)| {
            let (ours, theirs) = element(at);
            worst::<N, E>(ours, theirs)
        });
        details.worst = named.collect();
        (details, largest.into_iter().map(|(_, at)| at).collect())
    }
}

fn details(actual: &TensorView, expected: &TensorView) -> Details {
    let found = as_elements(expected.dtype(), Differences, actual.data(), expected.data());
    placed(found, |at| index_of(at, expected))
}

fn details_of_parts(both: &[Parts; 2]) -> Details {
    placed(as_complex(Differences, both), |at| index(at, both))
}

fn placed(
    (mut details, places): (Details, Vec<usize>),
    index: impl Fn(usize) -> Vec<usize>,
) -> Details {
    for (worst, at) in details.worst.iter_mut().zip(places) {
        worst.index = index(at);
    }
    details
}

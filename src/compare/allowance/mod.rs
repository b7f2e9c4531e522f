//! How far rounding errors may carry a tensor of a case, which the tolerance of the tensor alone cannot tell.
//!
//! A gradient that is zero in exact arithmetic, such as that of a convolution's bias before batch norm, is the noise
//! of a cancellation. It is small against what was summed up in it, and not against itself. Adam divides such a
//! gradient by its own size and makes whole steps of it, so that the parameters drift apart, and with them whatever
//! is computed from them. The names of a case tell what each tensor was computed from. This module judges the
//! tensors once more in the order of execution, by the formulas of
//! [`TOLERANCES`](super::TOLERANCES).

mod decay;
mod numbers;
mod optimizer;
mod outline;
mod place;

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::complex::{COMPLEX128, part_of};
use super::tolerance::{CARRIED, DRIFTED};
use super::{Criterion, TensorComparison, Verdict};
use crate::trace::{Trace, in_step};
use optimizer::Steps;
use outline::Outline;
use place::{Part, after, place};

/// The states of PyTorch's optimizers that are made of the squares of gradients.
const SQUARES: [&str; 4] = ["exp_avg_sq", "max_exp_avg_sq", "square_avg", "sum"];

/// A difference that rounding may make of a tensor, given what the tensor was computed from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Allowance {
    /// The largest |actual - expected| that is allowed. The elements of a parameter after a step have a bound each:
    /// this is the bound of the element that comes nearest to its own, or exceeds it most.
    pub max_abs: f64,
    /// The reason, in words.
    pub because: String,
}

/// Judges the float tensors of a case that are not close by their own tolerance once more, by their allowance.
pub(super) fn grant(
    tensors: &mut [TensorComparison],
    actual: &Trace,
    expected: &Trace,
    criterion: Criterion,
) {
    let differs = |tensor: &TensorComparison| tensor.problem.is_none() && !tensor.passes;
    if criterion == Criterion::Bitwise || !tensors.iter().any(differs) {
        return;
    }
    let mut walk = Walk {
        outline: Outline::new(expected),
        steps: Steps::new(actual, expected),
        expected,
        right: HashMap::new(),
        step: 1,
        carried: 0.,
        drifted: 0.,
    };
    let whole = |name| part_of(name).map_or(name, |(whole, _)| whole);
    let names = expected.names().flat_map(|name| [name, whole(name)]).collect::<HashSet<_>>();
    for tensor in tensors {
        if let (None, Some(tolerance)) = (&tensor.problem, tensor.tolerance)
            && let Some(&name) = names.get(&*tensor.name)
        {
            walk.judge(tensor, name, tolerance.scaled);
        }
    }
}

/// What is known when a tensor is judged.
struct Walk<'a> {
    expected: &'a Trace,
    outline: Outline<'a>,
    steps: Steps<'a>,
    /// The tensors before it that pass.
    right: HashMap<&'a str, Difference>,
    step: u32,
    /// The largest difference of this step so far, as a part of its tensor's scale, without what drift explains.
    carried: f64,
    /// The largest slack of this step so far, as a part of its tensor's scale.
    drifted: f64,
}

/// How far a tensor that passes is from the expected one.
#[derive(Clone, Copy)]
struct Difference {
    max_abs: f64,
    max_expected: f64,
}

/// What a difference is measured against.
struct Scale {
    size: f64,
    /// What the drift of parameters, or of a sum, adds.
    slack: f64,
    /// How many terms were added up in an element of the tensor.
    terms: f64,
    /// What the size is, if it is not the greatest magnitude of the tensor itself.
    because: Option<String>,
}

impl<'a> Walk<'a> {
    fn judge(&mut self, tensor: &mut TensorComparison, name: &'a str, scaled: f64) {
        let Some((step, part)) = place(name, self.expected) else { return };
        if step != self.step {
            (self.step, self.carried, self.drifted) = (step, 0., 0.);
        }
        match part {
            Part::Given => {}
            Part::Stepped(parameter) => self.judge_parameter(tensor, parameter, scaled),
            Part::State(state, parameter) => self.judge_state(tensor, state, parameter, scaled),
            _ => self.judge_computed(tensor, part, scaled),
        }
        if tensor.passes {
            let found = &tensor.statistics;
            let (max_abs, max_expected) = (found.max_abs, found.max_expected);
            self.right.insert(name, Difference { max_abs, max_expected });
        }
    }

    fn judge_computed(&mut self, tensor: &mut TensorComparison, part: Part<'a>, scaled: f64) {
        let own = tensor.statistics.max_expected;
        let found = tensor.statistics.max_abs;
        let own = Scale { size: own, slack: 0., terms: 1., because: None };
        let scale = match part {
            Part::Output(name) => Scale { slack: self.slack_of_output(name, own.size), ..own },
            // The sum takes another pass over the case, which a small difference does not need.
            Part::Gradient(_) if tensor.passes && found <= self.carried * own.size => own,
            Part::Gradient(name) => self.scale_of_gradient(name, &tensor.shape, own),
            Part::Taken(name) => self.scale_of_taken(name, &tensor.shape, own),
            Part::Buffer(name) => self.scale_of_buffer(name, own),
            _ => own,
        };
        let drift = DRIFTED * self.drifted * scale.size + scale.slack;
        if !tensor.passes {
            let scaled = scaled.max(of_sum(scale.terms, &tensor.dtype));
            let max_abs = (scaled + CARRIED * self.carried) * scale.size + drift;
            let because = self.reasons(&scale);
            settle(tensor, found <= max_abs, Allowance { max_abs, because });
        }
        // What a buffer keeps is not what the step goes on with.
        if tensor.passes && scale.size > 0. && !matches!(part, Part::Buffer(_)) {
            self.carried = self.carried.max((found - drift).max(0.) / scale.size);
            self.drifted = self.drifted.max(scale.slack / scale.size);
        }
    }

    fn judge_parameter(&mut self, tensor: &mut TensorComparison, name: &'a str, scaled: f64) {
        if tensor.passes {
            return;
        }
        let right = |name: &str| self.right.contains_key(name);
        if let Some(bounds) = self.steps.bounds(name, self.step, scaled, right) {
            let because = "the step follows the noise of the gradient".to_owned();
            settle(tensor, bounds.hold, Allowance { max_abs: bounds.nearest, because });
        }
    }

    /// Judges what an optimizer keeps of a parameter: a moving average, or a sum, of its gradients or of their squares.
    fn judge_state(
        &mut self,
        tensor: &mut TensorComparison,
        state: &str,
        name: &'a str,
        scaled: f64,
    ) {
        if tensor.passes {
            return;
        }
        let gradients = (1..=self.step).filter_map(|step| {
            let taken = self.right.get(&*in_step(step, &format!("taken/{name}")));
            taken.or_else(|| self.right.get(&*in_step(step, &format!("grad/{name}"))))
        });
        let decay = self.steps.decay(name);
        let parameters = (0..self.step)
            .filter_map(|step| self.right.get(&*after(step, "param", name)))
            .collect::<Vec<_>>();
        let drift = parameters.iter().map(|parameter| parameter.max_abs).sum::<f64>();
        let differ = gradients.map(|gradient| gradient.max_abs).sum::<f64>() + decay * drift;
        let largest = parameters.iter().map(|parameter| parameter.max_expected).fold(0., f64::max);
        let found = &tensor.statistics;
        // With a factor c up to 1, |c a² - c e²| <= |a - e| * (|a - e| + 2 sqrt(c e²)), and c e² is a part of the state.
        let differ = match SQUARES.contains(&state) {
            true => differ * (differ + 2. * found.max_expected.sqrt()),
            // Decay is added to the gradient, and may cancel it.
            false => differ + scaled / CARRIED * decay * largest,
        };
        let max_abs = scaled * found.max_expected + CARRIED * differ;
        if found.max_abs <= max_abs {
            let because = "it adds up gradients that differ by rounding".to_owned();
            return settle(tensor, true, Allowance { max_abs, because });
        }
        let right = |name: &str| self.right.contains_key(name);
        let bounds = self.steps.bounds_of_state(state, name, self.step, scaled, right);
        let hold = bounds.as_ref().is_some_and(|bounds| bounds.hold);
        let max_abs = bounds.map_or(max_abs, |bounds| bounds.nearest.max(max_abs));
        let because = "it follows gradients that differ by rounding".to_owned();
        settle(tensor, hold, Allowance { max_abs, because });
    }

    /// Returns the scale of a gradient as the optimizer took it: that of the gradient, as much shorter as it is.
    fn scale_of_taken(&self, name: &str, shape: &[usize], own: Scale) -> Scale {
        let gradient = self.right.get(&*in_step(self.step, &format!("grad/{name}")));
        let Some(gradient) = gradient.filter(|gradient| gradient.max_expected > 0.) else {
            return own;
        };
        let shorter = (own.size / gradient.max_expected).min(1.);
        let whole = Scale { size: gradient.max_expected, ..own };
        let scale = self.scale_of_gradient(name, shape, whole);
        Scale { size: scale.size * shorter, ..scale }
    }

    /// Returns what the drift of a module's own parameters adds to the difference of its output.
    fn slack_of_output(&self, output: &str, size: f64) -> f64 {
        let (mut added, mut multiplied) = (0f64, 0f64);
        for name in self.outline.parameters_of(output) {
            let before = after(self.step - 1, "param", name);
            let Some(&Difference { max_abs, max_expected }) = self.right.get(&*before) else {
                continue;
            };
            let shape = self.expected.get(&before).map_or(0, |view| view.shape().len());
            match shape {
                0 | 1 => added = added.max(max_abs),
                _ if max_abs > 0. => multiplied = multiplied.max(max_abs / max_expected),
                _ => {}
            }
        }
        2. * added + CARRIED * multiplied * size
    }

    fn scale_of_gradient(&self, name: &str, shape: &[usize], own: Scale) -> Scale {
        match self.outline.summed_in_gradient(self.step, name, shape) {
            Some((sum, terms)) if sum > own.size => {
                let because = format!("the magnitudes of its terms add up to {sum:.1e} at most");
                Scale { size: sum, terms: terms as f64, because: Some(because), ..own }
            }
            _ => own,
        }
    }

    /// Returns the scale of a buffer after a step. That of a running mean is the size of the values that it is the
    /// mean of, since they cancel.
    fn scale_of_buffer(&self, name: &str, own: Scale) -> Scale {
        let before = after(self.step - 1, "buffer", name);
        let slack = self.right.get(&*before).map_or(0., |found| found.max_abs);
        let input = name
            .strip_suffix(".running_mean")
            .and_then(|module| self.outline.input_of_same_shape(self.step, module));
        let Some((input, size)) = input else { return Scale { slack, ..own } };
        Scale {
            size: own.size.max(size),
            slack: slack + self.right.get(input).map_or(0., |found| found.max_abs),
            because: Some(format!("it is a mean of values up to {size:.1e}")),
            ..own
        }
    }

    fn reasons(&self, scale: &Scale) -> String {
        let carried = (self.carried > 0.).then_some("what it is computed from differs by rounding");
        let drifted = (self.drifted > 0. || scale.slack > 0.)
            .then_some("what it depends on has drifted by rounding since the first step");
        let reasons = scale.because.as_deref().into_iter().chain(carried).chain(drifted);
        reasons.collect::<Vec<_>>().join("; ")
    }
}

/// Returns the rounding error of a sum of so many terms, added up one after the other, as a part of the sum of their
/// magnitudes. Independent roundings would make it `sqrt(n)` units. Those of equal terms are not independent.
fn of_sum(terms: f64, dtype: &str) -> f64 {
    let unit = match dtype {
        "F64" | COMPLEX128 => f64::EPSILON / 2.,
        _ => f64::from(f32::EPSILON) / 2.,
    };
    CARRIED * terms.sqrt() * unit
}

/// Records the allowance of a tensor, and whether it suffices.
fn settle(tensor: &mut TensorComparison, suffices: bool, allowance: Allowance) {
    // A nan or an infinity on one side has an infinite distance.
    if suffices && tensor.statistics.max_abs.is_finite() {
        tensor.passes = true;
        tensor.verdict = Verdict::Close;
        tensor.hint = None;
    }
    tensor.allowance = Some(allowance);
}

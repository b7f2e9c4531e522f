//! How far a parameter, or what the optimizer keeps of it, may be from the expected one after a step.

use std::collections::HashMap;

use safetensors::tensor::Dtype;

use super::decay::Optimizers;
use super::numbers::max_magnitude;
use super::place::after;
use crate::compare::tolerance::{Between, NOISE, Tolerance};
use crate::trace::{Trace, floats, in_step};

/// The steps of two runs, of which the gradients that were judged right are known.
pub(super) struct Steps<'a> {
    actual: &'a Trace,
    expected: &'a Trace,
    optimizers: Optimizers,
    noise: HashMap<&'a str, Noise>,
    /// For each step, the longest step of an element of any parameter.
    longest: HashMap<u32, f64>,
}

/// The noise in the gradients of a parameter, over the steps so far.
#[derive(Default)]
struct Noise {
    steps: u32,
    /// Of each element, the part of a step that may be noise, from 0 to 1.
    parts: Vec<f64>,
}

/// The elements of a parameter after a step, which may differ as much as is allowed to each.
pub(super) struct Bounds {
    /// Whether all elements differ within their bounds.
    pub(super) hold: bool,
    /// The bound of the element that comes nearest to its own, or exceeds it most.
    pub(super) nearest: f64,
}

impl<'a> Steps<'a> {
    pub(super) fn new(actual: &'a Trace, expected: &'a Trace) -> Steps<'a> {
        let optimizers = Optimizers::of(expected.run_json().as_ref());
        let (noise, longest) = (HashMap::new(), HashMap::new());
        Steps { actual, expected, optimizers, noise, longest }
    }

    /// Returns the largest factor of a parameter that is added to its gradient.
    pub(super) fn decay(&self, name: &str) -> f64 {
        self.optimizers.of_parameter(name).largest_decay()
    }

    /// Compares a parameter after step `step`, element by element.
    ///
    /// Each may differ by as much as it did before the step, by rounding, and by the part of the step that follows
    /// the noise of its gradients. `right` says whether a tensor was judged right.
    pub(super) fn bounds(
        &mut self,
        name: &'a str,
        step: u32,
        scaled: f64,
        right: impl Fn(&str) -> bool,
    ) -> Option<Bounds> {
        let [now, before] = [step, step - 1].map(|step| after(step, "param", name));
        let longest = self.longest(step);
        self.learn(name, step, &right);
        self.within(name, [&now, &before], scaled, 2. * longest, right)
    }

    /// Compares what the optimizer keeps of a parameter after step `step`, as [`bounds`](Self::bounds) compares the
    /// parameter.
    pub(super) fn bounds_of_state(
        &mut self,
        state: &str,
        name: &'a str,
        step: u32,
        scaled: f64,
        right: impl Fn(&str) -> bool,
    ) -> Option<Bounds> {
        let now = format!("step/{step}/state/{state}/{name}");
        let before = match step {
            1 => format!("state/{state}/{name}"),
            _ => format!("step/{}/state/{state}/{name}", step - 1),
        };
        self.learn(name, step, &right);
        self.within(name, [&now, &before], scaled, f64::INFINITY, right)
    }

    /// Compares a tensor element by element, which changed from `before` to `now` by no more than `most`.
    fn within(
        &self,
        name: &str,
        [now, before]: [&str; 2],
        scaled: f64,
        most: f64,
        right: impl Fn(&str) -> bool,
    ) -> Option<Bounds> {
        let (a, e) = (self.actual.get(now)?, self.expected.get(now)?);
        let (a, e) = (floats(&a).collect::<Vec<_>>(), floats(&e).collect::<Vec<_>>());
        let values = |trace: &Trace| {
            let values = trace.get(before).map(|view| floats(&view).collect::<Vec<_>>());
            values.filter(|values| values.len() == e.len())
        };
        // Before its first step, an optimizer keeps nothing. A port need not record what it starts from.
        let e_before = values(self.expected).unwrap_or_else(|| vec![0.; e.len()]);
        let a_before = values(self.actual).filter(|_| right(before));
        let a_before = a_before.unwrap_or_else(|| e_before.clone());
        let length = |after: &[f64], before: &[f64]| {
            after.iter().zip(before).map(|(a, b)| (a - b).abs()).fold(0., f64::max)
        };
        let moved = (length(&e, &e_before) + length(&a, &a_before)).min(most);
        let rounding = scaled * e.iter().map(|x| x.abs()).fold(0., f64::max);
        // Several products in bfloat16 follow one another.
        let mixed = match self.optimizers.of_parameter(name).mixes {
            true => Tolerance::of(Dtype::BF16, Between::Cpus).map_or(0., |of| 2. * of.scaled),
            false => 0.,
        };
        let parts = self.noise.get(name).map_or(&[][..], |noise| &noise.parts);
        let mut nearest = (f64::NEG_INFINITY, 0.);
        let mut hold = true;
        for i in 0..e.len() {
            if a[i] == e[i] || a[i].is_nan() && e[i].is_nan() {
                continue;
            }
            let found = (a[i] - e[i]).abs();
            let base = (a_before[i] - e_before[i]).abs() + rounding;
            let bound = base + moved * parts.get(i).copied().unwrap_or(0.).max(mixed);
            hold &= found <= bound;
            if found.is_finite() && found - bound > nearest.0 {
                nearest = (found - bound, bound);
            }
        }
        Some(Bounds { hold, nearest: nearest.1 })
    }

    /// Takes in the gradients up to `step` that were judged right, as the optimizer took them.
    fn learn(&mut self, name: &'a str, step: u32, right: impl Fn(&str) -> bool) {
        let noise = self.noise.entry(name).or_default();
        let of_parameter = self.optimizers.of_parameter(name);
        let (decays, decay) = (&of_parameter.decays, of_parameter.largest_decay());
        for k in noise.steps + 1..=step {
            let both = |full: &str| {
                right(full).then(|| self.actual.get(full).zip(self.expected.get(full))).flatten()
            };
            let [taken, left] =
                ["taken", "grad"].map(|section| in_step(k, &format!("{section}/{name}")));
            let Some((a, e)) = both(&taken).or_else(|| both(&left)) else { continue };
            // Of a port that does not record what the optimizer took, it is known how much shorter it was.
            let taken = self.expected.get(&taken).filter(|_| !right(&taken));
            let shorter = taken.as_ref().map_or(1., |taken| {
                let (taken, left) = (max_magnitude(taken), max_magnitude(&e));
                if left > 0. { (taken / left).min(1.) } else { 1. }
            });
            let before = after(k - 1, "param", name);
            let expected = self.expected.get(&before);
            let parameters = expected.iter().flat_map(floats);
            let actual = both(&before).map(|(actual, _)| actual).or(expected.clone());
            let differ = actual.iter().flat_map(floats).zip(expected.iter().flat_map(floats));
            let differ = differ.map(|(a, e)| (a - e).abs());
            let gradients = floats(&a).zip(floats(&e));
            let all = gradients.zip(parameters.zip(differ)).enumerate();
            for (i, ((a, e), (parameter, drift))) in all {
                // Weight decay can cancel the gradient. What the step follows is then as small as their sum.
                let sum = |decay: &f64| (shorter * e + decay * parameter).abs();
                let size = match decays.is_empty() {
                    true => (shorter * e).abs(),
                    false => decays.iter().map(sum).fold(f64::INFINITY, f64::min),
                };
                let part = match shorter * (a - e).abs() + decay * drift {
                    0. => 0.,
                    noise => (NOISE * noise / size).min(1.),
                };
                match noise.parts.get_mut(i) {
                    Some(known) => *known = known.max(part),
                    None => noise.parts.push(part),
                }
            }
        }
        noise.steps = step;
    }

    /// Returns the longest expected step of an element of any parameter.
    fn longest(&mut self, step: u32) -> f64 {
        let expected = self.expected;
        *self.longest.entry(step).or_insert_with(|| {
            let parameters = expected.names().filter_map(|name| name.strip_prefix("param/"));
            let lengths = parameters.filter_map(|name| {
                let before = expected.get(&after(step - 1, "param", name))?;
                let after = expected.get(&after(step, "param", name))?;
                let moved = floats(&after).zip(floats(&before)).map(|(a, b)| (a - b).abs());
                Some(moved.filter(|x| x.is_finite()).fold(0., f64::max))
            });
            lengths.fold(0., f64::max)
        })
    }
}

//! How far a parameter may be from the expected one after a step of the optimizer.

use std::collections::HashMap;

use super::numbers::elements;
use super::place::after;
use crate::compare::tolerance::NOISE;
use crate::trace::{Trace, in_step};

/// In how many elements, one of so many, the optimizer's own terms may cancel, such as weight decay and gradient.
const ONE_IN: usize = 100;

/// The steps of two runs, of which the gradients that were judged right are known.
pub(super) struct Steps<'a> {
    actual: &'a Trace,
    expected: &'a Trace,
    noise: HashMap<&'a str, Noise>,
    /// For each step, the longest step of an element of any parameter.
    longest: HashMap<u32, f64>,
}

/// Of each element of a parameter, over the steps so far, how far its gradients differ, and how large they are.
#[derive(Default)]
struct Noise {
    steps: u32,
    differences: Vec<f64>,
    sizes: Vec<f64>,
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
        Steps { actual, expected, noise: HashMap::new(), longest: HashMap::new() }
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
        let both = |full: &str| Some((self.actual.get(full)?, self.expected.get(full)?));
        let full = after(step, "param", name);
        let before = after(step - 1, "param", name);
        let (a, e) = both(&full)?;
        let e_before = elements(&self.expected.get(&before)?).collect::<Vec<_>>();
        let known = right(&before);
        // A port need not record what it starts from.
        let a_before = match self.actual.get(&before) {
            Some(view) if known && view.shape() == e.shape() => elements(&view).collect(),
            _ => e_before.clone(),
        };
        self.learn(name, step, &right);
        let longest = self.longest(step);
        let noise = &self.noise[name];
        let (a, e) = (elements(&a).collect::<Vec<_>>(), elements(&e).collect::<Vec<_>>());
        let length = |after: &[f64], before: &[f64]| {
            after.iter().zip(before).map(|(a, b)| (a - b).abs()).fold(0., f64::max)
        };
        let steps = length(&e, &e_before) + length(&a, &a_before);
        let moved = steps.min(2. * longest);
        let rounding = scaled * e.iter().map(|x| x.abs()).fold(0., f64::max);
        let mut nearest = (f64::NEG_INFINITY, 0.);
        let (mut beyond, mut hold) = (0, true);
        for i in 0..e.len() {
            let found = (a[i] - e[i]).abs();
            let base = (a_before[i] - e_before[i]).abs() + rounding;
            let part = match noise.sizes.get(i) {
                Some(&size) if size > 0. => (NOISE * noise.differences[i] / size).min(1.),
                Some(_) if noise.differences[i] > 0. => 1.,
                _ => 0.,
            };
            let bound = base + moved * part;
            if found > bound {
                beyond += 1;
                hold &= found <= base + steps;
            }
            if found.is_finite() && found - bound > nearest.0 {
                nearest = (found - bound, bound);
            }
        }
        hold &= beyond <= e.len() / ONE_IN;
        Some(Bounds { hold, nearest: nearest.1 })
    }

    /// Takes in the gradients up to `step` that were judged right.
    fn learn(&mut self, name: &'a str, step: u32, right: impl Fn(&str) -> bool) {
        let noise = self.noise.entry(name).or_default();
        for k in noise.steps + 1..=step {
            let full = in_step(k, &format!("grad/{name}"));
            if !right(&full) {
                continue;
            }
            let (Some(a), Some(e)) = (self.actual.get(&full), self.expected.get(&full)) else {
                continue;
            };
            let pairs = elements(&a).zip(elements(&e)).map(|(a, e)| ((a - e).abs(), e.abs()));
            for (i, (difference, size)) in pairs.enumerate() {
                if i == noise.sizes.len() {
                    noise.sizes.push(0.);
                    noise.differences.push(0.);
                }
                noise.sizes[i] = f64::max(noise.sizes[i], size);
                noise.differences[i] = f64::max(noise.differences[i], difference);
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
                let moved = elements(&after).zip(elements(&before)).map(|(a, b)| (a - b).abs());
                Some(moved.filter(|x| x.is_finite()).fold(0., f64::max))
            });
            lengths.fold(0., f64::max)
        })
    }
}

//! What a case's names say of its model: the parameters of each module, and the outputs of each step in order.

use std::collections::HashMap;

use super::numbers::{max_channel_sum, max_magnitude};
use super::place::{Part, place};
use crate::trace::{Trace, in_step, split_call};

pub(super) struct Outline<'a> {
    case: &'a Trace,
    /// The parameters of each module and of the modules below it.
    parameters: HashMap<&'a str, Vec<&'a str>>,
    /// The inputs and outputs of each step, in the order of execution: the full name, and the output's own.
    outputs: HashMap<u32, Vec<(&'a str, &'a str)>>,
}

impl<'a> Outline<'a> {
    pub(super) fn new(case: &'a Trace) -> Outline<'a> {
        let mut parameters = HashMap::<_, Vec<_>>::new();
        for name in case.names().filter_map(|name| name.strip_prefix("param/")) {
            for module in modules_above(name) {
                parameters.entry(module).or_default().push(name);
            }
        }
        let mut outputs = HashMap::<_, Vec<_>>::new();
        for full in case.names() {
            match place(full, case) {
                Some((step, Part::Output(name))) => {
                    outputs.entry(step).or_default().push((full, name))
                }
                Some((step, Part::Given)) => outputs.entry(step).or_default().push((full, "")),
                _ => {}
            }
        }
        Outline { case, parameters, outputs }
    }

    /// Returns the parameters of the module that returned `output`, and of the modules below it.
    pub(super) fn parameters_of(&self, output: &str) -> &[&'a str] {
        self.parameters.get(split_call(output).0).map_or(&[], Vec::as_slice)
    }

    fn outputs(&self, step: u32) -> &[(&'a str, &'a str)] {
        self.outputs.get(&step).map_or(&[], Vec::as_slice)
    }

    /// Returns the place of the first output of a module among the outputs of a step.
    fn position(&self, step: u32, module: &str) -> Option<usize> {
        self.outputs(step).iter().position(|(_, output)| split_call(output).0 == module)
    }

    /// Returns an upper bound of the sum of the magnitudes that are added up in an element of a parameter's
    /// gradient, and their number, if the case holds the gradient of what the parameter's module returned.
    ///
    /// For a bias these are the gradients of the output. For a weight, each is multiplied by an input.
    pub(super) fn summed_in_gradient(
        &self,
        step: u32,
        parameter: &str,
        shape: &[usize],
    ) -> Option<(f64, usize)> {
        let channels = *shape.first()?;
        // A layer whose weight another module reads by itself, as attention does, returns nothing.
        let module =
            modules_above(parameter).find(|module| self.position(step, module).is_some())?;
        let position = self.position(step, module)?;
        let calls = self.outputs(step).iter().filter(|(_, output)| split_call(output).0 == module);
        let gradients = calls
            .filter_map(|(_, output)| self.case.get(&in_step(step, &format!("grad/{output}"))));
        let gradients = gradients.collect::<Vec<_>>();
        let sum = gradients.iter().map(|gradient| max_channel_sum(gradient, channels)).sum::<f64>();
        let numel =
            gradients.iter().map(|view| view.shape().iter().product::<usize>()).sum::<usize>();
        let terms = numel / channels.max(1);
        let [_, features, ..] = *shape else { return Some((sum, terms)) };
        // The input has as many features as the weight's second dimension.
        let input = self.before(step, position, |shape| shape.contains(&features));
        Some((sum * input.map_or(1., |(_, size)| size), terms))
    }

    /// Returns the name of the tensor that a module normalizes, which has the shape of what the module returns, and its greatest
    /// magnitude.
    pub(super) fn input_of_same_shape(&self, step: u32, module: &str) -> Option<(&'a str, f64)> {
        let position = self.position(step, module)?;
        let output = self.case.get(self.outputs(step)[position].0)?;
        self.before(step, position, |shape| shape == output.shape())
    }

    /// Returns the nearest tensor before `position` whose shape fits, and its greatest magnitude.
    fn before(
        &self,
        step: u32,
        position: usize,
        fits: impl Fn(&[usize]) -> bool,
    ) -> Option<(&'a str, f64)> {
        self.outputs(step)[..position].iter().rev().find_map(|&(full, _)| {
            let view = self.case.get(full)?;
            fits(view.shape()).then(|| (full, max_magnitude(&view)))
        })
    }
}

/// Lists the module of a parameter, the module that this one is in, and so on, to the model, whose output is `output`.
fn modules_above(parameter: &str) -> impl Iterator<Item = &str> {
    let above = |name: &str| -> Option<usize> { name.rfind('.') };
    std::iter::successors(above(parameter), move |&end| above(&parameter[..end]))
        .map(|end| &parameter[..end])
        .chain(["output"])
}

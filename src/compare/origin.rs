//! The origin of a difference.

use std::collections::{HashMap, HashSet};

use super::{Comparison, TensorComparison};
use crate::trace::{Trace, split_step};

/// A step of the computation, by which one tensor is computed from another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Edge {
    /// The name of the tensor that the operation reads.
    pub from: String,
    /// The name of the tensor that it computes.
    pub to: String,
    /// The name of the operation, by which one would look for it in the code.
    pub operation: String,
}

impl Edge {
    /// Returns the step by which a run is known to part from another one, if its trace says it.
    pub fn of_parting(trace: &Trace) -> Vec<Edge> {
        let parting = trace.parting().map(|(tensor, operation)| Edge {
            from: "what the model is given".to_owned(),
            to: tensor.to_owned(),
            operation: operation.to_owned(),
        });
        Vec::from_iter(parting)
    }
}

impl Comparison {
    /// Returns in words where the difference comes from, or `None` if nothing differs and something that was computed
    /// was compared.
    ///
    /// If what was run differs, that is the origin. Otherwise it is the first tensor of the dataflow that
    /// differs, in the order of execution, with the operation that computes it from a tensor that agrees. Without
    /// a dataflow, it is the first tensor that differs in the order of execution, as far as the names tell it. If
    /// it had other strides than the recorded tensor, or one before it had, that is said as well.
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
            return Some(format!("{first}: the two runs start from different tensors"));
        }
        // The dataflow may lack gradients and what the optimizer computes, of which those of earlier steps come first.
        let is_first = |edge: &&Edge| differ.iter().all(|name| step_of(name) >= step_of(&edge.to));
        if let Some(Edge { from, to, operation }) =
            dataflow.iter().find(|edge| differ.contains(edge.to.as_str())).filter(is_first)
        {
            let agrees = match self.tensors.iter().any(|tensor| tensor.name == *from) {
                true => format!("{from} agrees: "),
                false => String::new(),
            };
            let layout = self.layout_before(to);
            return Some(format!("{}; {agrees}look at {operation}{layout}", self.first(to)));
        }
        let tensors = self.in_order_of_execution();
        let Some(first) = tensors.iter().position(|tensor| !tensor.passes) else {
            return self.compares_nothing_computed().then(|| {
                "nothing that was computed was compared: a comparison of inputs and initial values proves nothing"
                    .to_owned()
            });
        };
        let agrees = first.checked_sub(1).map(|before| &tensors[before].name);
        let agrees = agrees.map_or(String::new(), |name| format!("; {name} agrees"));
        let first = &tensors[first].name;
        Some(self.first(first) + &agrees + &self.layout_before(first))
    }

    /// Returns the tensors in the order of execution, as far as the names tell it.
    ///
    /// That is the order of the trace, with one exception: if the gradients of the outputs are in the order of the
    /// forward pass, their order is reversed.
    pub(crate) fn in_order_of_execution(&self) -> Vec<&TensorComparison> {
        let mut tensors = self.tensors.iter().collect::<Vec<_>>();
        let outputs = tensors.iter().enumerate();
        let outputs =
            outputs.filter_map(|(at, tensor)| Some((tensor.name.strip_prefix("forward/")?, at)));
        let outputs = outputs.collect::<HashMap<_, _>>();
        let gradients = tensors.iter().enumerate().filter_map(|(at, tensor)| {
            Some((at, *outputs.get(tensor.name.strip_prefix("grad/")?)?))
        });
        let gradients = gradients.collect::<Vec<_>>();
        if gradients.is_sorted_by_key(|(_, output)| output) {
            let reversed = gradients.iter().rev().map(|&(at, _)| tensors[at]).collect::<Vec<_>>();
            for (&(at, _), tensor) in gradients.iter().zip(reversed) {
                tensors[at] = tensor;
            }
        }
        tensors
    }

    fn first(&self, name: &str) -> String {
        let problem = self.tensors.iter().find(|tensor| tensor.name == name);
        match problem.and_then(|tensor| tensor.problem.as_deref()) {
            Some(problem) => format!("{name} is the first to differ ({problem})"),
            None => format!("{name} is the first to differ"),
        }
    }
}

/// Returns the step of a tensor, counted from 1, as its name tells it.
fn step_of(name: &str) -> u32 {
    split_step(name).and_then(|(step, _)| step.parse().ok()).unwrap_or(1)
}

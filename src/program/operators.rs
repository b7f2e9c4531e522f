//! What a program says of its operators: which one computes a value, from which values, and where it comes from.

use super::graph::{Node, Operation, Results};
use super::{Input, Program, Slot};
use crate::torch::schema;

/// The operator that computes a value.
pub(crate) struct Computed {
    /// The operator in words: its name, its module, the line of Python that it comes from, and its schema.
    pub(crate) operator: String,
    /// The names of the values that it takes.
    pub(crate) from: Vec<String>,
}

impl Program {
    /// Returns whether an operator computes the value of that name.
    pub(crate) fn computes(&self, value: &str) -> bool {
        self.node_of(value).is_some()
    }

    /// Returns which operator computes the value of that name.
    pub(crate) fn computed(&self, value: &str) -> Option<Computed> {
        Some(self.described(self.node_of(value)?))
    }

    /// Returns of each buffer the last operator that takes it: if it changes in a run, that one changes it.
    pub(crate) fn last_of_buffers(&self) -> Vec<(&str, Computed)> {
        let inputs = self.inputs.iter().zip(&self.graph.inputs);
        let last = inputs.filter_map(|(input, slot)| {
            let Input::Buffer(name) = input else { return None };
            let takes = |node: &&Node| node.arguments.iter().any(|(_, a)| a.slots().contains(slot));
            Some((name.as_str(), self.described(self.graph.nodes.iter().rev().find(takes)?)))
        });
        last.collect()
    }

    /// Returns in words whose backward computes the gradient of the value of that name: that of the operators that take
    /// it. Without one, the gradient comes from outside of the program.
    pub(crate) fn backward_to_value(&self, value: &str) -> Option<String> {
        self.backward_to(&[*self.graph.names.get(value)?])
    }

    /// Returns the same of the parameters whose names fit.
    pub(crate) fn backward_to_parameters(&self, fits: impl Fn(&str) -> bool) -> Option<String> {
        let inputs = self.inputs.iter().zip(&self.graph.inputs);
        let slots = inputs.filter_map(|(input, slot)| match input {
            Input::Parameter(name) if fits(name) => Some(*slot),
            _ => None,
        });
        self.backward_to(&slots.collect::<Vec<_>>())
    }

    fn backward_to(&self, slots: &[Slot]) -> Option<String> {
        let takes = |node: &&Node| {
            let taken = node.arguments.iter().flat_map(|(_, argument)| argument.slots());
            taken.into_iter().any(|slot| slots.contains(&slot))
        };
        let mut readers = self.graph.nodes.iter().filter(takes);
        let first = in_words(readers.next()?);
        let more = match readers.count() {
            0 => String::new(),
            1 => ", and of one more operator".to_owned(),
            count => format!(", and of {count} more operators"),
        };
        Some(format!("the backward of {first}{more}"))
    }

    fn described(&self, node: &Node) -> Computed {
        let takes = node.arguments.iter().flat_map(|(_, argument)| argument.slots());
        let name = |slot: Slot| {
            let known = self.graph.names.iter().find(|(_, known)| **known == slot);
            known.map(|(name, _)| name.clone())
        };
        Computed { operator: in_words(node), from: takes.filter_map(name).collect() }
    }

    fn node_of(&self, value: &str) -> Option<&Node> {
        let slot = self.graph.names.get(value)?;
        let computes =
            |node: &&Node| node.results.iter().flat_map(Results::slots).any(|s| s == *slot);
        self.graph.nodes.iter().find(computes)
    }
}

fn in_words(node: &Node) -> String {
    let place = node.place();
    match &node.operation {
        Operation::Operator { name, overload, .. } => match schema(name, overload) {
            Ok(schema) => format!("{place}: {schema}"),
            Err(_) => place,
        },
        _ => place,
    }
}

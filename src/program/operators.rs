//! What a program says of its operators: which one computes a value, from which values, and where it comes from.

use std::collections::{HashMap, HashSet};

use super::graph::{Argument, Graph, Mode, Node, Operation, Results};
use super::{Input, Program, Slot};
use crate::torch::schema;

/// The operator that computes a value.
pub(crate) struct Computed {
    /// The operator in words: its name, its module, the line of Python that it comes from, and its schema.
    pub(crate) operator: String,
    /// The names of the values that it takes.
    pub(crate) from: Vec<String>,
}

impl Computed {
    /// Returns whether it is the storage of the first value that is taken, as a view is.
    pub(crate) fn is_alias(&self) -> bool {
        self.operator.rsplit_once(" -> ").is_some_and(|(_, to)| to.starts_with("Tensor(a"))
    }

    /// Returns whether it is written to the storage of the first value that is taken.
    pub(crate) fn is_in_place(&self) -> bool {
        self.operator.rsplit_once(" -> ").is_some_and(|(_, to)| to.starts_with("Tensor(a!)"))
    }
}

impl Program {
    /// Returns whether an operator computes the value of that name.
    pub(crate) fn computes(&self, value: &str) -> bool {
        self.graph.computed(value).is_some()
    }

    /// Lists the names of the values that operators compute, in the order of execution.
    pub(crate) fn computed_values(&self) -> Vec<String> {
        self.graph.computed_values()
    }

    /// Lists the names of the values that the program returns, or writes to a buffer or an input at its end.
    pub(crate) fn returned_values(&self) -> Vec<String> {
        self.graph.returned_values()
    }

    /// Returns which operator computes the value of that name.
    pub(crate) fn computed(&self, value: &str) -> Option<Computed> {
        self.graph.computed(value)
    }

    /// Returns of each buffer the last operator that takes it: if it changes in a run, that one changes it.
    pub(crate) fn last_of_buffers(&self) -> Vec<(&str, Computed)> {
        let inputs = self.inputs.iter().zip(&self.graph.inputs);
        let last = inputs.filter_map(|(input, slot)| {
            let Input::Buffer(name) = input else { return None };
            let (node, operator) = self.graph.last_that_takes(*slot)?;
            let from = self.graph.taken_by(node);
            Some((name.as_str(), Computed { operator: in_words(operator), from }))
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
        // What autograd does not record has no backward.
        let is_recorded = |node: &&Node| {
            !matches!(node.operation, Operation::Part { mode: Mode::Gradients(false), .. })
        };
        let readers = self.graph.nodes.iter().filter(takes).filter(is_recorded);
        let readers = readers.collect::<Vec<_>>();
        let (first, others) = readers.split_first()?;
        let (first, more) = match others {
            [] => (in_words(first), String::new()),
            [other] => (first.place(), format!(", and of {}", other.place())),
            _ => (in_words(first), format!(", and of {} more operators", others.len())),
        };
        Some(format!("the backward of {first}{more}"))
    }
}

impl Graph {
    fn returned_values(&self) -> Vec<String> {
        let slots = self.outputs.iter().flat_map(Argument::slots).collect::<HashSet<_>>();
        let returned = self.names.iter().filter(|(_, slot)| slots.contains(slot));
        returned.map(|(name, _)| name.clone()).collect()
    }

    fn computed_values(&self) -> Vec<String> {
        let names = self.names_of_slots();
        let mut values = Vec::new();
        for node in &self.nodes {
            if let Operation::Part { name, graph, .. } = &node.operation {
                values
                    .extend(graph.computed_values().iter().map(|value| format!("{name}.{value}")));
            }
            let slots = node.results.iter().flat_map(Results::slots);
            values.extend(slots.filter_map(|slot| Some((*names.get(&slot)?).to_owned())));
        }
        values
    }

    fn computed(&self, value: &str) -> Option<Computed> {
        if let Some((node, graph, within)) = self.in_part(value) {
            let part = value.strip_suffix(within)?;
            let Computed { operator, from } = graph.computed(within)?;
            // What the part takes has other names in it.
            let from = from.iter().map(|name| format!("{part}{name}")).chain(self.taken_by(node));
            return Some(Computed { operator, from: from.collect() });
        }
        let (node, operator) = self.maker(*self.names.get(value)?)?;
        let mut from = self.taken_by(node);
        if let Operation::Part { name, graph, .. } = &node.operation {
            from.extend(graph.returned_values().iter().map(|value| format!("{name}.{value}")));
        }
        Some(Computed { operator: in_words(operator), from })
    }

    /// Returns the name of each place of a value.
    pub(super) fn names_of_slots(&self) -> HashMap<Slot, &str> {
        self.names.iter().map(|(name, slot)| (*slot, name.as_str())).collect()
    }

    /// Returns the names of the values that a node takes.
    fn taken_by(&self, node: &Node) -> Vec<String> {
        let name = |slot: Slot| {
            let known = self.names.iter().find(|(_, known)| **known == slot);
            known.map(|(name, _)| name.clone())
        };
        let taken = node.arguments.iter().flat_map(|(_, argument)| argument.slots());
        taken.filter_map(name).collect()
    }

    /// Returns the node that computes a value, and the operator: where the node runs a part of the graph, it is that
    /// within it.
    fn maker(&self, slot: Slot) -> Option<(&Node, &Node)> {
        let at =
            |node: &Node| node.results.iter().position(|result| result.slots().contains(&slot));
        let (node, at) = self.nodes.iter().find_map(|node| Some((node, at(node)?)))?;
        let within = || {
            let Operation::Part { graph, .. } = &node.operation else { return None };
            let slots = graph.outputs.get(at)?.slots();
            Some(graph.maker(*slots.first()?)?.1)
        };
        Some((node, within().unwrap_or(node)))
    }

    /// Returns the last node that takes a value, and the operator, as [`maker`](Self::maker) does.
    fn last_that_takes(&self, slot: Slot) -> Option<(&Node, &Node)> {
        let at = |node: &Node| node.arguments.iter().rposition(|(_, a)| a.slots().contains(&slot));
        let (node, at) = self.nodes.iter().rev().find_map(|node| Some((node, at(node)?)))?;
        let within = || {
            let Operation::Part { graph, .. } = &node.operation else { return None };
            Some(graph.last_that_takes(*graph.inputs.get(at)?)?.1)
        };
        Some((node, within().unwrap_or(node)))
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

//! Values of the graph that are passed on while it runs.

use std::collections::HashMap;

use anyhow::{Context, Result, bail};
use tch::Tensor;

use super::Program;
use super::graph::{Graph, Node, Operation, Results, Slot};
use super::interpreter::Values;
use crate::torch::Value;

/// A value of the graph that is passed on: the output of a module's call, or what an operator returned.
pub(crate) struct Tap {
    /// The name under which it is passed on.
    pub(crate) name: String,
    /// The call of the module, such as `layers.0.act@1` for the second. Without one it is passed on at once.
    pub(crate) call: Option<String>,
    /// The name of the value; that of one within a part of the graph is `PART.NAME`.
    pub(crate) value: String,
}

/// Where the values that are passed on are returned in a graph.
#[derive(Default)]
pub(crate) struct Taps {
    after: HashMap<usize, Vec<(String, Slot)>>,
    /// Those of the parts of the graph that are graphs of their own, by the number of the node.
    within: HashMap<usize, Taps>,
}

/// Takes a value by its name.
pub(super) type Take<'a> = dyn FnMut(&str, &Tensor) -> Result<()> + 'a;

impl Program {
    /// Runs the program, and passes the values of `taps` to `take` as they are returned.
    pub(crate) fn run_tapped(&self, inputs: &[Tensor], taps: &Taps, take: &mut Take) -> Result<()> {
        self.run_graph(inputs, taps, take).map(drop)
    }

    /// Runs the program, passes every value to `take` as an operator returns it, and returns the outputs.
    pub(crate) fn run_watched(&self, inputs: &[Tensor], take: &mut Take) -> Result<Vec<Tensor>> {
        self.run_graph(inputs, &self.graph.every_value(""), take)
    }

    /// Finds where modules and operators return. The graph keeps these values until then.
    ///
    /// # Errors
    /// Returns an error if the graph has no value of that name.
    pub(crate) fn tap(&mut self, taps: Vec<Tap>) -> Result<Taps> {
        self.graph.tap(taps)
    }
}

impl Graph {
    fn tap(&mut self, taps: Vec<Tap>) -> Result<Taps> {
        let (mut made_at, mut last_in) = (HashMap::new(), HashMap::<&str, usize>::new());
        for (at, node) in self.nodes.iter().enumerate() {
            made_at.extend(node.results.iter().flat_map(Results::slots).map(|slot| (slot, at)));
            last_in.extend(node.modules.iter().map(|module| (module.as_str(), at)));
        }
        let mut after = HashMap::<usize, Vec<(String, Slot)>>::new();
        let mut of_parts = HashMap::<String, Vec<Tap>>::new();
        let mut kept = Vec::new();
        for tap in taps {
            if let Some((part, value)) = tap.value.split_once('.') {
                let (part, value) = (part.to_owned(), value.to_owned());
                of_parts.entry(part).or_default().push(Tap { value, ..tap });
                continue;
            }
            let slot = self.names.get(&tap.value).copied();
            let slot = slot.with_context(|| format!("the program has no value {}", tap.value))?;
            // A module without an operator returns what it is given.
            let last = tap.call.as_ref().and_then(|call| last_in.get(call.as_str()));
            let at = made_at.get(&slot).max(last).copied().unwrap_or(0);
            after.entry(at).or_default().push((tap.name, slot));
            kept.push((slot, at));
        }
        self.find_last_uses(&kept);
        let mut within = HashMap::new();
        for (at, node) in self.nodes.iter_mut().enumerate() {
            if let Operation::Part { name, graph, .. } = &mut node.operation
                && let Some(taps) = of_parts.remove(name)
            {
                within.insert(at, graph.tap(taps)?);
            }
        }
        if let Some(part) = of_parts.keys().next() {
            bail!("the program has no part {part}");
        }
        Ok(Taps { after, within })
    }

    /// Returns where each operator returns, with the names that follow `of`.
    fn every_value(&self, of: &str) -> Taps {
        let names = self.names_of_slots();
        let mut taps = Taps::default();
        for (at, node) in self.nodes.iter().enumerate() {
            if let Operation::Part { name, graph, .. } = &node.operation {
                taps.within.insert(at, graph.every_value(&format!("{of}{name}.")));
            }
            let slots = node.results.iter().flat_map(Results::slots);
            let named = slots.filter_map(|slot| Some((format!("{of}{}", names.get(&slot)?), slot)));
            taps.after.insert(at, named.collect());
        }
        taps
    }

    /// Returns the node that runs a part of the graph, the part, and the name within it, of a name such as `PART.NAME`.
    pub(super) fn in_part<'a>(&self, value: &'a str) -> Option<(&Node, &Graph, &'a str)> {
        let (part, value) = value.split_once('.')?;
        let mut parts = self.nodes.iter().filter_map(|node| match &node.operation {
            Operation::Part { name, graph, .. } if name == part => Some((node, &**graph)),
            _ => None,
        });
        let (node, graph) = parts.next()?;
        Some((node, graph, value))
    }
}

impl Taps {
    /// Passes on what is returned after a node.
    pub(super) fn pass_on(&self, at: usize, values: &Values, take: &mut Take) -> Result<()> {
        for (name, slot) in self.after.get(&at).into_iter().flatten() {
            if let Some(Value::Tensor(tensor)) = &values[*slot] {
                take(name, tensor)?;
            }
        }
        Ok(())
    }

    /// Returns those of the part of the graph that a node runs.
    pub(super) fn within(&self, at: usize) -> Option<&Taps> {
        self.within.get(&at)
    }
}

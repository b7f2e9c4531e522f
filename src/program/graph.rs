//! A graph of operators as plain data: every name is resolved, and every operator is known to libtorch.

use std::collections::{BTreeSet, HashMap};
use std::ffi::CString;

use anyhow::Result;
use tch::{Device, Tensor};

use super::symbolic::Arithmetic;
use crate::torch::{Autocast, Given, Operator, Value};

/// The place of a value while a graph runs.
pub(super) type Slot = usize;

/// A list of operators in the order in which they run.
#[derive(Debug)]
pub(super) struct Graph {
    pub(super) inputs: Vec<Slot>,
    pub(super) nodes: Vec<Node>,
    pub(super) outputs: Vec<Argument>,
    /// How many values there are.
    pub(super) slots: usize,
    /// The places of the values by their names.
    pub(super) names: HashMap<String, Slot>,
}

/// One operator with its arguments.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) operation: Operation,
    pub(super) arguments: Vec<(String, Argument)>,
    pub(super) results: Vec<Results>,
    /// The calls of modules that it stands in, such as `layers.0` and `layers.0.act@1`.
    pub(super) modules: Vec<String>,
    /// The line of Python that it comes from.
    pub(super) source: Option<String>,
    /// The values that nothing after it needs.
    pub(super) last_uses: Vec<Slot>,
}

#[derive(Debug)]
pub(super) enum Operation {
    /// An operator of PyTorch's dispatcher.
    Operator { name: CString, overload: CString, prepared: Operator },
    /// Arithmetic on sizes.
    Arithmetic(Arithmetic),
    /// A part of the graph that is one of its own.
    Part { mode: Mode, name: String, graph: Box<Graph> },
    /// The mark of a module's inputs or outputs, which returns its arguments.
    Tracepoint,
}

/// In what a part of a graph runs.
#[derive(Debug)]
pub(super) enum Mode {
    /// With or without autograd.
    Gradients(bool),
    /// A state of autocast of its own.
    Autocast(Autocast),
}

impl Mode {
    fn name(&self) -> &'static str {
        match self {
            Mode::Gradients(true) => "the part with gradients",
            Mode::Gradients(false) => "the part without gradients",
            Mode::Autocast(_) => "the part with a state of autocast of its own",
        }
    }
}

/// An argument: what is known, or where it is.
#[derive(Debug)]
pub(super) enum Argument {
    Known(Value),
    Tensor(Slot),
    /// A size, or what was computed from sizes, with a value of its type.
    Number(Slot, Value),
    /// A list of tensors, in which some may be missing.
    Tensors(Vec<Option<Slot>>),
    /// A list of sizes.
    Sizes(Vec<SizeOrSlot>),
}

#[derive(Debug)]
pub(super) enum SizeOrSlot {
    Size(i64),
    Slot(Slot),
}

/// Where one result of an operator goes.
#[derive(Debug)]
pub(super) enum Results {
    Unused,
    One(Slot),
    List(Vec<Slot>),
}

impl Graph {
    pub(super) fn empty() -> Graph {
        let (inputs, nodes, outputs, names) = Default::default();
        Graph { inputs, nodes, outputs, slots: 0, names }
    }

    /// Lists the operators, each once, in order of their names.
    pub(super) fn operators(&self) -> Vec<String> {
        let mut operators = BTreeSet::new();
        for node in &self.nodes {
            match &node.operation {
                Operation::Operator { .. } => drop(operators.insert(node.operation.name())),
                Operation::Part { graph, .. } => operators.extend(graph.operators()),
                Operation::Arithmetic(_) | Operation::Tracepoint => {}
            }
        }
        operators.into_iter().collect()
    }

    /// Lets the operators that make tensors make them on a device, whose name is given as well.
    ///
    /// # Errors
    /// Returns an error if it is no device.
    pub(super) fn compute_on(&mut self, on: Device, device: &str) -> Result<()> {
        for node in &mut self.nodes {
            if let Operation::Part { mode, graph, .. } = &mut node.operation {
                if let Mode::Autocast(autocast) = mode {
                    autocast.compute_on(on);
                }
                graph.compute_on(on, device)?;
            }
            let mut is_other = false;
            for (_, argument) in &mut node.arguments {
                if let Argument::Known(Value::Device(there)) = argument {
                    is_other |= there != device;
                    device.clone_into(there);
                }
            }
            if let Operation::Operator { name, overload, prepared } = &mut node.operation
                && is_other
            {
                *prepared = prepare(name, overload, &node.arguments)?;
            }
        }
        Ok(())
    }

    /// Notes after which node each value can be dropped. `kept` lists values with the node until which they are kept.
    pub(super) fn find_last_uses(&mut self, kept: &[(Slot, usize)]) {
        let mut last = HashMap::<Slot, usize>::new();
        for (at, node) in self.nodes.iter_mut().enumerate() {
            node.last_uses.clear();
            let arguments = node.arguments.iter().flat_map(|(_, argument)| argument.slots());
            let results = node.results.iter().flat_map(Results::slots);
            last.extend(arguments.chain(results).map(|slot| (slot, at)));
        }
        for &(slot, until) in kept {
            let last = last.entry(slot).or_insert(until);
            *last = until.max(*last);
        }
        for output in &self.outputs {
            for slot in output.slots() {
                last.remove(&slot);
            }
        }
        for (slot, at) in last {
            if let Some(node) = self.nodes.get_mut(at) {
                node.last_uses.push(slot);
            }
        }
    }
}

/// Finds an operator, and converts the arguments that are known.
///
/// # Errors
/// Returns an error if libtorch does not have the operator, and if it has other arguments or arguments of other types.
pub(super) fn prepare(
    name: &CString,
    overload: &CString,
    arguments: &[(String, Argument)],
) -> Result<Operator> {
    let tensor = Tensor::new();
    let any = Value::Tensor(tensor.shallow_clone());
    let (mut given, mut known) = (Vec::new(), Vec::new());
    for (name, argument) in arguments {
        let tensors = |slots: &[Option<Slot>]| slots.iter().map(|s| s.map(|_| &tensor)).collect();
        match argument {
            Argument::Known(value) => known.push((&**name, Given::Value(value))),
            Argument::Tensor(_) => given.push((&**name, Given::Value(&any))),
            Argument::Number(_, like) => given.push((&**name, Given::Value(like))),
            Argument::Tensors(slots) => given.push((&**name, Given::Tensors(tensors(slots)))),
            Argument::Sizes(_) => given.push((&**name, Given::Ints(Vec::new()))),
        }
    }
    Operator::new(name, overload, &given, &known)
}

impl Operation {
    /// Returns the name, with that of the overload if there is one, such as `aten::add.Tensor`.
    pub(super) fn name(&self) -> String {
        match self {
            Operation::Operator { name, overload, .. } => {
                let [name, overload] = [name, overload].map(|text| text.to_string_lossy());
                let dot = if overload.is_empty() { "" } else { "." };
                format!("{name}{dot}{overload}")
            }
            Operation::Arithmetic(_) => "Arithmetic".to_owned(),
            Operation::Part { mode, .. } => mode.name().to_owned(),
            Operation::Tracepoint => "Tracepoint".to_owned(),
        }
    }
}

impl Argument {
    pub(super) fn slots(&self) -> Vec<Slot> {
        match self {
            Argument::Known(_) => Vec::new(),
            Argument::Tensor(slot) | Argument::Number(slot, _) => vec![*slot],
            Argument::Tensors(slots) => slots.iter().flatten().copied().collect(),
            Argument::Sizes(sizes) => {
                let slot = |size: &SizeOrSlot| match size {
                    SizeOrSlot::Slot(slot) => Some(*slot),
                    SizeOrSlot::Size(_) => None,
                };
                sizes.iter().filter_map(slot).collect()
            }
        }
    }
}

impl Results {
    pub(super) fn slots(&self) -> Vec<Slot> {
        match self {
            Results::Unused => Vec::new(),
            Results::One(slot) => vec![*slot],
            Results::List(slots) => slots.clone(),
        }
    }
}

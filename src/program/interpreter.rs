//! A graph, run operator by operator.

use anyhow::{Context, Result, bail, ensure};
use tch::{Tensor, no_grad, with_grad};

use super::graph::{Argument, Graph, Mode, Node, Operation, Results, SizeOrSlot, Slot};
use super::taps::{Take, Taps};
use crate::torch::{Given, Value};

/// The values of a graph that runs; a value is dropped after its last use.
pub(super) type Values = [Option<Value>];

/// Runs a graph, passes the values of `taps` to `take`, and returns its outputs.
///
/// # Errors
/// Returns PyTorch's errors, each with the operator, its module and the line of Python that it comes from.
pub(super) fn run(
    graph: &Graph,
    inputs: Vec<Value>,
    taps: &Taps,
    take: &mut Take,
) -> Result<Vec<Value>> {
    let mut values = Vec::new();
    values.resize_with(graph.slots, || None);
    for (slot, input) in graph.inputs.iter().zip(inputs) {
        values[*slot] = Some(input);
    }
    for (at, node) in graph.nodes.iter().enumerate() {
        let within = taps.within(at);
        run_node(node, &mut values, within, take).with_context(|| node.place())?;
        taps.pass_on(at, &values, take)?;
        node.last_uses.iter().for_each(|slot| values[*slot] = None);
    }
    graph.outputs.iter().map(|output| resolved(output, &values)).collect()
}

/// Runs a node. `within` are the taps of the part of the graph that it runs.
fn run_node(
    node: &Node,
    values: &mut Values,
    within: Option<&Taps>,
    take: &mut Take,
) -> Result<()> {
    let results = match &node.operation {
        Operation::Operator { prepared, .. } => prepared.call(&given(node, values)?)?,
        other => {
            let arguments = node
                .arguments
                .iter()
                .map(|(name, argument)| resolved(argument, values).with_context(|| name.clone()));
            run_other(other, arguments.collect::<Result<_>>()?, within, take)?
        }
    };
    let (returned, expected) = (results.len(), node.results.len());
    // An operator that works in place on a list, or only asserts something, returns nothing.
    ensure!(returned == expected || expected == 0, "it returns {returned} values, not {expected}");
    for (result, place) in results.into_iter().zip(&node.results) {
        match (place, result) {
            (Results::Unused, _) => {}
            (Results::One(slot), value) => values[*slot] = Some(value),
            (Results::List(slots), Value::Tensors(tensors)) => {
                let (returned, expected) = (tensors.len(), slots.len());
                ensure!(returned == expected, "it returns {returned} tensors, not {expected}");
                for (slot, tensor) in slots.iter().zip(tensors) {
                    values[*slot] = tensor.map(Value::Tensor);
                }
            }
            (Results::List(_), other) => bail!("it returns {other:?}, not a list of tensors"),
        }
    }
    Ok(())
}

/// Returns the arguments of a node that are not known before it runs.
fn given<'a>(node: &'a Node, values: &'a Values) -> Result<Vec<Given<'a>>> {
    let mut given = Vec::with_capacity(node.arguments.len());
    for (name, argument) in &node.arguments {
        let argument = match argument {
            Argument::Known(_) => continue,
            Argument::Tensor(slot) | Argument::Number(slot, _) => {
                value(*slot, values).map(Given::Value)
            }
            Argument::Tensors(slots) => tensors(slots, values).map(Given::Tensors),
            Argument::Sizes(sizes) => self::sizes(sizes, values).map(Given::Ints),
        };
        given.push(argument.with_context(|| name.clone())?);
    }
    Ok(given)
}

/// Runs what is no operator of PyTorch's dispatcher.
fn run_other(
    operation: &Operation,
    arguments: Vec<Value>,
    within: Option<&Taps>,
    take: &mut Take,
) -> Result<Vec<Value>> {
    match operation {
        Operation::Operator { .. } => bail!("it is an operator of PyTorch"),
        Operation::Arithmetic(arithmetic) => Ok(vec![arithmetic.compute(&arguments)?]),
        Operation::Tracepoint => Ok(arguments),
        Operation::Part { mode, graph, .. } => {
            let none = Taps::default();
            let run = || run(graph, arguments, within.unwrap_or(&none), take);
            match mode {
                Mode::Gradients(true) => with_grad(run),
                Mode::Gradients(false) => no_grad(run),
                Mode::Autocast(autocast) => {
                    let _state = autocast.enter()?;
                    run()
                }
            }
        }
    }
}

fn value(slot: Slot, values: &Values) -> Result<&Value> {
    values[slot].as_ref().context("a value that was not computed")
}

fn tensors<'a>(slots: &[Option<Slot>], values: &'a Values) -> Result<Vec<Option<&'a Tensor>>> {
    let tensor = |slot: &Option<Slot>| match slot.map(|slot| value(slot, values)).transpose()? {
        None => Ok(None),
        Some(Value::Tensor(tensor)) => Ok(Some(tensor)),
        Some(other) => bail!("{other:?} is no tensor"),
    };
    slots.iter().map(tensor).collect()
}

fn sizes(sizes: &[SizeOrSlot], values: &Values) -> Result<Vec<i64>> {
    let size = |size: &SizeOrSlot| match size {
        SizeOrSlot::Size(size) => Ok(*size),
        SizeOrSlot::Slot(slot) => match value(*slot, values)? {
            Value::Int(size) => Ok(*size),
            other => bail!("{other:?} is no size"),
        },
    };
    sizes.iter().map(size).collect()
}

/// Returns the value of an argument; a tensor shares its data.
fn resolved(argument: &Argument, values: &Values) -> Result<Value> {
    Ok(match argument {
        Argument::Known(known) => shared(known),
        Argument::Tensor(slot) | Argument::Number(slot, _) => shared(value(*slot, values)?),
        Argument::Tensors(slots) => {
            let tensors = tensors(slots, values)?.into_iter();
            Value::Tensors(tensors.map(|tensor| tensor.map(Tensor::shallow_clone)).collect())
        }
        Argument::Sizes(sizes) => Value::Ints(self::sizes(sizes, values)?),
    })
}

/// Returns the same value; a tensor shares its data.
fn shared(value: &Value) -> Value {
    match value {
        Value::None => Value::None,
        Value::Tensor(tensor) => Value::Tensor(tensor.shallow_clone()),
        Value::Tensors(tensors) => {
            let tensors = tensors.iter().map(|t| t.as_ref().map(|t| t.shallow_clone()));
            Value::Tensors(tensors.collect())
        }
        Value::Int(value) => Value::Int(*value),
        Value::Ints(values) => Value::Ints(values.clone()),
        Value::Float(value) => Value::Float(*value),
        Value::Floats(values) => Value::Floats(values.clone()),
        Value::Complex(real, imag) => Value::Complex(*real, *imag),
        Value::Bool(value) => Value::Bool(*value),
        Value::Bools(values) => Value::Bools(values.clone()),
        Value::Text(text) => Value::Text(text.clone()),
        Value::Device(device) => Value::Device(device.clone()),
    }
}

impl Node {
    /// Returns in words which operator it is, in which module, and from which line of Python.
    pub(super) fn place(&self) -> String {
        let operation = self.operation.name();
        let from = self.from();
        format!("{operation}{}", place(&from.modules, from.source.as_deref()))
    }

    /// Returns the node whose module and line of Python say where it comes from: of a part of the graph its first one.
    fn from(&self) -> &Node {
        match &self.operation {
            Operation::Part { graph, .. } if self.source.is_none() => {
                let mut nodes = graph.nodes.iter().map(Node::from);
                nodes.find(|node| node.source.is_some()).unwrap_or(self)
            }
            _ => self,
        }
    }
}

/// Returns in words in which module an operator stands, and from which line of Python it comes.
pub(super) fn place(modules: &[String], source: Option<&str>) -> String {
    let module = modules.last().filter(|module| !module.is_empty());
    let module = module.map_or(String::new(), |module| format!(" in {module}"));
    let source = source.map_or(String::new(), |line| format!(" ({line})"));
    module + &source
}

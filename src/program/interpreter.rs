//! A graph, run operator by operator.

use anyhow::{Context, Result, bail, ensure};
use tch::{no_grad, with_grad};

use super::graph::{Argument, Graph, Node, Operation, Results, SizeOrSlot};
use crate::torch::{Value, call_with};

/// The values of a graph that runs; a value is dropped after its last use.
pub(super) type Values = [Option<Value>];

/// Is called after each node, with its number and the values so far.
pub(super) type Watch<'a> = dyn FnMut(usize, &Values) -> Result<()> + 'a;

/// Runs a graph, and returns its outputs.
///
/// # Errors
/// Returns PyTorch's errors, each with the operator, its module and the line of Python that it comes from.
pub(super) fn run(graph: &Graph, inputs: Vec<Value>, watch: &mut Watch) -> Result<Vec<Value>> {
    let mut values = Vec::new();
    values.resize_with(graph.slots, || None);
    for (slot, input) in graph.inputs.iter().zip(inputs) {
        values[*slot] = Some(input);
    }
    for (at, node) in graph.nodes.iter().enumerate() {
        run_node(node, &mut values).with_context(|| node.place())?;
        watch(at, &values)?;
        node.last_uses.iter().for_each(|slot| values[*slot] = None);
    }
    graph.outputs.iter().map(|output| Ok(shared(&*resolved(output, &values)?))).collect()
}

fn run_node(node: &Node, values: &mut Values) -> Result<()> {
    let arguments = node.arguments.iter().map(|(name, argument)| {
        Ok((name.as_str(), resolved(argument, values).with_context(|| name.clone())?))
    });
    let arguments = arguments.collect::<Result<Vec<_>>>()?;
    let results = match &node.operation {
        Operation::Operator { name, overload } => {
            let named = arguments.iter().map(|(name, value)| (*name, &**value));
            call_with(name, overload, &named.collect::<Vec<_>>())?
        }
        Operation::Arithmetic(arithmetic) => {
            let operands = arguments.iter().map(|(_, value)| &**value).collect::<Vec<_>>();
            vec![arithmetic.compute(&operands)?]
        }
        Operation::Tracepoint => arguments.iter().map(|(_, value)| shared(value)).collect(),
        Operation::SetGradEnabled { enabled, graph } => {
            let inputs = arguments.iter().map(|(_, value)| shared(value)).collect();
            let run = || run(graph, inputs, &mut |_, _| Ok(()));
            if *enabled { with_grad(run)? } else { no_grad(run)? }
        }
    };
    drop(arguments);
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

/// A value that is there, or one that is put together for a call.
enum Resolved<'a> {
    There(&'a Value),
    Made(Value),
}

impl std::ops::Deref for Resolved<'_> {
    type Target = Value;

    fn deref(&self) -> &Value {
        match self {
            Resolved::There(value) => value,
            Resolved::Made(value) => value,
        }
    }
}

fn resolved<'a>(argument: &'a Argument, values: &'a Values) -> Result<Resolved<'a>> {
    let value = |slot: usize| values[slot].as_ref().context("a value that was not computed");
    Ok(match argument {
        Argument::Known(value) => Resolved::There(value),
        Argument::One(slot) => Resolved::There(value(*slot)?),
        Argument::Tensors(slots) => {
            let tensors = slots.iter().map(|slot| match slot {
                None => Ok(None),
                Some(slot) => match value(*slot)? {
                    Value::Tensor(tensor) => Ok(Some(tensor.shallow_clone())),
                    other => bail!("{other:?} is no tensor"),
                },
            });
            Resolved::Made(Value::Tensors(tensors.collect::<Result<_>>()?))
        }
        Argument::Sizes(sizes) => {
            let sizes = sizes.iter().map(|size| match size {
                SizeOrSlot::Size(size) => Ok(*size),
                SizeOrSlot::Slot(slot) => match value(*slot)? {
                    Value::Int(size) => Ok(*size),
                    other => bail!("{other:?} is no size"),
                },
            });
            Resolved::Made(Value::Ints(sizes.collect::<Result<_>>()?))
        }
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
        let module = self.modules.last().filter(|module| !module.is_empty());
        let module = module.map_or(String::new(), |module| format!(" in {module}"));
        let source = self.source.as_ref().map_or(String::new(), |line| format!(" ({line})"));
        format!("{operation}{module}{source}")
    }
}

//! How PyTorch's JSON becomes a graph: every name is resolved, and what is not supported is refused.

use std::collections::HashMap;
use std::ffi::CString;

use anyhow::{Context, Result, bail, ensure};

use super::graph::{Argument, Graph, Mode, Node, Operation, Results, SizeOrSlot, Slot, prepare};
use super::interpreter::place;
use super::numbers;
use super::schema::{self, Argument as Json, Symbolic};
use super::source::source;
use super::symbolic::Arithmetic;
use crate::torch::{Autocast, Value, dtype_name};

impl Graph {
    /// Reads a graph.
    ///
    /// # Errors
    /// Returns an error if a name is unknown or defined twice, or if an operator or an argument is not supported.
    pub(super) fn new(json: schema::Graph) -> Result<Graph> {
        let mut names = Names::default();
        let inputs = json.inputs.iter().map(|input| match input {
            Json::AsTensor(input) => names.define(&input.name),
            Json::AsSymInt(Symbolic::AsName(name)) => names.define(name),
            // A number that the program was exported with.
            _ => Ok(names.anonymous()),
        });
        let inputs = inputs.collect::<Result<Vec<_>>>()?;
        let mut nodes = Vec::with_capacity(json.nodes.len());
        for node in json.nodes {
            let target = node.target.clone();
            let classes = schema::module_calls(&node.metadata).filter_map(|call| call.named);
            let classes = classes.map(|(_, class)| class).collect::<Vec<_>>();
            let source = node.metadata.get("stack_trace").and_then(|trace| source(trace, &classes));
            let modules = schema::module_calls(&node.metadata).map(|call| call.key);
            let modules =
                modules.filter_map(|key| key.strip_prefix("L__self__").map(str::to_owned));
            let modules = modules.collect::<Vec<_>>();
            let read = names.node(node).with_context(|| {
                format!("the operator {target}{}", place(&modules, source.as_deref()))
            });
            nodes.push(Node { modules, source, ..read? });
        }
        let outputs = json.outputs.into_iter().map(|output| names.argument(output));
        let outputs = outputs.collect::<Result<Vec<_>>>().context("the outputs")?;
        let mut graph = Graph { inputs, nodes, outputs, slots: names.count, names: names.by_name };
        graph.find_last_uses(&[]);
        Ok(graph)
    }
}

/// The names that are defined so far.
#[derive(Default)]
struct Names {
    by_name: HashMap<String, Slot>,
    count: usize,
}

impl Names {
    fn anonymous(&mut self) -> Slot {
        self.count += 1;
        self.count - 1
    }

    fn define(&mut self, name: &str) -> Result<Slot> {
        let slot = self.anonymous();
        ensure!(
            self.by_name.insert(name.to_owned(), slot).is_none(),
            "two values are named {name}"
        );
        Ok(slot)
    }

    fn find(&self, name: &str) -> Result<Slot> {
        let found = self.by_name.get(name).copied();
        found.with_context(|| format!("no value is named {name} before it is used"))
    }

    /// Reads a node, all but where it comes from.
    fn node(&mut self, node: schema::Node) -> Result<Node> {
        let schema::Node { target, inputs, outputs, .. } = node;
        let mut inputs = inputs.into_iter();
        let operation = match target.as_str() {
            "torch.ops.higher_order._export_tracepoint" => Some(Operation::Tracepoint),
            "torch.ops.higher_order.wrap_with_set_grad_enabled" => {
                let Some(Json::AsBool(enabled)) = inputs.next().map(|input| input.arg) else {
                    bail!("it has no mode");
                };
                Some(part(Mode::Gradients(enabled), &mut inputs)?)
            }
            "torch.ops.higher_order.wrap_with_autocast" => {
                Some(part(Mode::Autocast(autocast(&mut inputs)?), &mut inputs)?)
            }
            other => match Arithmetic::of(other) {
                None if other.starts_with("torch.ops.higher_order.") => {
                    bail!("operators that are given a graph, such as control flow, are not run")
                }
                arithmetic => arithmetic.map(Operation::Arithmetic),
            },
        };
        let mut arguments = Vec::new();
        for input in inputs {
            // The marks of a tracepoint.
            if matches!((&operation, &input.arg), (Some(Operation::Tracepoint), Json::AsString(_)))
            {
                continue;
            }
            let argument = self.argument(input.arg);
            arguments.push((input.name.clone(), argument.with_context(|| input.name)?));
        }
        let operation = match operation {
            Some(operation) => operation,
            None => operator(&target, &arguments)?,
        };
        let results = outputs.into_iter().map(|output| self.results(output));
        let results = results.collect::<Result<Vec<_>>>()?;
        let (modules, source, last_uses) = Default::default();
        Ok(Node { operation, arguments, results, modules, source, last_uses })
    }

    fn argument(&self, argument: Json) -> Result<Argument> {
        let tensors = |named: Vec<schema::Named>| {
            let slots = named.iter().map(|tensor| self.find(&tensor.name).map(Some));
            slots.collect::<Result<Vec<_>>>().map(Argument::Tensors)
        };
        let optional = |tensor: &schema::OptionalTensor| match tensor {
            schema::OptionalTensor::AsTensor(tensor) => self.find(&tensor.name).map(Some),
            schema::OptionalTensor::AsNone(_) => Ok(None),
        };
        let number = |name: &str, like| Ok(Argument::Number(self.find(name)?, like));
        let floats = |floats: Vec<schema::Float>| floats.iter().map(|float| float.0).collect();
        Ok(Argument::Known(match argument {
            Json::AsTensor(tensor) => return self.find(&tensor.name).map(Argument::Tensor),
            Json::AsTensors(named) => return tensors(named),
            Json::AsOptionalTensor(tensor) => match optional(&tensor)? {
                Some(slot) => return Ok(Argument::Tensor(slot)),
                None => Value::None,
            },
            Json::AsOptionalTensors(tensors) => {
                let slots = tensors.iter().map(optional).collect::<Result<_>>()?;
                return Ok(Argument::Tensors(slots));
            }
            Json::AsSymInt(Symbolic::AsName(name)) => return number(&name, Value::Int(0)),
            Json::AsSymBool(Symbolic::AsName(name)) => return number(&name, Value::Bool(false)),
            Json::AsSymFloat(Symbolic::AsName(name)) => return number(&name, Value::Float(0.)),
            Json::AsSymInts(sizes) => {
                let sizes = sizes.into_iter().map(|size| match size {
                    Symbolic::AsName(name) => self.find(&name).map(SizeOrSlot::Slot),
                    Symbolic::AsValue(size) => Ok(SizeOrSlot::Size(size)),
                });
                return sizes.collect::<Result<_>>().map(Argument::Sizes);
            }
            Json::AsNone(_) => Value::None,
            Json::AsInt(value) | Json::AsSymInt(Symbolic::AsValue(value)) => Value::Int(value),
            Json::AsInts(values) => Value::Ints(values),
            Json::AsFloat(value) | Json::AsSymFloat(Symbolic::AsValue(value)) => {
                Value::Float(value.0)
            }
            Json::AsFloats(values) => Value::Floats(floats(values)),
            Json::AsBool(value) | Json::AsSymBool(Symbolic::AsValue(value)) => Value::Bool(value),
            Json::AsBools(values) => Value::Bools(values),
            Json::AsString(text) => Value::Text(text),
            Json::AsScalarType(dtype) => Value::Int(numbers::dtype(dtype)?.0),
            Json::AsMemoryFormat(format) => Value::Int(numbers::memory_format(format)?),
            Json::AsLayout(layout) => {
                ensure!(layout == numbers::STRIDED, "layout {layout} is not supported");
                Value::Int(0)
            }
            Json::AsDevice(schema::Device { r#type, index }) => {
                let index = index.map_or(String::new(), |index| format!(":{index}"));
                Value::Device(r#type + &index)
            }
            Json::AsComplex(value) => Value::Complex(value.real.0, value.imag.0),
            other => bail!("an argument of the type {} is not supported here", other.refused()),
        }))
    }

    fn results(&mut self, output: Json) -> Result<Results> {
        Ok(match output {
            Json::AsTensor(tensor) => Results::One(self.define(&tensor.name)?),
            Json::AsSymInt(Symbolic::AsName(name))
            | Json::AsSymBool(Symbolic::AsName(name))
            | Json::AsSymFloat(Symbolic::AsName(name)) => Results::One(self.define(&name)?),
            Json::AsTensors(named) => {
                let slots = named.iter().map(|tensor| self.define(&tensor.name));
                Results::List(slots.collect::<Result<_>>()?)
            }
            Json::AsOptionalTensor(schema::OptionalTensor::AsTensor(tensor)) => {
                Results::One(self.define(&tensor.name)?)
            }
            Json::AsOptionalTensor(schema::OptionalTensor::AsNone(_))
            | Json::AsNone(_)
            | Json::AsInt(_)
            | Json::AsBool(_)
            | Json::AsFloat(_) => Results::Unused,
            _ => bail!("it returns what is not supported"),
        })
    }
}

/// Reads the graph that an operator is given, which takes all inputs after it.
fn part(
    mode: Mode,
    inputs: &mut impl ExactSizeIterator<Item = schema::NamedArgument>,
) -> Result<Operation> {
    let Some(Json::AsGraph(graph)) = inputs.next().map(|input| input.arg) else {
        bail!("it has no graph");
    };
    let (name, graph) = (graph.name, Box::new(Graph::new(*graph.graph)?));
    let (given, takes) = (inputs.len(), graph.inputs.len());
    ensure!(given == takes, "its graph takes {takes} values, and {given} are given");
    Ok(Operation::Part { mode, name, graph })
}

/// Reads the state of autocast that a part of the graph runs in.
fn autocast(inputs: &mut impl Iterator<Item = schema::NamedArgument>) -> Result<Autocast> {
    let mut next = || inputs.next().map(|input| input.arg);
    match [next(), next(), next(), next()] {
        [
            Some(Json::AsString(device)),
            Some(Json::AsScalarType(dtype)),
            Some(Json::AsBool(enabled)),
            Some(Json::AsBool(cache)),
        ] => {
            let dtype = dtype_name(numbers::dtype(dtype)?.1);
            Autocast::new(cache).with(&device, enabled, dtype.trim_start_matches("torch."))
        }
        _ => bail!("it does not say the state of autocast"),
    }
}

/// The operators that open files, which a program that comes from anywhere must not.
const WITH_FILES: [&str; 1] = ["from_file"];

/// The operators that trust their arguments: with others they read and write any memory. torch.export writes none.
fn is_unsafe(name: &str) -> bool {
    name.ends_with("_unsafe") || ["_reshape_alias", "_reshape_alias_copy"].contains(&name)
}

/// Returns the operator that a name such as `torch.ops.aten.add.Tensor` stands for, with its arguments.
fn operator(target: &str, arguments: &[(String, Argument)]) -> Result<Operation> {
    ensure!(
        !target.starts_with("torch._functorch."),
        "it is not supported, as torch.vmap uses it: exported.run_decompositions() returns a program without it"
    );
    let parts = target.strip_prefix("torch.ops.").map(|name| name.split('.').collect::<Vec<_>>());
    let Some([namespace, name, overload]) = parts.as_deref() else {
        bail!("it is not supported");
    };
    ensure!(
        *namespace == "aten" && !WITH_FILES.contains(name),
        "it is not supported: only operators of aten are run, and none that opens files"
    );
    ensure!(!is_unsafe(name), "it is not supported, since it does not check its arguments");
    let overload = if *overload == "default" { "" } else { overload };
    let name = CString::new(format!("{namespace}::{name}"))?;
    let overload = CString::new(overload)?;
    let prepared = prepare(&name, &overload, arguments)?;
    Ok(Operation::Operator { name, overload, prepared })
}

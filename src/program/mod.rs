//! A program that `torch.export` wrote: read as plain data, and run in Rust with its backward.
//!
//! This room knows the graph of a program, its parameters, and libtorch's operators by their names. It does not know
//! cases, optimizers, or how a result is shown. `schema.rs`, `read.rs` and `graph.rs` are plain data; only
//! `interpreter.rs` runs.

mod double;
mod graph;
mod guards;
mod inputs;
mod interpreter;
pub(crate) mod nested;
pub(crate) mod numbers;
mod operators;
mod pt2;
mod read;
pub(crate) mod schema;
mod source;
mod symbolic;
mod taps;

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, bail, ensure};
use indexmap::IndexMap;
use tch::{Device, Tensor, no_grad};

use crate::torch::Value;
use graph::{Graph, Slot};
use guards::Guard;
use inputs::UserInput;
use interpreter::run;
pub(crate) use operators::Computed;
use schema::{Exported, InputSpec, OutputSpec};
use taps::Take;
pub(crate) use taps::{Tap, Taps};

/// A program that `torch.export` wrote, with its parameters and buffers.
///
/// ```no_run
/// use tch::{Kind, Tensor};
/// use tch_parity::Program;
///
/// let program = Program::load("model.pt2")?;
/// let outputs = program.run(&[Tensor::ones([2, 4], (Kind::Float, tch::Device::Cpu))])?;
/// outputs[0].f_sum(Kind::Float)?.f_backward()?;
/// for (name, parameter) in program.parameters() {
///     println!("{name}: {:?}", parameter.grad().size());
/// }
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug)]
pub struct Program {
    graph: Graph,
    /// What stands in the place of each input of the graph.
    inputs: Vec<Input>,
    /// What each output of the graph is.
    outputs: Vec<Output>,
    /// The names of the tensors that it returns.
    output_names: Vec<String>,
    user_inputs: Vec<UserInput>,
    guards: Vec<Guard>,
    parameters: IndexMap<String, Tensor>,
    buffers: IndexMap<String, Tensor>,
    constants: IndexMap<String, Tensor>,
}

/// What stands in the place of an input of the graph.
#[derive(Debug)]
enum Input {
    Parameter(String),
    Buffer(String),
    Constant(String),
    /// The n-th tensor that the user gives.
    User(usize),
    /// A number that the program was exported with, which nothing in the graph needs any more.
    Unused,
}

/// What an output of the graph is.
#[derive(Debug)]
enum Output {
    Returned,
    /// The new value of a buffer.
    Buffer(String),
    /// The new value of the n-th tensor that the user gives.
    Input(usize),
}

/// A tensor of a program that a file has beside the graph.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Kind {
    /// A parameter, and whether it requires a gradient.
    Parameter(bool),
    /// A buffer.
    Buffer,
    /// A constant, such as that of `torch.tensor(1.)` within `forward`.
    Constant,
}

/// In which dtypes a program computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precision {
    /// In those that it was exported with.
    Own,
    /// In float64.
    Double,
}

impl Program {
    /// Creates a program from its JSON. `tensor` returns what a file has of a parameter, a buffer or a constant by its
    /// name; a parameter that is tied to another one has to be the same tensor.
    pub(crate) fn new(
        json: &[u8],
        precision: Precision,
        mut tensor: impl FnMut(Kind, &str) -> Result<Tensor>,
    ) -> Result<Program> {
        let mut exported = Exported::read(json)?;
        if precision == Precision::Double {
            double::widen(&mut exported.graph_module.graph);
        }
        let metas = &exported.graph_module.graph.tensor_values;
        let mut program = Program {
            graph: Graph::empty(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            output_names: Vec::new(),
            user_inputs: Vec::new(),
            guards: Vec::new(),
            parameters: IndexMap::new(),
            buffers: IndexMap::new(),
            constants: IndexMap::new(),
        };
        for spec in exported.graph_module.signature.input_specs {
            let input = match spec {
                InputSpec::Parameter { arg, parameter_name: name } => {
                    let requires_grad = metas.get(&arg.name).is_some_and(|meta| meta.requires_grad);
                    let value = tensor(Kind::Parameter(requires_grad), &name)
                        .with_context(|| format!("the parameter {name}"))?;
                    program.parameters.insert(name.clone(), value);
                    Input::Parameter(name)
                }
                InputSpec::Buffer { buffer_name: name, .. } => {
                    let value = tensor(Kind::Buffer, &name);
                    let value = value.with_context(|| format!("the buffer {name}"))?;
                    program.buffers.insert(name.clone(), value);
                    Input::Buffer(name)
                }
                InputSpec::TensorConstant { tensor_constant_name: name, .. } => {
                    let value = tensor(Kind::Constant, &name);
                    let value = value.with_context(|| format!("the constant {name}"))?;
                    program.constants.insert(name.clone(), value);
                    Input::Constant(name)
                }
                InputSpec::UserInput { arg: schema::Argument::AsTensor(arg) } => {
                    let meta = metas.get(&arg.name);
                    let input = UserInput::new(&arg.name, meta, &exported.range_constraints)?;
                    program.user_inputs.push(input);
                    Input::User(program.user_inputs.len() - 1)
                }
                InputSpec::UserInput { arg: schema::Argument::AsSymInt(_) } => {
                    bail!("an input that is a dynamic number is not supported")
                }
                InputSpec::UserInput { .. } | InputSpec::ConstantInput {} => Input::Unused,
            };
            program.inputs.push(input);
        }
        let names = program.user_inputs.iter().map(|input| &*input.name).collect::<Vec<_>>();
        let guards =
            exported.guards_code.iter().filter_map(|code| Guard::read(code, &names).transpose());
        program.guards = guards.collect::<Result<_>>()?;
        program.graph = Graph::new(exported.graph_module.graph)?;
        for spec in exported.graph_module.signature.output_specs {
            program.outputs.push(match spec {
                OutputSpec::UserOutput {} | OutputSpec::LossOutput {} => Output::Returned,
                OutputSpec::BufferMutation { buffer_name: name } => {
                    ensure!(program.buffers.contains_key(&name), "there is no buffer {name}");
                    Output::Buffer(name)
                }
                OutputSpec::UserInputMutation { user_input_name: name } => {
                    let at = program.user_inputs.iter().position(|input| input.name == name);
                    Output::Input(at.with_context(|| format!("there is no input {name}"))?)
                }
            });
        }
        let (returns, listed) = (program.graph.outputs.len(), program.outputs.len());
        ensure!(
            returns == listed,
            "the graph returns {returns} values, and its signature lists {listed}"
        );
        let (takes, given) = (program.graph.inputs.len(), program.inputs.len());
        ensure!(takes == given, "the graph takes {takes} values, and its signature lists {given}");
        let root = exported.graph_module.module_call_graph.iter().find(|call| call.fqn.is_empty());
        let out_spec = root.and_then(|call| Some(call.signature.as_ref()?.out_spec.as_str()));
        let returned = program.graph.outputs.iter().zip(&program.outputs);
        let returned = returned.filter(|(_, output)| matches!(output, Output::Returned));
        let is_tensor = returned
            .map(|(value, _)| matches!(value, graph::Argument::Tensor(_)))
            .collect::<Vec<_>>();
        let names = nested::output_names(out_spec, is_tensor.len()).into_iter().zip(is_tensor);
        program.output_names = names.filter_map(|(name, is)| is.then_some(name)).collect();
        Ok(program)
    }

    /// Lists the parameters by PyTorch's names. As `named_parameters()` does, it lists a parameter of several names
    /// once, under the first of them.
    pub fn parameters(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        let mut seen = HashSet::new();
        let mut first =
            move |tensor: &Tensor| leaf(tensor).is_none_or(|identity| seen.insert(identity));
        let all = self.parameters.iter().filter(move |(_, tensor)| first(tensor));
        all.map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Lists the buffers by PyTorch's names. A run changes them as it does in Python.
    pub fn buffers(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.buffers.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Lists the names of the tensors that [`run`](Self::run) takes, in its order: those of the arguments of `forward`.
    pub fn inputs(&self) -> impl Iterator<Item = &str> {
        self.user_inputs.iter().map(|input| input.name.as_str())
    }

    /// Lists the names of the tensors that [`run`](Self::run) returns, in its order, as a case has them: `output`, or
    /// `output[0]` and so on of a tuple, and `output[logits]` of a dict.
    pub fn outputs(&self) -> impl Iterator<Item = &str> {
        self.output_names.iter().map(String::as_str)
    }

    /// Lists the constants of the program by their names.
    pub(crate) fn constants(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.constants.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Returns the first name of every parameter and buffer that is tied to another one.
    pub(crate) fn first_names(&self) -> HashMap<String, String> {
        let mut first = HashMap::<Leaf, &str>::new();
        let mut names = HashMap::new();
        for (name, tensor) in self.parameters.iter().chain(&self.buffers) {
            if let Some(identity) = leaf(tensor) {
                let known = *first.entry(identity).or_insert(name);
                names.insert(name.clone(), known.to_owned());
            }
        }
        names
    }

    /// Lists the operators of the program, each once.
    pub fn operators(&self) -> Vec<String> {
        self.graph.operators()
    }

    /// Runs the program, and returns the tensors among its outputs in the order of PyTorch's
    /// [pytree](https://docs.pytorch.org/docs/2.13/export.html). They are differentiable, as in Python.
    ///
    /// # Errors
    /// Returns an error if the inputs are others than the program takes, by number, dtype or shape, and PyTorch's
    /// errors, with the operator, the module and the line of Python.
    pub fn run(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        self.run_graph(inputs, &Taps::default(), &mut |_, _| Ok(()))
    }

    /// Checks the dtypes and sizes of what it is given.
    ///
    /// # Errors
    /// Returns an error that names the first input that is not as the program asks for.
    pub(crate) fn takes(&self, given: &[Tensor]) -> Result<()> {
        inputs::check(&self.user_inputs, given)?;
        self.guards.iter().try_for_each(|guard| guard.check(given))
    }

    fn run_graph(&self, given: &[Tensor], taps: &Taps, take: &mut Take) -> Result<Vec<Tensor>> {
        self.takes(given)?;
        let inputs = self.inputs.iter().map(|input| {
            let tensor = match input {
                Input::Parameter(name) => self.parameters.get(name),
                Input::Buffer(name) => self.buffers.get(name),
                Input::Constant(name) => self.constants.get(name),
                Input::User(at) => given.get(*at),
                Input::Unused => None,
            };
            tensor.map_or(Value::None, |tensor| Value::Tensor(tensor.shallow_clone()))
        });
        let outputs = run(&self.graph, inputs.collect(), taps, take)?;
        let mut returned = Vec::new();
        for (value, output) in outputs.into_iter().zip(&self.outputs) {
            let Value::Tensor(tensor) = value else { continue };
            let written = match output {
                Output::Returned => {
                    returned.push(tensor);
                    continue;
                }
                Output::Buffer(name) => self.buffers.get(name),
                Output::Input(at) => given.get(*at),
            };
            if let Some(written) = written {
                no_grad(|| written.shallow_clone().f_copy_(&tensor).map(drop))?;
            }
        }
        Ok(returned)
    }

    /// Lets the operators that make tensors make them on a device.
    ///
    /// # Errors
    /// Returns an error if libtorch does not know the device.
    pub(crate) fn compute_on(&mut self, device: Device) -> Result<()> {
        let name = match device {
            Device::Cuda(index) => format!("cuda:{index}"),
            other => format!("{other:?}").to_lowercase(),
        };
        self.graph.compute_on(device, &name)
    }

    /// Moves the program to a device: its tensors, and the tensors that its operators make.
    ///
    /// # Errors
    /// Returns an error if the device is not there.
    pub fn to_device(&mut self, device: Device) -> Result<()> {
        self.compute_on(device)?;
        let mut moved = HashMap::<Leaf, Tensor>::new();
        let all = self.parameters.values_mut().chain(self.buffers.values_mut());
        for tensor in all.chain(self.constants.values_mut()) {
            // Tied parameters stay one.
            let identity = leaf(tensor);
            *tensor = match identity.as_ref().and_then(|identity| moved.get(identity)) {
                Some(tensor) => tensor.shallow_clone(),
                None => {
                    let requires_grad = tensor.requires_grad();
                    let there = tensor.f_detach()?.f_to_device(device)?;
                    let there = there.f_set_requires_grad(requires_grad)?;
                    moved.extend(identity.map(|identity| (identity, there.shallow_clone())));
                    there
                }
            };
        }
        Ok(())
    }
}

/// What tells a parameter or a buffer from others that share its memory: the place, the sizes, the strides, and whether
/// it has a gradient.
type Leaf = (usize, Vec<i64>, Vec<i64>, bool);

/// Returns what a tensor that is tied to another one has in common with it, or `None` if it has no memory.
fn leaf(tensor: &Tensor) -> Option<Leaf> {
    let place = tensor.data_ptr() as usize;
    let identity = (place, tensor.size(), tensor.stride(), tensor.requires_grad());
    (place != 0 && tensor.numel() > 0).then_some(identity)
}

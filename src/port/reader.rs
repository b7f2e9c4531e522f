//! How the JSON of a program becomes a flat list of steps, without what a person would not write: operators that only
//! assert, conversions that change nothing, and values that nothing needs.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, bail, ensure};

use super::arguments::{Traced, meta_of, symbol};
use super::arithmetic::is_arithmetic_operator;
use super::flat::{Argument, Flat, From, Id, Kind, Meta, ModuleOf, Results, Step, Value, Variable};
use super::python::{Frame, cut, frames};
use crate::program::schema::{self, Argument as Json, InputSpec, Symbolic};

/// Operators that compute nothing.
const ASSERTIONS: [&str; 6] = [
    "_assert_tensor_metadata",
    "_assert_scalar",
    "_assert_async.msg",
    "sym_constrain_range",
    "sym_constrain_range_for_size",
    "lazy_load_decompositions",
];

impl Flat {
    /// Reads the program. `tied` returns the first name of a parameter or a buffer.
    pub(super) fn read(json: &[u8], tied: impl Fn(&str) -> String) -> Result<Flat> {
        let exported = schema::Exported::read(json)?;
        let schema::GraphModule { graph, signature, module_call_graph } = exported.graph_module;
        ensure!(
            signature.output_specs.iter().all(schema::OutputSpec::is_returned),
            "the program was decomposed, so that it returns what its buffers become: port it before run_decompositions()"
        );
        let mut reader = Reader {
            flat: Flat {
                values: Vec::new(),
                steps: Vec::new(),
                inputs: Vec::new(),
                outputs: Vec::new(),
                output_values: Vec::new(),
                output_names: Vec::new(),
                signatures: HashMap::new(),
                variables: Vec::new(),
            },
            names: HashMap::new(),
            traced: HashMap::new(),
        };
        for spec in signature.input_specs {
            let meta = |name: &str| graph.tensor_values.get(name).map(meta_of);
            match spec {
                InputSpec::Parameter { arg, parameter_name } => {
                    let requires_grad =
                        graph.tensor_values.get(&arg.name).is_some_and(|meta| meta.requires_grad);
                    let first = tied(&parameter_name);
                    let meta = meta(&arg.name).context("a parameter of unknown shape")?;
                    reader.variable(&arg.name, first, meta, true, requires_grad, true);
                }
                InputSpec::Buffer { arg, buffer_name, persistent } => {
                    let first = tied(&buffer_name);
                    let meta = meta(&arg.name).context("a buffer of unknown shape")?;
                    reader.variable(&arg.name, first, meta, false, false, persistent);
                }
                InputSpec::TensorConstant { arg, tensor_constant_name } => {
                    let from = From::Constant(tensor_constant_name);
                    reader.define(&arg.name, from, Kind::Tensor, meta(&arg.name));
                }
                InputSpec::UserInput { arg: Json::AsTensor(arg) } => {
                    let id =
                        reader.define(&arg.name, From::Computed, Kind::Tensor, meta(&arg.name));
                    reader.flat.inputs.push(id);
                }
                InputSpec::UserInput { arg: Json::AsSymInt(_) } => {
                    bail!("an input that is a dynamic number is not supported")
                }
                InputSpec::UserInput { .. } | InputSpec::ConstantInput {} => {}
            }
        }
        let known = Known { tensors: &graph.tensor_values, numbers: &graph.sym_int_values };
        reader.graph(graph.nodes, known, true)?;
        let root = module_call_graph.iter().find(|call| call.fqn.is_empty());
        let root = root.and_then(|call| call.signature.as_ref());
        let names =
            root.map(|root| super::python::output_names(&root.out_spec)).unwrap_or_default();
        for (at, output) in graph.outputs.into_iter().enumerate() {
            let value = if let Json::AsTensor(tensor) = &output {
                tensor.name.clone()
            } else {
                String::new()
            };
            if let Argument::Value(id) = reader.argument(output).context("the outputs")?
                && reader.flat.values[id].kind == Kind::Tensor
            {
                reader.flat.output_values.push(value);
                reader.flat.outputs.push(id);
                reader.flat.output_names.extend(names.get(at).cloned());
            }
        }
        for call in module_call_graph {
            if let Some(signature) = call.signature {
                let read = reader.signature(&call.fqn, signature);
                reader.flat.signatures.insert(call.fqn, read);
            }
        }
        let mut flat = reader.flat;
        flat.unite_sizes();
        flat.unite_shared_modules();
        flat.drop_dead();
        flat.find_functions();
        Ok(flat)
    }

    /// Returns whether a step does more than to compute its results: it writes to a tensor or draws random numbers.
    fn has_effects(&self, step: &Step) -> bool {
        let base = step.operator.split('.').next().unwrap_or_default();
        let draws = ["dropout", "bernoulli", "rand", "randn", "randint", "normal", "multinomial"];
        let draws = draws.iter().any(|name| base.contains(name));
        draws || base.ends_with('_') && !base.ends_with("__") || base == "batch_norm"
    }

    fn drop_dead(&mut self) {
        let mut needed = self.outputs.iter().copied().collect::<HashSet<_>>();
        let mut kept = Vec::new();
        for step in std::mem::take(&mut self.steps).into_iter().rev() {
            if self.has_effects(&step) || step.results.ids().iter().any(|id| needed.contains(id)) {
                needed.extend(step.arguments.iter().flat_map(|(_, argument)| argument.ids()));
                kept.push(step);
            }
        }
        kept.reverse();
        self.steps = kept;
    }
}

/// What a graph says of its values, by their names.
#[derive(Clone, Copy)]
struct Known<'a> {
    tensors: &'a HashMap<String, schema::TensorMeta>,
    numbers: &'a HashMap<String, schema::Size>,
}

pub(super) struct Reader {
    pub(super) flat: Flat,
    /// The values by their names: several names are one value where an operator returns what it is given.
    pub(super) names: HashMap<String, Id>,
    /// What calls of modules take and return in a part without autograd, by the call.
    pub(super) traced: HashMap<String, Traced>,
}

impl Reader {
    fn define(&mut self, name: &str, from: From, kind: Kind, meta: Option<Meta>) -> Id {
        let id = self.flat.values.len();
        let symbol = String::new();
        self.flat.values.push(Value { name: name.to_owned(), from, kind, meta, symbol });
        self.names.insert(name.to_owned(), id);
        id
    }

    fn variable(
        &mut self,
        arg: &str,
        name: String,
        meta: Meta,
        is_parameter: bool,
        requires_grad: bool,
        persistent: bool,
    ) {
        let from = From::Variable(name.clone());
        if let Some(known) = self.flat.values.iter().position(|value| value.from == from) {
            self.names.insert(arg.to_owned(), known);
            return;
        }
        self.define(arg, from, Kind::Tensor, Some(meta.clone()));
        let variable =
            Variable { name, meta, is_parameter, requires_grad, persistent, value: None };
        self.flat.variables.push(variable);
    }

    fn graph(&mut self, nodes: Vec<schema::Node>, known: Known<'_>, grad: bool) -> Result<()> {
        for mut node in nodes {
            let (target, metadata) = (node.target.clone(), std::mem::take(&mut node.metadata));
            self.node(node, &metadata, known, grad)
                .with_context(|| format!("the operator {target}{}", place(&metadata)))?;
        }
        Ok(())
    }

    fn node(
        &mut self,
        node: schema::Node,
        metadata: &HashMap<String, String>,
        known: Known<'_>,
        grad: bool,
    ) -> Result<()> {
        let schema::Node { target, inputs, outputs, .. } = node;
        if target == "torch.ops.higher_order._export_tracepoint" {
            self.tracepoint(inputs, outputs);
            return Ok(());
        }
        if target == "torch.ops.higher_order.wrap_with_set_grad_enabled" {
            return self.set_grad_enabled(inputs, outputs, grad);
        }
        if target == "torch.ops.higher_order.wrap_with_autocast" {
            let first = inputs.iter().find_map(|input| match &input.arg {
                Json::AsGraph(graph) => graph.graph.nodes.first(),
                _ => None,
            });
            let first = first.map(|node| place(&node.metadata)).unwrap_or_default();
            bail!("tch has no torch.autocast for the CPU: it begins before the operator{first}");
        }
        let operator = match target.strip_prefix("torch.ops.aten.") {
            Some(operator) => operator.strip_suffix(".default").unwrap_or(operator).to_owned(),
            None if is_arithmetic_operator(&target) => target.clone(),
            None => bail!("it cannot be written in Rust: tch and libtorch do not have it"),
        };
        if ASSERTIONS.contains(&operator.as_str()) {
            return Ok(());
        }
        let mut arguments = Vec::new();
        for input in inputs {
            let argument = self.argument(input.arg);
            arguments.push((input.name.clone(), argument.with_context(|| input.name)?));
        }
        let same = self.unchanged(&operator, &arguments);
        if let (Some(same), [Json::AsTensor(result)]) = (same, &outputs[..]) {
            self.names.insert(result.name.clone(), same);
            return Ok(());
        }
        let is_list = matches!(&outputs[..], [Json::AsTensors(_)]);
        let mut ids = Vec::new();
        for output in outputs {
            match output {
                Json::AsTensor(tensor) => {
                    let meta = known.tensors.get(&tensor.name).map(meta_of);
                    ids.push(self.define(&tensor.name, From::Computed, Kind::Tensor, meta));
                }
                Json::AsTensors(tensors) => {
                    for tensor in tensors {
                        let meta = known.tensors.get(&tensor.name).map(meta_of);
                        ids.push(self.define(&tensor.name, From::Computed, Kind::Tensor, meta));
                    }
                }
                Json::AsSymInt(Symbolic::AsName(name)) => {
                    let id = self.define(&name, From::Computed, Kind::Int, None);
                    self.flat.values[id].symbol =
                        known.numbers.get(&name).map(symbol).unwrap_or_default();
                    ids.push(id);
                }
                Json::AsSymFloat(Symbolic::AsName(name)) => {
                    ids.push(self.define(&name, From::Computed, Kind::Float, None));
                }
                // A condition on sizes, which only assertions read.
                Json::AsSymBool(Symbolic::AsName(_)) => return Ok(()),
                Json::AsNone(_) => ids.push(self.define("", From::Computed, Kind::Tensor, None)),
                _ => bail!("what it returns is not supported"),
            }
        }
        let results = match &ids[..] {
            [one] if !is_list => Results::One(*one),
            _ if is_list => Results::List(ids),
            _ => Results::Tuple(ids),
        };
        // Whether cuDNN may be used is a setting of the recording's, which decides nothing on a CPU.
        for (name, argument) in &mut arguments {
            if name == "cudnn_enabled" || name == "cudnn_enable" {
                *argument = Argument::Bool(true);
            }
        }
        let modules = modules(metadata);
        let frames = metadata.get("stack_trace").map(|trace| frames(trace)).unwrap_or_default();
        let step = Step { operator, arguments, results, modules, frames, grad, mode: None };
        self.flat.steps.push(step);
        Ok(())
    }

    /// Returns the argument that an operator returns as it is.
    fn unchanged(&self, operator: &str, arguments: &[(String, Argument)]) -> Option<Id> {
        let &(_, Argument::Value(id)) = arguments.first()? else { return None };
        let given = |name: &str| arguments.iter().find(|(n, _)| n == name).map(|(_, a)| a);
        let base = operator.split('.').next().unwrap_or_default();
        // A constant is made anew in each run.
        let is_constant = matches!(self.flat.values[id].from, From::Constant(_));
        if base == "alias"
            || is_constant && ["lift_fresh_copy", "lift_fresh", "detach_"].contains(&base)
        {
            return Some(id);
        }
        // It draws nothing then, and returns what it is given.
        if operator == "dropout" && given("p") == Some(&Argument::Float(0.)) {
            return Some(id);
        }
        // `1 / x` is a reciprocal that is multiplied by 1.
        let of_step = |step: &Step| step.results.ids() == [id] && step.operator == "reciprocal";
        let times_one = base == "mul" && given("other") == Some(&Argument::Int(1));
        if times_one && self.flat.steps.last().is_some_and(of_step) {
            return Some(id);
        }
        // Indexing with `:` where a size is open: of a known size PyTorch leaves it out.
        let is = |name: &str, usual: i64| given(name).is_none_or(|a| *a == Argument::Int(usual));
        if operator == "slice.Tensor" && is("start", 0) && is("end", i64::MAX) && is("step", 1) {
            return Some(id);
        }
        // `torch.arange(n) + 0` is what is left of a position that starts at 0.
        let adds_zero = base == "add" && given("other") == Some(&Argument::Int(0));
        let is_integer =
            self.flat.values[id].meta.as_ref().is_some_and(|m| (1..=5).contains(&m.dtype));
        if adds_zero && is_integer {
            return Some(id);
        }
        let copies = given("copy") == Some(&Argument::Bool(true));
        let dtype = self.flat.values[id].meta.as_ref().map(|meta| meta.dtype);
        let same_dtype = match given("dtype") {
            Some(Argument::Dtype(to)) => Some(*to) == dtype,
            _ => true,
        };
        let is_to = base == "to" && operator != "to.other" && !copies;
        (is_to && same_dtype && given("memory_format").is_none()).then_some(id)
    }

    fn set_grad_enabled(
        &mut self,
        inputs: Vec<schema::NamedArgument>,
        outputs: Vec<Json>,
        grad: bool,
    ) -> Result<()> {
        let mut inputs = inputs.into_iter();
        let (Some(Json::AsBool(enabled)), Some(Json::AsGraph(graph))) =
            (inputs.next().map(|i| i.arg), inputs.next().map(|i| i.arg))
        else {
            bail!("it has no mode and no graph");
        };
        ensure!(grad || !enabled, "autograd is switched on within a part without it");
        let inner = *graph.graph;
        ensure!(inputs.len() == inner.inputs.len(), "it takes another number of values");
        // The names of a graph are its own.
        let outer = std::mem::take(&mut self.names);
        for (given, taken) in inputs.zip(inner.inputs) {
            let name = |value: Json| match value {
                Json::AsTensor(tensor) => Some(tensor.name),
                Json::AsSymInt(Symbolic::AsName(name))
                | Json::AsSymFloat(Symbolic::AsName(name)) => Some(name),
                _ => None,
            };
            let names = name(given.arg).zip(name(taken));
            let (given, taken) = names.context("it takes what is neither a tensor nor a size")?;
            let id = outer.get(&given).copied();
            self.names.insert(taken, id.context("a value that is not known")?);
        }
        let known = Known { tensors: &inner.tensor_values, numbers: &inner.sym_int_values };
        self.graph(inner.nodes, known, enabled)?;
        let mut returned = Vec::new();
        for output in inner.outputs {
            returned.push(self.argument(output)?);
        }
        self.names = outer;
        let mut names = Vec::new();
        for output in outputs {
            match output {
                Json::AsTensor(tensor) => names.push(tensor.name),
                Json::AsTensors(tensors) => names.extend(tensors.into_iter().map(|t| t.name)),
                _ => bail!("it returns what is no tensor"),
            }
        }
        ensure!(names.len() == returned.len(), "it returns another number of values");
        for (name, value) in names.into_iter().zip(returned) {
            let Argument::Value(id) = value else { bail!("it returns what is no tensor") };
            self.names.insert(name, id);
        }
        Ok(())
    }
}

/// Returns the calls of modules that an operator is within, the outermost first.
fn modules(metadata: &HashMap<String, String>) -> Vec<ModuleOf> {
    let of = |call: schema::CalledModule<'_>| {
        let (name, class) = call.named?;
        let [key, name, class] = [call.key, name, class].map(str::to_owned);
        Some(ModuleOf { key, name, class })
    };
    schema::module_calls(metadata).filter_map(of).collect()
}

/// Says where an operator stands: in which module, and in which line of Python.
fn place(metadata: &HashMap<String, String>) -> String {
    let module = modules(metadata).pop().map(|module| module.name).filter(|name| !name.is_empty());
    let within = module.map(|name| format!(" of the module {name}")).unwrap_or_default();
    let frames = metadata.get("stack_trace").map(|trace| frames(trace)).unwrap_or_default();
    // The lines of PyTorch itself say nothing to its user, and are long.
    let of_torch = |frame: &&Frame| {
        ["torch/", "/torch/", "<eval_with_key>"].iter().any(|part| frame.file.contains(part))
    };
    let own = frames.iter().flatten().rev().find(|frame| !of_torch(frame));
    let line = own.map(|frame| frame.source.as_str()).filter(|line| !line.is_empty());
    let at = line.map(|line| format!(", in the line `{}`", cut(line))).unwrap_or_default();
    format!("{within}{at}")
}

//! A program in float64: the same graph, in which each dtype of floats is float64.
//!
//! Random numbers are drawn in the dtype of the recording, since float64 takes others from the generator.

use std::collections::HashMap;

use super::schema::{Argument, Graph, Named, NamedArgument, Node, TensorMeta};

/// The number of float64 in PyTorch's schema of programs.
const DOUBLE: i64 = 8;

/// The operators whose random numbers depend on the dtype. Dropout is none of them: its Bernoulli numbers are drawn in
/// one way for all dtypes on a CPU.
const DRAWN: [&str; 19] = [
    "rand",
    "rand_like",
    "randn",
    "randn_like",
    "normal",
    "normal_",
    "normal_functional",
    "uniform",
    "uniform_",
    "exponential",
    "exponential_",
    "log_normal_",
    "cauchy_",
    "bernoulli",
    "bernoulli_",
    "multinomial",
    "poisson",
    "binomial",
    "_standard_gamma",
];

/// Returns the number of the dtype that stands for another one where everything is computed in float64.
fn wide(dtype: i64) -> i64 {
    match dtype {
        6 | 7 | 13 => DOUBLE, // float16, float32, bfloat16
        9 | 10 => 11,         // complex32, complex64
        other => other,
    }
}

/// Lets a graph compute in float64.
pub(super) fn widen(graph: &mut Graph) {
    let mut wider = Wider { metas: &graph.tensor_values, nodes: Vec::new() };
    for node in std::mem::take(&mut graph.nodes) {
        wider.node(node);
    }
    graph.nodes = wider.nodes;
    graph.tensor_values.values_mut().for_each(|meta| meta.dtype = wide(meta.dtype));
}

struct Wider<'a> {
    /// What the graph says of its tensors, with the dtypes of the recording.
    metas: &'a HashMap<String, TensorMeta>,
    nodes: Vec<Node>,
}

impl Wider<'_> {
    fn node(&mut self, mut node: Node) {
        let name = node.target.strip_prefix("torch.ops.aten.").and_then(|t| t.split('.').next());
        let name = name.unwrap_or_default().to_owned();
        if DRAWN.contains(&&*name) {
            return self.drawn(node, name.ends_with('_'));
        }
        if node.target == AUTOCAST {
            return self.without_autocast(node);
        }
        for input in &mut node.inputs {
            match &mut input.arg {
                Argument::AsScalarType(dtype) => *dtype = wide(*dtype),
                Argument::AsGraph(graph) => widen(&mut graph.graph),
                _ => {}
            }
        }
        let of_float =
            |argument: &Argument| self.names(argument).iter().any(|n| self.narrow(n).is_some());
        let makes_floats = node.outputs.iter().any(of_float);
        if makes_floats && !name.is_empty() && !node.inputs.iter().any(|input| of_float(&input.arg))
        {
            return self.made_of_no_floats(node);
        }
        self.nodes.push(node);
    }

    /// Adds a part of the graph with a state of autocast of its own, in which nothing is casted.
    fn without_autocast(&mut self, mut node: Node) {
        for input in &mut node.inputs {
            match &mut input.arg {
                Argument::AsBool(enabled) => *enabled = false,
                Argument::AsGraph(graph) => widen(&mut graph.graph),
                _ => {}
            }
        }
        self.nodes.push(node);
    }

    /// Adds an operator that makes floats of none, in the default dtype unless it is told another one.
    fn made_of_no_floats(&mut self, mut node: Node) {
        let says_dtype = node.inputs.iter().any(|input| input.name == "dtype");
        let takes_tensors = node.inputs.iter().any(|input| !self.names(&input.arg).is_empty());
        if !says_dtype && !takes_tensors {
            let made = self.outputs(&node).iter().find_map(|name| self.narrow(name));
            let arg = Argument::AsScalarType(made.map_or(DOUBLE, wide));
            node.inputs.push(NamedArgument { name: "dtype".to_owned(), arg });
        } else if !says_dtype {
            self.cast_inputs(&mut node, |meta| matches!(meta.dtype, 1..=5).then_some(DOUBLE));
            return self.cast_outputs(node);
        }
        self.nodes.push(node);
    }

    /// Adds an operator that draws random numbers, in the dtype of the recording, and casts what it returns.
    fn drawn(&mut self, mut node: Node, in_place: bool) {
        let written = node.inputs.first().map(|input| self.names(&input.arg)).unwrap_or_default();
        self.cast_inputs(&mut node, |meta| (wide(meta.dtype) != meta.dtype).then_some(meta.dtype));
        match (in_place, written.into_iter().next()) {
            (true, Some(written)) => {
                let Some((node, drawn, result)) = self.renamed(node) else { return };
                let inputs = [("self", tensor(&written)), ("src", tensor(&drawn))];
                let copy = beside(&node, "torch.ops.aten.copy_.default", inputs.into(), &result);
                self.nodes.extend([node, copy]);
            }
            _ => self.cast_outputs(node),
        }
    }

    /// Casts the tensors that a node takes to the dtypes that `to` returns.
    fn cast_inputs(&mut self, node: &mut Node, to: impl Fn(&TensorMeta) -> Option<i64>) {
        let inputs = std::mem::take(&mut node.inputs);
        let mut taken = Vec::with_capacity(inputs.len());
        for (at, mut input) in inputs.into_iter().enumerate() {
            if let [name] = &self.names(&input.arg)[..]
                && let Some(dtype) = self.metas.get(name).and_then(&to)
            {
                let result = self.outputs(node).into_iter().next().unwrap_or_default();
                let cast_name = format!("{name}/{result}/{at}");
                let cast = beside(node, CAST, of_cast(name, dtype), &cast_name);
                self.nodes.push(cast);
                input.arg = tensor(&cast_name);
            }
            taken.push(input);
        }
        node.inputs = taken;
    }

    /// Adds a node, and casts what it returns to float64 if it is a float tensor.
    fn cast_outputs(&mut self, node: Node) {
        if let Some((node, drawn, result)) = self.renamed(node) {
            let cast = beside(&node, CAST, of_cast(&drawn, DOUBLE), &result);
            self.nodes.extend([node, cast]);
        }
    }

    /// Gives the result of a node another name, and returns both names. A node without a float tensor as its result is
    /// added as it is.
    fn renamed(&mut self, mut node: Node) -> Option<(Node, String, String)> {
        if let [Argument::AsTensor(named)] = &mut node.outputs[..]
            && let result = named.name.clone()
            && self.narrow(&result).is_some()
        {
            named.name = format!("{result}/narrow");
            let narrow = named.name.clone();
            return Some((node, narrow, result));
        }
        self.nodes.push(node);
        None
    }

    /// Returns the dtype of a float tensor that has fewer bits than float64.
    fn narrow(&self, name: &str) -> Option<i64> {
        self.metas.get(name).map(|meta| meta.dtype).filter(|dtype| wide(*dtype) != *dtype)
    }

    fn outputs(&self, node: &Node) -> Vec<String> {
        node.outputs.iter().flat_map(|output| self.names(output)).collect()
    }

    /// Lists the names of the tensors of an argument.
    fn names(&self, argument: &Argument) -> Vec<String> {
        use super::schema::OptionalTensor::AsTensor;
        match argument {
            Argument::AsTensor(named) | Argument::AsOptionalTensor(AsTensor(named)) => {
                vec![named.name.clone()]
            }
            Argument::AsTensors(named) => named.iter().map(|named| named.name.clone()).collect(),
            Argument::AsOptionalTensors(tensors) => {
                let name = |tensor: &_| match tensor {
                    AsTensor(named) => Some(named.name.clone()),
                    _ => None,
                };
                tensors.iter().filter_map(name).collect()
            }
            _ => Vec::new(),
        }
    }
}

const AUTOCAST: &str = "torch.ops.higher_order.wrap_with_autocast";

const CAST: &str = "torch.ops.aten.to.dtype";

fn of_cast(name: &str, dtype: i64) -> Vec<(&'static str, Argument)> {
    vec![("self", tensor(name)), ("dtype", Argument::AsScalarType(dtype))]
}

fn tensor(name: &str) -> Argument {
    Argument::AsTensor(Named { name: name.to_owned() })
}

/// Returns a node that stands in the same module as another one.
fn beside(node: &Node, target: &str, inputs: Vec<(&str, Argument)>, result: &str) -> Node {
    let inputs = inputs.into_iter().map(|(name, arg)| NamedArgument { name: name.to_owned(), arg });
    Node {
        target: target.to_owned(),
        inputs: inputs.collect(),
        outputs: vec![tensor(result)],
        metadata: node.metadata.clone(),
    }
}

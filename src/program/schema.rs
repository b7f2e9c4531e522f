//! The JSON of an exported program, as far as it is needed
//! ([schema.py](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/_export/serde/schema.py)).

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

/// The major version of the schema that is read. A minor version adds fields that have defaults.
const MAJOR: u32 = 8;

#[derive(Deserialize)]
pub(crate) struct Exported {
    pub(crate) graph_module: GraphModule,
    #[serde(default)]
    pub(crate) range_constraints: HashMap<String, Range>,
    #[serde(default)]
    pub(crate) guards_code: Vec<String>,
}

impl Exported {
    /// Reads a program.
    ///
    /// # Errors
    /// Returns an error if it is none, or of another version.
    pub(crate) fn read(json: &[u8]) -> Result<Exported> {
        let version = serde_json::from_slice::<OnlyVersion>(json).context("the program")?;
        let Version { major, minor } = version.schema_version;
        ensure!(
            major == MAJOR,
            "the program has version {major}.{minor} of torch.export's schema, and version {MAJOR} is read: \
             export it again with a PyTorch that writes it, such as 2.13"
        );
        serde_json::from_slice(json).context("the program")
    }
}

/// The version, which is read first, since another one may hold anything else.
#[derive(Deserialize)]
struct OnlyVersion {
    schema_version: Version,
}

#[derive(Deserialize)]
struct Version {
    major: u32,
    minor: u32,
}

#[derive(Deserialize)]
pub(crate) struct Range {
    pub(crate) min_val: Option<i64>,
    pub(crate) max_val: Option<i64>,
}

#[derive(Deserialize)]
pub(crate) struct GraphModule {
    pub(crate) graph: Graph,
    pub(crate) signature: Signature,
    #[serde(default)]
    pub(crate) module_call_graph: Vec<ModuleCall>,
}

/// A call of a module, and what it takes and returns.
#[derive(Deserialize)]
pub(crate) struct ModuleCall {
    /// The name of the module, with the number of the call after an `@` from the second call on.
    pub(crate) fqn: String,
    pub(crate) signature: Option<ModuleCallSignature>,
}

#[derive(Deserialize)]
pub(crate) struct ModuleCallSignature {
    pub(crate) inputs: Vec<Argument>,
    pub(crate) outputs: Vec<Argument>,
    /// How the inputs are nested, as JSON of pytree.
    pub(crate) in_spec: String,
    /// How the outputs are nested, as JSON of pytree.
    pub(crate) out_spec: String,
    pub(crate) forward_arg_names: Option<Vec<String>>,
}

#[derive(Deserialize)]
pub(crate) struct Graph {
    pub(crate) inputs: Vec<Argument>,
    pub(crate) outputs: Vec<Argument>,
    pub(crate) nodes: Vec<Node>,
    #[serde(default)]
    pub(crate) tensor_values: HashMap<String, TensorMeta>,
    /// What each number is that is computed from sizes.
    #[serde(default)]
    pub(crate) sym_int_values: HashMap<String, Size>,
}

#[derive(Deserialize)]
pub(crate) struct Node {
    pub(crate) target: String,
    pub(crate) inputs: Vec<NamedArgument>,
    pub(crate) outputs: Vec<Argument>,
    #[serde(default)]
    pub(crate) metadata: HashMap<String, String>,
}

/// A module that was called, as its name and its class; the key tells the call from others.
pub(crate) struct CalledModule<'a> {
    pub(crate) key: &'a str,
    pub(crate) named: Option<(&'a str, &'a str)>,
}

/// The key of an entry that stands for no module.
const NO_MODULE: &str = "_empty_nn_module_stack_from_metadata_hook";

/// Returns the calls of modules that a node is within, the outermost first, of a text such as
/// `L__self__,,Net;L__self___act@1,act,torch.nn.ReLU`.
pub(crate) fn module_calls(
    metadata: &HashMap<String, String>,
) -> impl Iterator<Item = CalledModule<'_>> {
    let entries = metadata.get("nn_module_stack").into_iter().flat_map(|stack| stack.split(';'));
    let calls = entries.map(|entry| match entry.split_once(',') {
        Some((key, rest)) => CalledModule { key, named: rest.split_once(',') },
        None => CalledModule { key: entry, named: None },
    });
    // What torch.export adds itself, such as the sizes of inputs, stands in no module.
    calls.filter(|call| call.key != NO_MODULE)
}

#[derive(Deserialize)]
pub(crate) struct NamedArgument {
    pub(crate) name: String,
    pub(crate) arg: Argument,
}

#[derive(Deserialize)]
pub(crate) struct Named {
    pub(crate) name: String,
}

/// An argument of a node, or what it returns, by PyTorch's names.
#[allow(clippy::enum_variant_names)]
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Argument {
    AsNone(IgnoredAny),
    AsTensor(Named),
    AsTensors(Vec<Named>),
    AsOptionalTensor(OptionalTensor),
    AsOptionalTensors(Vec<OptionalTensor>),
    AsInt(i64),
    AsInts(Vec<i64>),
    AsFloat(Float),
    AsFloats(Vec<Float>),
    AsBool(bool),
    AsBools(Vec<bool>),
    AsString(String),
    AsSymInt(Symbolic<i64>),
    AsSymInts(Vec<Symbolic<i64>>),
    AsSymBool(Symbolic<bool>),
    AsSymFloat(Symbolic<Float>),
    AsScalarType(i64),
    AsMemoryFormat(i64),
    AsLayout(i64),
    AsDevice(Device),
    AsComplex(Complex),
    AsGraph(SubGraph),
    // No operator of aten takes these: they are read so that the error names the operator.
    AsStrings(IgnoredAny),
    AsSymBools(IgnoredAny),
    AsSymFloats(IgnoredAny),
    AsOperator(IgnoredAny),
    AsCustomObj(IgnoredAny),
    AsNestedTensors(IgnoredAny),
    AsIntLists(IgnoredAny),
    AsFloatLists(IgnoredAny),
    AsStringToArgument(IgnoredAny),
}

impl Argument {
    /// Returns PyTorch's name for the type of an argument that is refused.
    pub(crate) fn refused(&self) -> &'static str {
        match self {
            Argument::AsGraph(_) => "as_graph",
            Argument::AsStrings(_) => "as_strings",
            Argument::AsSymBools(_) => "as_sym_bools",
            Argument::AsSymFloats(_) => "as_sym_floats",
            Argument::AsOperator(_) => "as_operator",
            Argument::AsCustomObj(_) => "as_custom_obj",
            Argument::AsNestedTensors(_) => "as_nested_tensors",
            Argument::AsIntLists(_) => "as_int_lists",
            Argument::AsFloatLists(_) => "as_float_lists",
            Argument::AsStringToArgument(_) => "as_string_to_argument",
            _ => "this",
        }
    }
}

/// A complex number.
#[derive(Deserialize)]
pub(crate) struct Complex {
    pub(crate) real: Float,
    pub(crate) imag: Float,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OptionalTensor {
    AsTensor(Named),
    AsNone(IgnoredAny),
}

/// The name of a value that is no tensor, or the value itself.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Symbolic<T> {
    AsName(String),
    #[serde(alias = "as_int", alias = "as_bool", alias = "as_float")]
    AsValue(T),
}

/// A float, of which JSON has no infinities: PyTorch writes these as strings.
#[derive(Clone, Copy)]
pub(crate) struct Float(pub(crate) f64);

impl<'de> Deserialize<'de> for Float {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Float, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Number(f64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Ok(Float(number)),
            // Rust reads `NaN` and `-Infinity` as PyTorch writes them.
            Written::Text(text) => text.parse().map(Float).map_err(serde::de::Error::custom),
        }
    }
}

#[derive(Deserialize)]
pub(crate) struct Device {
    pub(crate) r#type: String,
    pub(crate) index: Option<u32>,
}

#[derive(Deserialize)]
pub(crate) struct SubGraph {
    #[serde(default)]
    pub(crate) name: String,
    pub(crate) graph: Box<Graph>,
}

#[derive(Deserialize)]
pub(crate) struct TensorMeta {
    pub(crate) dtype: i64,
    pub(crate) sizes: Vec<Size>,
    pub(crate) requires_grad: bool,
    #[serde(default)]
    pub(crate) strides: Vec<Size>,
    #[serde(default)]
    pub(crate) storage_offset: Option<Size>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Size {
    AsInt(i64),
    AsExpr(Expression),
}

#[derive(Deserialize)]
pub(crate) struct Expression {
    pub(crate) expr_str: String,
    /// What it was where the program was exported.
    #[serde(default)]
    pub(crate) hint: Option<Hint>,
}

#[derive(Deserialize)]
pub(crate) struct Hint {
    #[serde(default)]
    pub(crate) as_int: Option<i64>,
}

#[derive(Deserialize)]
pub(crate) struct Signature {
    pub(crate) input_specs: Vec<InputSpec>,
    pub(crate) output_specs: Vec<OutputSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum InputSpec {
    UserInput { arg: Argument },
    Parameter { arg: Named, parameter_name: String },
    Buffer { arg: Named, buffer_name: String, persistent: bool },
    TensorConstant { arg: Named, tensor_constant_name: String },
    ConstantInput {},
}

/// What the outputs are. Those of a program that was decomposed are also what its buffers and inputs become.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OutputSpec {
    UserOutput {},
    LossOutput {},
    BufferMutation { buffer_name: String },
    UserInputMutation { user_input_name: String },
}

impl OutputSpec {
    /// Returns whether `forward` returns it.
    pub(crate) fn is_returned(&self) -> bool {
        matches!(self, OutputSpec::UserOutput {} | OutputSpec::LossOutput {})
    }
}

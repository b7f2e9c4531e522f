//! The JSON of an exported program, as far as it is needed
//! ([schema.py](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/_export/serde/schema.py)).

use std::collections::HashMap;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

/// The major version of the schema that is read. A minor version adds fields that have defaults.
pub(super) const MAJOR: u32 = 8;

#[derive(Deserialize)]
pub(super) struct Exported {
    pub(super) graph_module: GraphModule,
    #[serde(default)]
    pub(super) range_constraints: HashMap<String, Range>,
}

/// The version, which is read first, since another one may hold anything else.
#[derive(Deserialize)]
pub(super) struct OnlyVersion {
    pub(super) schema_version: Version,
}

#[derive(Deserialize)]
pub(super) struct Version {
    pub(super) major: u32,
    pub(super) minor: u32,
}

#[derive(Deserialize)]
pub(super) struct Range {
    pub(super) min_val: Option<i64>,
    pub(super) max_val: Option<i64>,
}

#[derive(Deserialize)]
pub(super) struct GraphModule {
    pub(super) graph: Graph,
    pub(super) signature: Signature,
}

#[derive(Deserialize)]
pub(super) struct Graph {
    pub(super) inputs: Vec<Argument>,
    pub(super) outputs: Vec<Argument>,
    pub(super) nodes: Vec<Node>,
    #[serde(default)]
    pub(super) tensor_values: HashMap<String, TensorMeta>,
}

#[derive(Deserialize)]
pub(super) struct Node {
    pub(super) target: String,
    pub(super) inputs: Vec<NamedArgument>,
    pub(super) outputs: Vec<Argument>,
    #[serde(default)]
    pub(super) metadata: HashMap<String, String>,
}

#[derive(Deserialize)]
pub(super) struct NamedArgument {
    pub(super) name: String,
    pub(super) arg: Argument,
}

#[derive(Deserialize)]
pub(super) struct Named {
    pub(super) name: String,
}

/// An argument of a node, or what it returns, by PyTorch's names.
#[allow(clippy::enum_variant_names)]
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Argument {
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
    AsGraph(SubGraph),
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum OptionalTensor {
    AsTensor(Named),
    AsNone(IgnoredAny),
}

/// The name of a value that is no tensor, or the value itself.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Symbolic<T> {
    AsName(String),
    #[serde(alias = "as_int", alias = "as_bool", alias = "as_float")]
    AsValue(T),
}

/// A float, of which JSON has no infinities: PyTorch writes these as strings.
#[derive(Clone, Copy)]
pub(super) struct Float(pub(super) f64);

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
pub(super) struct Device {
    pub(super) r#type: String,
    pub(super) index: Option<u32>,
}

#[derive(Deserialize)]
pub(super) struct SubGraph {
    pub(super) graph: Box<Graph>,
}

#[derive(Deserialize)]
pub(super) struct TensorMeta {
    pub(super) dtype: i64,
    pub(super) sizes: Vec<Size>,
    pub(super) requires_grad: bool,
    #[serde(default)]
    pub(super) strides: Vec<Size>,
    #[serde(default)]
    pub(super) storage_offset: Option<Size>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Size {
    AsInt(i64),
    AsExpr(Expression),
}

#[derive(Deserialize)]
pub(super) struct Expression {
    pub(super) expr_str: String,
}

#[derive(Deserialize)]
pub(super) struct Signature {
    pub(super) input_specs: Vec<InputSpec>,
    #[serde(rename = "output_specs")]
    _output_specs: Vec<OutputSpec>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum InputSpec {
    UserInput { arg: Argument },
    Parameter { arg: Named, parameter_name: String },
    Buffer { buffer_name: String },
    TensorConstant { tensor_constant_name: String },
    ConstantInput {},
}

/// What the outputs are: nothing but what `forward` returns. A program whose buffers are outputs was decomposed for
/// inference, and is refused.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutputSpec {
    UserOutput {},
    LossOutput {},
}

//! How the arguments of an operator in a program's JSON, and the inputs of its modules, become plain data.

use anyhow::{Context, Result, bail};

use super::flat::{Argument, Id, Int, Meta, Signature};
use super::python::{argument_names, places};
use super::reader::Reader;
use crate::program::schema::{self, Argument as Json, Size, Symbolic};

impl Reader {
    fn find(&self, name: &str) -> Result<Id> {
        self.names.get(name).copied().with_context(|| format!("no value is named {name}"))
    }

    pub(super) fn argument(&self, argument: Json) -> Result<Argument> {
        let optional = |tensor: schema::OptionalTensor| match tensor {
            schema::OptionalTensor::AsTensor(tensor) => self.find(&tensor.name).map(Some),
            schema::OptionalTensor::AsNone(_) => Ok(None),
        };
        Ok(match argument {
            Json::AsTensor(tensor) => Argument::Value(self.find(&tensor.name)?),
            Json::AsTensors(tensors) => {
                let ids = tensors.iter().map(|tensor| self.find(&tensor.name).map(Some));
                Argument::List(ids.collect::<Result<_>>()?)
            }
            Json::AsOptionalTensor(tensor) => match optional(tensor)? {
                Some(id) => Argument::Value(id),
                None => Argument::None,
            },
            Json::AsOptionalTensors(tensors) => {
                let ids = tensors.into_iter().map(optional);
                Argument::List(ids.collect::<Result<_>>()?)
            }
            Json::AsSymInt(Symbolic::AsName(name)) | Json::AsSymFloat(Symbolic::AsName(name)) => {
                Argument::Value(self.find(&name)?)
            }
            Json::AsSymBool(Symbolic::AsName(_)) => {
                bail!("a condition on sizes is not supported")
            }
            Json::AsSymInts(ints) => {
                let int = |int| match int {
                    Symbolic::AsName(name) => self.find(&name).map(Int::Value),
                    Symbolic::AsValue(value) => Ok(Int::Known(value)),
                };
                Argument::Ints(ints.into_iter().map(int).collect::<Result<_>>()?)
            }
            Json::AsNone(_) => Argument::None,
            Json::AsInt(int) | Json::AsSymInt(Symbolic::AsValue(int)) => Argument::Int(int),
            Json::AsInts(ints) => Argument::Ints(ints.into_iter().map(Int::Known).collect()),
            Json::AsFloat(float) | Json::AsSymFloat(Symbolic::AsValue(float)) => {
                Argument::Float(float.0)
            }
            Json::AsFloats(floats) => Argument::Floats(floats.iter().map(|f| f.0).collect()),
            Json::AsBool(bool) | Json::AsSymBool(Symbolic::AsValue(bool)) => Argument::Bool(bool),
            Json::AsBools(bools) => Argument::Bools(bools),
            Json::AsString(text) => Argument::Text(text),
            Json::AsScalarType(dtype) => Argument::Dtype(dtype),
            Json::AsMemoryFormat(format) => Argument::MemoryFormat(format),
            Json::AsLayout(_) => Argument::Layout,
            Json::AsDevice(device) => Argument::Device(device.r#type),
            Json::AsComplex(value) => Argument::Complex(value.real.0, value.imag.0),
            Json::AsGraph(_) => bail!("control flow cannot be written in Rust"),
            other => bail!("an argument of the type {} cannot be written", other.refused()),
        })
    }

    /// Reads what a call takes and returns, as far as it is values.
    pub(super) fn signature(
        &self,
        call: &str,
        signature: schema::ModuleCallSignature,
    ) -> Signature {
        let names = argument_names(
            &signature.in_spec,
            signature.forward_arg_names.as_deref().unwrap_or_default(),
        );
        let named = names.into_iter().chain(std::iter::repeat(String::new()));
        let value = |argument| match self.argument(argument) {
            Ok(Argument::Value(id)) => Some(id),
            _ => None,
        };
        if let (Some(traced), true) = (self.traced.get(call), signature.outputs.is_empty()) {
            let inputs = named.zip(traced.inputs.iter().copied()).collect();
            let outputs = traced.outputs.iter().map(|id| (String::new(), *id)).collect();
            return Signature { inputs, outputs };
        }
        let places =
            places(&signature.out_spec).into_iter().chain(std::iter::repeat(String::new()));
        let inputs = named.zip(signature.inputs);
        let inputs = inputs.filter_map(|(name, input)| Some((name, value(input)?))).collect();
        let outputs = places.zip(signature.outputs);
        let outputs = outputs.filter_map(|(place, output)| Some((place, value(output)?))).collect();
        Signature { inputs, outputs }
    }

    /// Reads the mark of what a call of a module takes or returns, which a program has in its parts without autograd
    /// alone. It returns what it is given.
    pub(super) fn tracepoint(&mut self, inputs: Vec<schema::NamedArgument>, outputs: Vec<Json>) {
        let (mut given, mut words) = (Vec::new(), Vec::new());
        for input in inputs {
            match input.arg {
                Json::AsString(word) => words.push(word),
                other => match self.argument(other) {
                    Ok(Argument::Value(id)) => given.push(Some(id)),
                    _ => given.push(None),
                },
            }
        }
        for (output, id) in outputs.into_iter().zip(&given) {
            let (Json::AsTensor(schema::Named { name })
            | Json::AsSymInt(Symbolic::AsName(name))
            | Json::AsSymFloat(Symbolic::AsName(name))) = output
            else {
                continue;
            };
            self.names.extend(id.map(|id| (name, id)));
        }
        if let [kind, path] = &words[..] {
            let call = path.strip_prefix("_export_root").unwrap_or(path).trim_start_matches('.');
            let traced = self.traced.entry(call.to_owned()).or_default();
            let ids = given.into_iter().flatten().collect();
            match kind.as_str() {
                "module_call_inputs" => traced.inputs = ids,
                _ => traced.outputs = ids,
            }
        }
    }
}

/// What a call of a module takes and returns.
#[derive(Default)]
pub(super) struct Traced {
    inputs: Vec<Id>,
    outputs: Vec<Id>,
}

/// A size of which a program says nothing.
const USUAL_SIZE: i64 = 3;

/// Returns the dtype and the sizes of a tensor.
pub(super) fn meta_of(meta: &schema::TensorMeta) -> Meta {
    let known = |size: &Size| if let Size::AsInt(size) = size { Some(*size) } else { None };
    let exported = |size: &Size| match size {
        Size::AsInt(size) => *size,
        Size::AsExpr(expression) => {
            expression.hint.as_ref().and_then(|hint| hint.as_int).unwrap_or(USUAL_SIZE)
        }
    };
    let (sizes, exported) = (meta.sizes.iter().map(known), meta.sizes.iter().map(exported));
    let symbols = meta.sizes.iter().map(symbol).collect();
    Meta { dtype: meta.dtype, sizes: sizes.collect(), exported: exported.collect(), symbols }
}

/// Returns what a program says of a size, where it is not known.
pub(super) fn symbol(size: &Size) -> String {
    match size {
        Size::AsInt(_) => String::new(),
        Size::AsExpr(expression) => expression.expr_str.clone(),
    }
}

//! What a pickle of `torch.save` holds, as plain data, and the names that it refers to.

use anyhow::{Context, Result, bail};
use safetensors::tensor::Dtype;

use super::Kind;

/// The place of a value in [`Pickle::values`].
pub(super) type Id = usize;

/// A value of Python's.
#[derive(Clone, Debug)]
pub(super) enum Value {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(String),
    /// A tuple or a list.
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Tensor(Stored),
    Global(Global),
    Storage {
        kind: Option<Kind>,
        key: String,
    },
}

/// A tensor, as its storage and the place in it.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) storage: String,
    pub(super) kind: Kind,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// A name that a state dict refers to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Global {
    OrderedDict,
    Tensor,
    TensorOfDtype,
    Parameter,
    Size,
    Device,
    Storage(Kind),
    UntypedStorage,
    Dtype(Kind),
}

/// The classes of storages and the dtypes of [`torch.storage`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/storage.py).
const KINDS: [(&str, &str, Kind); 20] = [
    ("FloatStorage", "float32", Kind::Of(Dtype::F32)),
    ("DoubleStorage", "float64", Kind::Of(Dtype::F64)),
    ("HalfStorage", "float16", Kind::Of(Dtype::F16)),
    ("BFloat16Storage", "bfloat16", Kind::Of(Dtype::BF16)),
    ("LongStorage", "int64", Kind::Of(Dtype::I64)),
    ("IntStorage", "int32", Kind::Of(Dtype::I32)),
    ("ShortStorage", "int16", Kind::Of(Dtype::I16)),
    ("CharStorage", "int8", Kind::Of(Dtype::I8)),
    ("ByteStorage", "uint8", Kind::Of(Dtype::U8)),
    ("BoolStorage", "bool", Kind::Of(Dtype::BOOL)),
    ("ComplexFloatStorage", "complex64", Kind::Of(Dtype::C64)),
    ("ComplexDoubleStorage", "complex128", Kind::Complex128),
    ("", "uint16", Kind::Of(Dtype::U16)),
    ("", "uint32", Kind::Of(Dtype::U32)),
    ("", "uint64", Kind::Of(Dtype::U64)),
    ("", "float8_e4m3fn", Kind::Of(Dtype::F8_E4M3)),
    ("", "float8_e5m2", Kind::Of(Dtype::F8_E5M2)),
    ("", "float8_e4m3fnuz", Kind::Of(Dtype::F8_E4M3FNUZ)),
    ("", "float8_e5m2fnuz", Kind::Of(Dtype::F8_E5M2FNUZ)),
    ("", "float8_e8m0fnu", Kind::Of(Dtype::F8_E8M0)),
];

impl Global {
    pub(super) fn named(module: &str, name: &str) -> Result<Global> {
        let kind = |of: fn(&(&'static str, &'static str, Kind)) -> &'static str| {
            let row = KINDS.iter().find(|row| of(row) == name && !name.is_empty());
            row.map(|(_, _, kind)| *kind)
        };
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Global::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Global::Tensor,
            ("torch._utils", "_rebuild_tensor_v3") => Global::TensorOfDtype,
            ("torch._utils", "_rebuild_parameter") => Global::Parameter,
            ("torch", "Size") => Global::Size,
            ("torch", "device") => Global::Device,
            ("torch.storage", "UntypedStorage") => Global::UntypedStorage,
            ("torch", _) if kind(|row| row.0).is_some() => {
                Global::Storage(kind(|row| row.0).context("it was found above")?)
            }
            ("torch", _) if kind(|row| row.1).is_some() => {
                Global::Dtype(kind(|row| row.1).context("it was found above")?)
            }
            _ => bail!(
                "it holds {module}.{name}, and only tensors, numbers, texts and dicts and lists of them are read: \
                 load it with torch.load, and save its state_dict()"
            ),
        })
    }

    /// Returns the name of a dtype as Python prints it.
    pub(super) fn text(self) -> Option<String> {
        let Global::Dtype(kind) = self else { return None };
        let row = KINDS.iter().find(|row| row.2 == kind)?;
        Some(format!("torch.{}", row.1))
    }
}

impl Value {
    /// Returns in words what a value is.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Value::None => "None",
            Value::Bool(_) => "a bool",
            Value::Int(_) => "an int",
            Value::Float(_) => "a float",
            Value::Text(_) => "a text",
            Value::List(_) => "a list",
            Value::Dict(_) => "a dict",
            Value::Tensor(_) => "a tensor",
            Value::Global(_) => "a name of torch's",
            Value::Storage { .. } => "a storage",
        }
    }
}

//! The optimizer of a recorded run, as the metadata of a case describes it. It is plain data: `any.rs` builds it.

use indexmap::IndexMap;
use serde::ser::{Error, SerializeMap};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::repr::repr_float;

/// Arguments of an optimizer, under PyTorch's names.
pub type Arguments = IndexMap<String, Value>;

/// An optimizer that can be run, with the arguments that it has in PyTorch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedOptimizer {
    /// The name of its class in
    /// [`torch.optim`](https://docs.pytorch.org/docs/2.13/optim.html#algorithms), such as `AdamW`.
    pub name: String,
    /// The arguments of the first group in the first step. What is not there has PyTorch's default.
    #[serde(flatten, serialize_with = "as_python_writes_them")]
    pub arguments: Arguments,
    /// The groups of parameters. If there are none, one group has all parameters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<RecordedGroup>,
    /// The arguments that changed between the steps, for example by a schedule.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
}

/// A group of parameters of a recorded optimizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RecordedGroup {
    /// The names of the parameters.
    pub parameters: Vec<String>,
    /// The arguments that are others than the first group's.
    #[serde(flatten, serialize_with = "as_python_writes_them")]
    pub arguments: Arguments,
}

/// Arguments of one group that are others from one step on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// The first step that used them, counted from 1.
    pub step: u32,
    /// The group, counted from 0.
    pub group: usize,
    /// The arguments that changed.
    #[serde(flatten, serialize_with = "as_python_writes_them")]
    pub arguments: Arguments,
}

impl RecordedOptimizer {
    /// Returns plain SGD, which subtracts `lr * p.grad` from each parameter `p`.
    pub fn sgd(lr: f64) -> RecordedOptimizer {
        let numbers = [("lr", lr), ("momentum", 0.), ("dampening", 0.), ("weight_decay", 0.)];
        let numbers = numbers.map(|(name, value)| (name.to_owned(), value.into()));
        let nesterov = ("nesterov".to_owned(), false.into());
        RecordedOptimizer {
            name: "SGD".to_owned(),
            arguments: numbers.into_iter().chain([nesterov]).collect(),
            groups: Vec::new(),
            changes: Vec::new(),
        }
    }
}

/// Writes numbers as Python does, so that both sides write the same bytes for the same numbers.
fn as_python_writes_them<S: Serializer>(
    arguments: &Arguments,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(arguments.len()))?;
    for (name, value) in arguments {
        map.serialize_entry(name, &Python(value))?;
    }
    map.end()
}

struct Python<'a>(&'a Value);

impl Serialize for Python<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Number(number) if number.is_f64() => {
                let text = repr_float(number.as_f64().unwrap_or(f64::NAN));
                RawValue::from_string(text).map_err(S::Error::custom)?.serialize(serializer)
            }
            Value::Array(values) => serializer.collect_seq(values.iter().map(Python)),
            other => other.serialize(serializer),
        }
    }
}

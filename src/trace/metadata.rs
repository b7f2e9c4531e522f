//! The metadata of a file: the order of its tensors, what was run, and where.

use std::collections::HashSet;
use std::fmt;

use anyhow::{Context, Result, ensure};
use serde::de::{DeserializeOwned, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::checkpoint::Initial;
use super::strides::Strides;

/// The only metadata key of a file. It records the order of the tensors, which safetensors does not keep. It is
/// the only one, since safetensors does not keep the order of several keys either.
pub(super) const METADATA_KEY: &str = "tch-parity";

/// The version of the format that `docs/format.md` describes.
pub(super) const FORMAT: u32 = 2;

/// The options of the optimizer in `run` that choose between implementations of one formula
/// ([Adam's](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/optim/adam.py#L349)). An implementation may round
/// otherwise, as the fused one does: then the tensors show it.
pub(crate) const IMPLEMENTATIONS: [&str; 4] = ["foreach", "fused", "capturable", "differentiable"];

/// The value of the metadata key. `run` and `environment` are kept as they were written, since a trace does not
/// know what they mean.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metadata {
    pub(super) format: u32,
    pub(super) order: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) strides: Option<Strides>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) initial: Option<Initial>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) run: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) environment: Option<Box<RawValue>>,
}

pub(super) fn parse_metadata(text: &str) -> Result<Metadata> {
    /// The version of the format, which is read first, since a newer format may hold anything else.
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let in_metadata = || format!("in the metadata under {METADATA_KEY}");
    let version = serde_json::from_str::<Version>(text).with_context(in_metadata)?.format;
    ensure!(
        version == FORMAT,
        "format {version} is unknown: this program reads format {FORMAT}, so record the run again with its recorder"
    );
    serde_json::from_str::<NoNameTwice>(text).with_context(in_metadata)?;
    serde_json::from_str(text).with_context(in_metadata)
}

/// Parses only the environment of the metadata.
pub(super) fn parse_environment<T: DeserializeOwned>(text: &str) -> Result<Option<T>> {
    #[derive(Deserialize)]
    struct Part<T> {
        environment: Option<T>,
    }
    Ok(serde_json::from_str::<Part<T>>(text)?.environment)
}

pub(super) fn parse_part<'a, T: Deserialize<'a>>(
    name: &str,
    part: Option<&'a RawValue>,
) -> Result<Option<T>> {
    let parsed = part.map(|part| serde_json::from_str(part.get())).transpose();
    parsed.with_context(|| format!("in the metadata under {METADATA_KEY}: {name}"))
}

/// JSON in which no object has two entries of the same name. Readers would keep only the last of them.
pub(super) struct NoNameTwice;

impl<'de> Deserialize<'de> for NoNameTwice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Json;
        impl<'de> Visitor<'de> for Json {
            type Value = NoNameTwice;
            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NoNameTwice, A::Error> {
                let mut names = HashSet::new();
                while let Some((name, _)) = map.next_entry::<String, NoNameTwice>()? {
                    if names.contains(&name) {
                        return Err(A::Error::custom(format!("two entries named {name}")));
                    }
                    names.insert(name);
                }
                Ok(NoNameTwice)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<NoNameTwice, A::Error> {
                while seq.next_element::<NoNameTwice>()?.is_some() {}
                Ok(NoNameTwice)
            }
            fn visit_bool<E>(self, _: bool) -> Result<NoNameTwice, E> {
                Ok(NoNameTwice)
            }
            fn visit_i64<E>(self, _: i64) -> Result<NoNameTwice, E> {
                Ok(NoNameTwice)
            }
            fn visit_u64<E>(self, _: u64) -> Result<NoNameTwice, E> {
                Ok(NoNameTwice)
            }
            fn visit_f64<E>(self, _: f64) -> Result<NoNameTwice, E> {
                Ok(NoNameTwice)
            }
            fn visit_str<E>(self, _: &str) -> Result<NoNameTwice, E> {
                Ok(NoNameTwice)
            }
            fn visit_unit<E>(self) -> Result<NoNameTwice, E> {
                Ok(NoNameTwice)
            }
        }
        deserializer.deserialize_any(Json)
    }
}

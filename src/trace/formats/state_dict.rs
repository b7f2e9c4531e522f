//! PyTorch's `.pt` and `.pth` files: the zip archives that `torch.save` writes.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Map, Value as Json, json};

use super::pickle::{self, Pickle};
use super::values::{Id, Stored, Value};
use super::{Building, FILE, Kind, Rows, Source};
use crate::trace::{Archive, Trace};

/// The name of a tensor that is saved alone.
const ALONE: &str = "tensor";

/// The most dicts and lists in each other.
const MAX_DEPTH: usize = 32;

/// What is read of a value again and again is at most so many times as long as the pickle.
const MAX_READ: usize = 16;

pub(super) fn read(archive: Archive) -> Result<Trace> {
    let length = archive.bytes().len();
    let archive = archive.without_folder()?;
    let order = if archive.names().any(|name| name == "byteorder") {
        archive.stored("byteorder")?
    } else {
        b"little"
    };
    let big_endian = match order {
        b"little" => false,
        b"big" => true,
        _ => bail!("its bytes are neither in little-endian nor in big-endian order"),
    };
    let text = archive.stored("data.pkl")?;
    let pickle = pickle::read(text)?;
    let mut reading = Reading {
        pickle: &pickle,
        archive: &archive,
        big_endian,
        building: Building::new(length),
        tied: HashMap::new(),
        values: Map::new(),
        open: Vec::new(),
        left: text.len().saturating_mul(MAX_READ),
    };
    match &pickle.values[pickle.top] {
        Value::Dict(_) | Value::List(_) => reading.visit("", pickle.top)?,
        Value::Tensor(tensor) => reading.tensor(ALONE.to_owned(), tensor)?,
        other => bail!("it holds {}, and no tensors", other.kind()),
    }
    let Reading { building, values, .. } = reading;
    let mut trace = building.trace;
    if !values.is_empty() {
        trace.run = Some(serde_json::value::to_raw_value(&json!({ "values": values }))?);
    }
    Ok(trace)
}

/// What identifies a tensor in the file: its type and storage, and where its elements lie.
type Place = (String, usize, Vec<usize>, Vec<usize>);

struct Reading<'a> {
    pickle: &'a Pickle,
    archive: &'a Archive<'a>,
    big_endian: bool,
    building: Building,
    /// The first name of each tensor.
    tied: HashMap<Place, String>,
    /// What is no tensor, by its name.
    values: Map<String, Json>,
    /// The dicts and lists that the value is in.
    open: Vec<Id>,
    /// How many bytes may still be read, so that what is in many places is not read without end.
    left: usize,
}

impl Reading<'_> {
    /// Reads a value, whose name is `name`.
    fn visit(&mut self, name: &str, id: Id) -> Result<()> {
        self.spend(name.len() + 1)?;
        let pickle = self.pickle;
        match &pickle.values[id] {
            Value::Dict(items) => self.within(id, |reading| {
                items.iter().try_for_each(|(key, value)| {
                    let key = match &pickle.values[*key] {
                        Value::Text(key) => key.clone(),
                        Value::Int(key) => key.to_string(),
                        other => bail!(refused_key(name, other)),
                    };
                    reading.visit(&below(name, &key), *value)
                })
            }),
            Value::List(items) => self.within(id, |reading| {
                let mut items = items.iter().enumerate();
                items.try_for_each(|(at, value)| {
                    reading.visit(&below(name, &at.to_string()), *value)
                })
            }),
            Value::Tensor(tensor) => self.tensor(name.to_owned(), tensor),
            value => {
                let json = match value {
                    Value::None => Json::Null,
                    Value::Bool(value) => json!(value),
                    Value::Int(value) => json!(value),
                    Value::Float(value) if value.is_finite() => json!(value),
                    Value::Float(value) if value.is_nan() => json!("NaN"),
                    Value::Float(value) if *value > 0. => json!("Infinity"),
                    Value::Float(_) => json!("-Infinity"),
                    Value::Text(text) => {
                        self.spend(text.len())?;
                        json!(text)
                    }
                    Value::Global(global) if global.text().is_some() => json!(global.text()),
                    other => bail!("{name}: it is {}", other.kind()),
                };
                let known = self.values.insert(name.to_owned(), json);
                ensure!(known.is_none(), "two values named {name}");
                Ok(())
            }
        }
    }

    /// Reads what is in a dict or a list.
    fn within(&mut self, id: Id, read: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        ensure!(!self.open.contains(&id), "a dict or a list holds itself");
        ensure!(self.open.len() < MAX_DEPTH, "more than {MAX_DEPTH} dicts and lists in each other");
        self.open.push(id);
        read(self)?;
        self.open.pop();
        Ok(())
    }

    fn spend(&mut self, bytes: usize) -> Result<()> {
        let left = self.left.checked_sub(bytes);
        self.left = left.context("it holds the same values in far too many places")?;
        Ok(())
    }

    fn tensor(&mut self, name: String, tensor: &Stored) -> Result<()> {
        self.add(name.clone(), tensor).with_context(|| name)
    }

    fn add(&mut self, name: String, tensor: &Stored) -> Result<()> {
        let Stored { storage, kind, offset, shape, strides } = tensor;
        let rows = Rows::new(*offset, shape.clone(), strides.clone())?;
        let place = (format!("{kind:?} {storage}"), *offset, shape.clone(), strides.clone());
        // complex128 is two tensors.
        let may_be_tied = rows.numel > 0 && *kind != Kind::Complex128;
        if let Some(first) = self.tied.get(&place).filter(|_| may_be_tied) {
            return self.building.tie(name, first);
        }
        let key = format!("data/{storage}");
        let whole = self.archive.stored(&key)?;
        let start = self.archive.range(&key).map_or(0, |range| range.start);
        let source = Source {
            bytes: self.archive.bytes(),
            place: FILE,
            start,
            end: start + whole.len(),
            big_endian: self.big_endian,
        };
        self.building.add(name.clone(), *kind, &rows, source)?;
        self.tied.entry(place).or_insert(name);
        Ok(())
    }
}

/// Says of a dict that a key of it cannot be a part of a name.
fn refused_key(name: &str, key: &Value) -> String {
    let of = if name.is_empty() { String::new() } else { format!(" {name}") };
    // No list is a key.
    let kind = if matches!(key, Value::List(_)) { "a tuple" } else { key.kind() };
    format!(
        "a key of the dict{of} is {kind}, and only texts and integers are read: save it under keys that are texts"
    )
}

fn below(name: &str, key: &str) -> String {
    if name.is_empty() { key.to_owned() } else { format!("{name}/{key}") }
}

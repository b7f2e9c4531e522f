//! The named tensors of a run as plain bytes, their file, and the record of where and how they were made.
//!
//! This room knows bytes, dtypes, shapes and names, the safetensors format, and when two environments promise the
//! same bits. It does not know libtorch, any model, or what anybody does with a trace.

mod archive;
mod bytes;
pub(crate) mod case_name;
mod checkpoint;
mod digest;
mod digests;
mod environment;
mod file;
mod foreign;
mod formats;
mod metadata;
mod names;
mod noted;
mod numbers;
mod pattern;
mod reference;
mod strides;
mod write_atomically;

use std::collections::HashMap;
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use indexmap::IndexMap;
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

pub(crate) use archive::Archive;
pub(crate) use bytes::Bytes;
pub use case_name::is_given;
pub(crate) use case_name::{in_step, is_instruction, operator_value, split_call, split_step};
use checkpoint::Checkpoint;
pub use digest::Digest;
pub(crate) use digests::Stored;
use digests::Written;
pub use environment::{CudaEnvironment, Environment, Numerics};
pub(crate) use metadata::IMPLEMENTATIONS;
use metadata::parse_part;
pub use names::Names;
use noted::Noted;
pub(crate) use numbers::floats;
pub(crate) use pattern::Pattern;
use reference::Reference;
pub use write_atomically::{AtomicFile, remove_unfinished_files, write_atomically};

/// The name under which a safetensors file has its metadata.
const RESERVED: &str = "__metadata__";

/// A list of named tensors in order, with what is known of the run that they come from.
///
/// Tensors are copied, so a later change of a tensor does not change the trace.
///
/// ```
/// use safetensors::tensor::{Dtype, TensorView};
/// use tch_parity::{Criterion, Trace, compare};
///
/// let bytes = [0.5f32, 1.].map(f32::to_le_bytes).concat();
/// let mut trace = Trace::new();
/// trace.push_view("forward/h", &TensorView::new(Dtype::F32, vec![2], &bytes)?)?;
/// let file = std::env::temp_dir().join("trace_example.safetensors");
/// trace.save(&file)?;
/// assert!(compare(&Trace::load(&file)?, &trace, Criterion::Bitwise).passes());
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Trace {
    tensors: IndexMap<String, Entry>,
    /// The bytes of the files that it comes from, and those that are none of a file.
    bytes: Vec<Bytes>,
    /// The file that holds initial values, unless these were taken from it.
    checkpoint: Option<Checkpoint>,
    run: Option<Box<RawValue>>,
    environment: Option<Box<RawValue>>,
    /// The metadata keys of the file, except the project's own.
    foreign_keys: Vec<String>,
    /// The tensors that are the same storage as one before them, each with the name of that one.
    tied: HashMap<String, String>,
    /// The tensors of another run, of which the trace need not hold the bytes again.
    reference: Reference,
    /// Whether the trace is a file without the project's metadata, which would list the strides.
    of_unknown_strides: bool,
    /// What whoever computed it says of it.
    noted: Noted,
}

#[derive(Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    content: Content,
    /// The strides that the tensor had in memory, or `None` if they were those of a new tensor of its shape.
    strides: Option<Vec<usize>>,
    /// The name under which the checkpoint has the values.
    in_checkpoint: Option<String>,
}

/// The elements, little-endian and in row-major order, or their digest.
#[derive(Debug)]
enum Content {
    /// The place in `Trace::bytes`, and the range there.
    Values(usize, Range<usize>),
    Digest(Box<Written>),
}

impl Entry {
    fn of_values(dtype: Dtype, shape: Vec<usize>, place: usize, range: Range<usize>) -> Entry {
        let content = Content::Values(place, range);
        Entry { dtype, shape, content, strides: None, in_checkpoint: None }
    }

    /// Returns how many bytes the elements are.
    fn size(&self) -> usize {
        match &self.content {
            Content::Values(_, range) => range.len(),
            Content::Digest(written) => written.digest.bytes(),
        }
    }
}

impl Trace {
    /// Creates an empty trace.
    pub fn new() -> Trace {
        Trace::default()
    }

    /// Appends a tensor that is plain data.
    ///
    /// # Errors
    /// Returns an error if the trace already has a tensor of that name.
    pub fn push_view(&mut self, name: impl Into<String>, view: &TensorView) -> Result<()> {
        let name = name.into();
        if self.of_reference(&name, view.dtype(), view.shape()) == Some(view.data()) {
            return self.append_reference(name, None);
        }
        self.append(name, view.dtype(), view.shape().to_vec(), None, |bytes, _| {
            bytes.extend_from_slice(view.data());
            Ok(())
        })
    }

    /// Appends a tensor whose bytes `write` adds at the end of its first argument. Its second argument is the
    /// offset of that end. `strides` are those that the tensor has in memory, if it is a tensor of PyTorch's.
    pub(crate) fn append(
        &mut self,
        name: String,
        dtype: Dtype,
        shape: Vec<usize>,
        strides: Option<Vec<usize>>,
        write: impl FnOnce(&mut Vec<u8>, usize) -> Result<()>,
    ) -> Result<()> {
        self.ensure_new(&name)?;
        if !matches!(self.bytes.last(), Some(Bytes::Owned(_))) {
            self.bytes.push(Bytes::default());
        }
        let place = self.bytes.len() - 1;
        let Bytes::Owned(bytes) = &mut self.bytes[place] else { unreachable!("added above") };
        let start = bytes.len();
        write(bytes, start).with_context(|| name.clone())?;
        let entry = Entry::of_values(dtype, shape, place, start..bytes.len());
        self.insert_strided(name, entry, strides);
        Ok(())
    }

    fn insert_strided(&mut self, name: String, mut entry: Entry, strides: Option<Vec<usize>>) {
        if let Some(strides) = strides {
            entry.note_strides(strides);
        }
        self.tensors.insert(name, entry);
    }

    /// Returns the names of the tensors, in order, with those of which the trace has the digest alone.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Returns the tensors as plain data, in order, without those of which the trace has the digest alone.
    pub fn iter(&self) -> impl Iterator<Item = (&str, TensorView<'_>)> {
        self.tensors.iter().filter_map(|(name, entry)| Some((name.as_str(), self.view(entry)?)))
    }

    /// Returns the tensor of that name as plain data, or `None` if there is none or the trace has its digest alone.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        self.view(self.tensors.get(name)?)
    }

    fn view(&self, entry: &Entry) -> Option<TensorView<'_>> {
        let Content::Values(place, range) = &entry.content else { return None };
        let bytes = &self.bytes[*place].as_slice()[range.clone()];
        match TensorView::new(entry.dtype, entry.shape.clone(), bytes) {
            Ok(view) => Some(view),
            Err(err) => unreachable!("checked when it came in: {err}"),
        }
    }

    /// Returns the name of the tensor before it that is the same storage of the file, as those of tied weights are, or
    /// `None` if there is none.
    pub fn tied_to(&self, name: &str) -> Option<&str> {
        self.tied.get(name).map(String::as_str)
    }

    /// Checks that the trace begins with these names and shapes, all of one dtype, and returns the name of the
    /// first tensor after them, if there is one.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing, stands elsewhere, or has another shape or dtype. The message names
    /// the tensor.
    pub fn ensure_begins_with(
        &self,
        dtype: Dtype,
        layout: impl Iterator<Item = (String, Vec<usize>)>,
    ) -> Result<Option<&str>> {
        let mut names = self.names();
        for (name, shape) in layout {
            ensure!(self.contains(&name), "{name} is missing");
            let view = self.values(&name)?;
            let next = names.next().unwrap_or_default();
            let (found, found_dtype) = (view.shape(), view.dtype());
            ensure!(next == name, "{next} stands where {name} is expected");
            ensure!(found == shape, "{name} is of shape {found:?}: {shape:?} is expected");
            ensure!(found_dtype == dtype, "{name} is {found_dtype}: {dtype} is expected");
        }
        Ok(names.next())
    }

    /// Records what was run and where; both are written into the file.
    ///
    /// # Errors
    /// Returns an error if one of the two cannot be serialized to JSON.
    pub fn describe(&mut self, run: &impl Serialize, environment: &impl Serialize) -> Result<()> {
        self.run = Some(serde_json::value::to_raw_value(run)?);
        self.environment = Some(serde_json::value::to_raw_value(environment)?);
        Ok(())
    }

    /// Records nothing of a run but what it does not have, each as `NAME: REASON`, and where it was made, where that
    /// is known.
    pub fn describe_port(&mut self, not_recorded: &[String], environment: Option<&Environment>) {
        let run =
            (!not_recorded.is_empty()).then(|| serde_json::json!({ "not_recorded": not_recorded }));
        // Strings and numbers always become JSON.
        self.run = run.and_then(|run| serde_json::value::to_raw_value(&run).ok());
        self.environment = environment.and_then(|here| serde_json::value::to_raw_value(here).ok());
    }

    /// Returns the record of what was run, or `None` if there is none.
    ///
    /// # Errors
    /// Returns an error if the record is not an `R`.
    pub fn run<'a, R: Deserialize<'a>>(&'a self) -> Result<Option<R>> {
        parse_part("run", self.run.as_deref())
    }

    /// Returns the record of the environment in which the run was made, or `None` if there is none.
    ///
    /// # Errors
    /// Returns an error if the record is not an `E`.
    pub fn environment<'a, E: Deserialize<'a>>(&'a self) -> Result<Option<E>> {
        parse_part("environment", self.environment.as_deref())
    }

    /// Returns the record of what was run as JSON of any form.
    pub(crate) fn run_json(&self) -> Option<Value> {
        self.run().ok().flatten()
    }

    /// Renames the tensors to a port's names, and keeps their order.
    ///
    /// # Errors
    /// Returns an error if two tensors would have the same name, or if a rule renames none.
    pub fn renamed(self, names: &Names) -> Result<Trace> {
        names.ensure_used(self.tensors.keys().map(String::as_str))?;
        let mut tensors = IndexMap::with_capacity(self.tensors.len());
        for (name, entry) in self.tensors {
            let renamed = names.of_port(&name);
            if let Some((other, _)) = tensors.get(&renamed) {
                bail!(
                    "{other} and {name} would both be named {renamed}: rename one of them otherwise"
                );
            }
            tensors.insert(renamed, (name, entry));
        }
        let tensors = tensors.into_iter().map(|(renamed, (_, entry))| (renamed, entry)).collect();
        let tied =
            self.tied.iter().map(|(name, first)| (names.of_port(name), names.of_port(first)));
        let tied = tied.collect();
        Ok(Trace { tensors, tied, ..self })
    }

    /// Returns the keys of the file's metadata, except the project's own, sorted.
    pub fn foreign_keys(&self) -> &[String] {
        &self.foreign_keys
    }
}

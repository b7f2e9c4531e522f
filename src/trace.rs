//! A trace: the named tensors of a run, in order, as plain bytes, and the safetensors file of them.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use indexmap::IndexMap;
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

/// The one metadata key of a file: safetensors itself keeps neither the order of the tensors nor, of
/// several keys, theirs.
const METADATA_KEY: &str = "tch-parity";

/// dtypes as libtorch and as safetensors name them.
const DTYPES: [(Kind, Dtype); 10] = [
    (Kind::Bool, Dtype::BOOL),
    (Kind::Uint8, Dtype::U8),
    (Kind::Int8, Dtype::I8),
    (Kind::Int16, Dtype::I16),
    (Kind::Int, Dtype::I32),
    (Kind::Int64, Dtype::I64),
    (Kind::Half, Dtype::F16),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Float, Dtype::F32),
    (Kind::Double, Dtype::F64),
];

/// Named tensors in order. A tensor is copied in, so what happens to it later does not show here.
#[derive(Debug, Default)]
pub struct Trace {
    tensors: IndexMap<String, Entry>,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Entry {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Where in `Trace::bytes` the elements are, little-endian and row-major.
    range: Range<usize>,
}

impl Trace {
    /// A trace of no tensors.
    pub fn new() -> Trace {
        Trace::default()
    }

    /// Adds a copy of what `tensor` holds now, from whatever device.
    ///
    /// # Errors
    /// The name is taken, or the dtype is not one that a [`Trace`] keeps: float16, bfloat16, float32,
    /// float64, bool, uint8 and the signed integers.
    pub fn push(&mut self, name: impl Into<String>, tensor: &Tensor) -> Result<()> {
        let name = name.into();
        ensure!(!self.tensors.contains_key(&name), "two tensors named {name}");
        let kind = tensor.f_kind().with_context(|| name.clone())?;
        let dtype = DTYPES.iter().find(|dtype| dtype.0 == kind);
        let dtype = dtype.with_context(|| format!("{name}: a trace keeps no {kind:?}"))?.1;
        let shape = tensor.size().iter().map(|&n| n as usize).collect();
        let start = self.bytes.len();
        self.bytes.resize(start + tensor.numel() * kind.elt_size_in_bytes(), 0);
        tensor.f_copy_data_u8(&mut self.bytes[start..], tensor.numel())?;
        self.tensors.insert(name, Entry { dtype, shape, range: start..self.bytes.len() });
        Ok(())
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensors as plain data, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, TensorView<'_>)> {
        self.tensors.iter().filter_map(|(name, entry)| Some((name.as_str(), self.view(entry)?)))
    }

    /// The tensor of that name as plain data.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        self.view(self.tensors.get(name)?)
    }

    /// The tensor of that name, on the CPU.
    ///
    /// # Errors
    /// There is none of that name, or of a dtype that tch cannot hold; the message names it.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let view = self.get(name).ok_or_else(|| anyhow!("no tensor named {name}"))?;
        let kind = DTYPES.iter().find(|dtype| dtype.1 == view.dtype());
        let kind =
            kind.with_context(|| format!("{name}: dtype {} is not supported", view.dtype()))?.0;
        let size = view.shape().iter().map(|&n| i64::try_from(n)).collect::<Result<Vec<_>, _>>();
        let tensor = size
            .map_err(anyhow::Error::from)
            .and_then(|size| Ok(Tensor::f_from_data_size(view.data(), &size, kind)?));
        tensor.with_context(|| name.to_owned())
    }

    fn view(&self, entry: &Entry) -> Option<TensorView<'_>> {
        TensorView::new(entry.dtype, entry.shape.clone(), &self.bytes[entry.range.clone()]).ok()
    }

    /// Reads a safetensors file, in the order that the file records under the metadata key
    /// `tch-parity`, else sorted by name.
    ///
    /// # Errors
    /// The file cannot be read, is no safetensors file or a damaged one, or records an order of other
    /// names than it holds.
    pub fn load(path: &Path) -> Result<Trace> {
        Trace::read(path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn read(path: &Path) -> Result<Trace> {
        ensure!(fs::metadata(path)?.is_file(), "not a regular file");
        let bytes = fs::read(path)?;
        let (header_len, header) = SafeTensors::read_metadata(&bytes)
            .map_err(|err| anyhow!("not a safetensors file, or a damaged one: {err}"))?;
        let data_start = size_of::<u64>() + header_len;
        let mut tensors = header.tensors();
        let order = match header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY))
        {
            Some(text) => recorded_order(text)?,
            None => {
                let mut names = tensors.keys().cloned().collect::<Vec<_>>();
                names.sort();
                names
            }
        };
        let mut ordered = IndexMap::with_capacity(order.len());
        for name in order {
            let info = tensors.remove(&name).with_context(|| {
                format!("the recorded order names {name} twice, or there is no such tensor")
            })?;
            let (start, end) = info.data_offsets;
            let range = data_start + start..data_start + end;
            ordered.insert(name, Entry { dtype: info.dtype, shape: info.shape.clone(), range });
        }
        if let Some(name) = tensors.keys().min() {
            bail!("the recorded order leaves out {name}");
        }
        Ok(Trace { tensors: ordered, bytes })
    }

    /// Writes a safetensors file: the same bytes for the same tensors, here and from
    /// `scripts/reference.py`. It is written beside `path` and renamed, so that `path` never holds
    /// half a file.
    ///
    /// # Errors
    /// The file cannot be written, or `path` is something other than a regular file.
    pub fn save(&self, path: &Path) -> Result<()> {
        self.write(path).with_context(|| format!("cannot write {}", path.display()))
    }

    fn write(&self, path: &Path) -> Result<()> {
        let order = json!({ "order": self.names().collect::<Vec<_>>() });
        let metadata = HashMap::from([(METADATA_KEY.to_owned(), order.to_string())]);
        let bytes = safetensors::serialize(self.iter(), Some(metadata))?;
        write_whole(path, &bytes)
    }
}

fn recorded_order(text: &str) -> Result<Vec<String>> {
    let metadata: Value = serde_json::from_str(text)
        .with_context(|| format!("the metadata under {METADATA_KEY} is not JSON"))?;
    let order = metadata.get("order").and_then(Value::as_array);
    let names = order.and_then(|names| {
        names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
    });
    names.with_context(|| {
        format!("the metadata under {METADATA_KEY} holds no list of names, `order`")
    })
}

fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    // Renaming onto a device or a folder would replace it, or fail late.
    if let Ok(metadata) = fs::metadata(path) {
        ensure!(metadata.is_file(), "not a regular file");
    }
    let name = path.file_name().context("not a file's name")?;
    let mut sibling = name.to_owned();
    sibling.push(format!(".{}.tmp", std::process::id()));
    let sibling = path.with_file_name(sibling);
    let mut file = OpenOptions::new().write(true).create_new(true).open(&sibling)?;
    let written = file
        .write_all(bytes)
        .and_then(|()| File::sync_all(&file))
        .and_then(|()| fs::rename(&sibling, path));
    if written.is_err() {
        // What went wrong first is what matters.
        let _ = fs::remove_file(&sibling);
    }
    Ok(written?)
}

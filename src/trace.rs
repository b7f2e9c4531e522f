//! A trace: the named tensors of a run, in order, as plain bytes, and the safetensors file of them.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use indexmap::IndexMap;
use memmap2::Mmap;
use safetensors::tensor::{Dtype, Metadata as Header, SafeTensors, TensorInfo, TensorView, View};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use tch::{Kind, Tensor};

use crate::names::Names;
use crate::whole_file::write_whole;

/// The one metadata key of a file: safetensors itself keeps neither the order of the tensors nor, of
/// several keys, theirs.
const METADATA_KEY: &str = "tch-parity";

/// The version of the format that `docs/format.md` describes.
const FORMAT: u32 = 1;

/// Files from this size on are mapped, smaller ones read.
const MAP_FROM: u64 = 1 << 20;

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

/// Named tensors in order, and what is known of the run that they come from. A tensor is copied in, so
/// what happens to it later does not show here.
///
/// ```
/// use tch_parity::{Criterion, Trace, compare};
///
/// let mut trace = Trace::new();
/// trace.push("forward/h", &tch::Tensor::from_slice(&[0.5f32, 1.]))?;
/// let file = std::env::temp_dir().join("trace_example.safetensors");
/// trace.save(&file)?;
/// assert!(compare(&Trace::load(&file)?, &trace, Criterion::Bitwise).passes());
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug, Default)]
pub struct Trace {
    tensors: IndexMap<String, Entry>,
    bytes: Bytes,
    run: Option<Box<RawValue>>,
    environment: Option<Box<RawValue>>,
    /// The metadata keys of a file beside that of ours.
    foreign_keys: Vec<String>,
}

/// What a file holds under the metadata key. `run` and `environment` are kept as they were written:
/// what they mean is for those to say who wrote them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    format: u32,
    order: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    environment: Option<Box<RawValue>>,
}

#[derive(Debug)]
enum Bytes {
    Owned(Vec<u8>),
    Mapped(Mmap),
}

impl Default for Bytes {
    fn default() -> Bytes {
        Bytes::Owned(Vec::new())
    }
}

impl Bytes {
    fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Owned(bytes) => bytes,
            Bytes::Mapped(map) => map,
        }
    }

    /// To add to; a mapped file is copied first.
    fn to_mut(&mut self) -> &mut Vec<u8> {
        if let Bytes::Mapped(map) = self {
            *self = Bytes::Owned(map.to_vec());
        }
        match self {
            Bytes::Owned(bytes) => bytes,
            Bytes::Mapped(_) => unreachable!("copied above"),
        }
    }

    fn read(path: &Path) -> Result<Bytes> {
        ensure!(fs::metadata(path)?.is_file(), "not a regular file");
        let mut file = File::open(path)?;
        if file.metadata()?.len() < MAP_FROM {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            return Ok(Bytes::Owned(bytes));
        }
        // SAFETY: the map is read as plain bytes, of which any are valid. Whoever shortens or rewrites
        // the file meanwhile stops the process or sees mixed values: the price of comparing files of
        // any size; a file that is replaced, as `save` does, stays as it was.
        #[allow(unsafe_code)]
        Ok(Bytes::Mapped(unsafe { Mmap::map(&file)? }))
    }
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
        let kind = tensor.f_kind().with_context(|| name.clone())?;
        let dtype = DTYPES.iter().find(|dtype| dtype.0 == kind);
        let dtype = dtype.with_context(|| format!("{name}: a trace keeps no {kind:?}"))?.1;
        let shape = tensor.size().iter().map(|&n| n as usize).collect();
        self.append(name, dtype, shape, |bytes, start| {
            bytes.resize(start + tensor.numel() * kind.elt_size_in_bytes(), 0);
            Ok(tensor.f_copy_data_u8(&mut bytes[start..], tensor.numel())?)
        })
    }

    /// Adds a tensor that is plain data already.
    ///
    /// # Errors
    /// The name is taken.
    pub fn push_view(&mut self, name: impl Into<String>, view: &TensorView) -> Result<()> {
        self.append(name.into(), view.dtype(), view.shape().to_vec(), |bytes, _| {
            bytes.extend_from_slice(view.data());
            Ok(())
        })
    }

    /// `write` adds the tensor's bytes at the end, which is at its second argument.
    fn append(
        &mut self,
        name: String,
        dtype: Dtype,
        shape: Vec<usize>,
        write: impl FnOnce(&mut Vec<u8>, usize) -> Result<()>,
    ) -> Result<()> {
        ensure!(!self.tensors.contains_key(&name), "two tensors named {name}");
        let bytes = self.bytes.to_mut();
        let start = bytes.len();
        write(bytes, start).with_context(|| name.clone())?;
        self.tensors.insert(name, Entry { dtype, shape, range: start..bytes.len() });
        Ok(())
    }

    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The tensors as plain data, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, TensorView<'_>)> {
        self.tensors.iter().map(|(name, entry)| (name.as_str(), self.view(entry)))
    }

    /// The tensor of that name as plain data.
    pub fn get(&self, name: &str) -> Option<TensorView<'_>> {
        Some(self.view(self.tensors.get(name)?))
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

    fn view(&self, entry: &Entry) -> TensorView<'_> {
        let bytes = &self.bytes.as_slice()[entry.range.clone()];
        match TensorView::new(entry.dtype, entry.shape.clone(), bytes) {
            Ok(view) => view,
            Err(err) => unreachable!("checked when it came in: {err}"),
        }
    }

    /// Reads a safetensors file, in the order that the file records under the metadata key
    /// `tch-parity`, else sorted by name.
    ///
    /// # Errors
    /// The file cannot be read, is no safetensors file or a damaged one, or records an order of other
    /// names than it holds.
    pub fn load(path: impl AsRef<Path>) -> Result<Trace> {
        let path = path.as_ref();
        Trace::read(path).with_context(|| format!("cannot read {}", path.display()))
    }

    fn read(path: &Path) -> Result<Trace> {
        let bytes = Bytes::read(path)?;
        let (header_len, header) = SafeTensors::read_metadata(bytes.as_slice())
            .map_err(|err| anyhow!("not a safetensors file, or a damaged one: {err}"))?;
        let data_start = size_of::<u64>() + header_len;
        serde_json::from_slice::<NoNameTwice>(&bytes.as_slice()[size_of::<u64>()..data_start])
            .map_err(|err| anyhow!("a damaged safetensors file: {err}"))?;
        let mut infos = header.tensors();
        let mut trace = Trace::new();
        let mut metadata = header.metadata().clone().unwrap_or_default();
        let order = match metadata.remove(METADATA_KEY) {
            Some(text) => {
                let metadata = parse_metadata(&text)?;
                (trace.run, trace.environment) = (metadata.run, metadata.environment);
                trace.run::<Value>()?; // so that it is JSON to compare
                metadata.order
            }
            None => {
                let mut names = infos.keys().cloned().collect::<Vec<_>>();
                names.sort();
                names
            }
        };
        for name in order {
            let info = infos.remove(&name).with_context(|| {
                format!("the recorded order names {name} twice, or there is no such tensor")
            })?;
            let (start, end) = info.data_offsets;
            let range = data_start + start..data_start + end;
            trace
                .tensors
                .insert(name, Entry { dtype: info.dtype, shape: info.shape.clone(), range });
        }
        if let Some(name) = infos.keys().min() {
            bail!("the recorded order leaves out {name}");
        }
        trace.foreign_keys = metadata.into_keys().collect();
        trace.foreign_keys.sort();
        trace.bytes = bytes;
        Ok(trace)
    }

    /// Says what run the tensors come from, and where it was made: both are written into the file.
    ///
    /// # Errors
    /// One of them has no JSON form.
    pub fn describe(&mut self, run: &impl Serialize, environment: &impl Serialize) -> Result<()> {
        self.run = Some(serde_json::value::to_raw_value(run)?);
        self.environment = Some(serde_json::value::to_raw_value(environment)?);
        Ok(())
    }

    /// What the file says of the run; none where it says nothing.
    ///
    /// # Errors
    /// It says something else than an `R`.
    pub fn run<'a, R: Deserialize<'a>>(&'a self) -> Result<Option<R>> {
        parse_part("run", self.run.as_deref())
    }

    /// What the file says of where the run was made; none where it says nothing.
    ///
    /// # Errors
    /// It says something else than an `E`.
    pub fn environment<'a, E: Deserialize<'a>>(&'a self) -> Result<Option<E>> {
        parse_part("environment", self.environment.as_deref())
    }

    /// The same, whatever it says.
    pub(crate) fn run_json(&self) -> Option<Value> {
        self.run().ok().flatten()
    }

    /// The same tensors under a port's names, in the same order.
    ///
    /// # Errors
    /// Two would have one name.
    pub fn renamed(self, names: &Names) -> Result<Trace> {
        let mut tensors = IndexMap::with_capacity(self.tensors.len());
        for (name, entry) in self.tensors {
            let renamed = names.of_port(&name);
            ensure!(
                !tensors.contains_key(&renamed),
                "{name} becomes {renamed}, which is there already"
            );
            tensors.insert(renamed, entry);
        }
        Ok(Trace { tensors, ..self })
    }

    /// The keys of a file's metadata that say what this program does not know, sorted.
    pub(crate) fn foreign_keys(&self) -> &[String] {
        &self.foreign_keys
    }

    /// Writes a safetensors file: the same bytes for the same tensors, here and from
    /// `scripts/reference.py`. It is written beside `path` and renamed, so that `path` never holds
    /// half a file; a link keeps pointing to it.
    ///
    /// # Errors
    /// The file cannot be written, or `path` is something other than a regular file.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let metadata = serde_json::to_string(&Metadata {
            format: FORMAT,
            order: self.names().map(str::to_owned).collect(),
            run: self.run.clone(),
            environment: self.environment.clone(),
        })?;
        let metadata = HashMap::from([(METADATA_KEY.to_owned(), metadata)]);
        // As `safetensors::serialize` lays it out, which would hold all of it a second time.
        let mut tensors = self.iter().collect::<Vec<_>>();
        tensors.sort_by(|(a, left), (b, right)| right.dtype().cmp(&left.dtype()).then(a.cmp(b)));
        let mut end = 0;
        let infos = tensors.iter().map(|(name, view)| {
            let data_offsets = (end, end + view.data_len());
            end = data_offsets.1;
            let (dtype, shape) = (view.dtype(), view.shape().to_vec());
            ((*name).to_owned(), TensorInfo { dtype, shape, data_offsets })
        });
        let mut header = serde_json::to_string(&Header::new(Some(metadata), infos.collect())?)?;
        let aligned = header.len().next_multiple_of(size_of::<u64>());
        header += &" ".repeat(aligned - header.len());
        write_whole(path.as_ref(), |file| {
            file.write_all(&(header.len() as u64).to_le_bytes())?;
            file.write_all(header.as_bytes())?;
            tensors.iter().try_for_each(|(_, view)| file.write_all(view.data()))
        })
    }
}

fn parse_metadata(text: &str) -> Result<Metadata> {
    /// Read first: a newer format may hold anything else.
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let in_metadata = || format!("in the metadata under {METADATA_KEY}");
    let version = serde_json::from_str::<Version>(text).with_context(in_metadata)?.format;
    ensure!(version == FORMAT, "format {version} is unknown: this program reads format {FORMAT}");
    serde_json::from_str::<NoNameTwice>(text).with_context(in_metadata)?;
    serde_json::from_str(text).with_context(in_metadata)
}

fn parse_part<'a, T: Deserialize<'a>>(name: &str, part: Option<&'a RawValue>) -> Result<Option<T>> {
    let parsed = part.map(|part| serde_json::from_str(part.get())).transpose();
    parsed.with_context(|| format!("in the metadata under {METADATA_KEY}: {name}"))
}

/// JSON in which no name stands twice: of two, readers keep the last.
struct NoNameTwice;

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

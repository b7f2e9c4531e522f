//! The safetensors file of a trace: reading it, and writing the same bytes for the same tensors.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail, ensure};
use safetensors::tensor::{Dtype, Metadata as Header, TensorInfo, TensorView};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::bytes::Bytes;
use super::digests::{DIGESTS, read_digests};
use super::foreign::what_else_it_is;
use super::formats;
use super::metadata::{
    FORMAT, METADATA_KEY, Metadata, NoNameTwice, parse_environment, parse_metadata,
};
use super::write_atomically::write_atomically;
use super::{Entry, Trace};

/// The most bytes of a header that safetensors reads.
const MAX_HEADER: usize = 100_000_000;

impl Trace {
    /// Reads a file of tensors: a safetensors file, a PyTorch checkpoint (`.pt`, `.pth`), NumPy's `.npz` or `.npy`, or
    /// the index of a checkpoint in several files. A folder stands for the index or the checkpoint that is in it. What
    /// a file is shows in its bytes, not in its name.
    ///
    /// The tensors of a safetensors file are in the order that it records under the metadata key `tch-parity`, or
    /// sorted by name if it records none, and so are those of several files. Others are in the order of their file.
    ///
    /// A PyTorch checkpoint is a dict of tensors, or of dicts and lists of them, as `state_dict()` returns it. It is
    /// read without unpickling: whatever else it holds is refused, except for numbers and texts, which are recorded as
    /// the `values` of the run. A name such as `model/fc1.weight` has the keys of the dicts that the tensor is in. A
    /// tensor of complex128 becomes two, `<name>[real]` and `<name>[imag]`. An array without a name is `arr_0`, and a
    /// tensor without one is `tensor`.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, is none of these, is damaged, or records an order of other names
    /// than it holds.
    pub fn load(path: impl AsRef<Path>) -> Result<Trace> {
        let path = path.as_ref();
        let trace = Trace::load_whole(path);
        trace.with_context(|| format!("cannot read {}", path.display()))
    }

    fn load_whole(path: &Path) -> Result<Trace> {
        let found = if path.is_dir() { formats::in_folder(path)? } else { path.to_owned() };
        let bytes = Bytes::read(&found)?;
        match formats::index(&found, bytes.as_slice())? {
            Some(index) => formats::load_shards(found.parent().unwrap_or(path), index),
            None => Trace::parse(bytes),
        }
    }

    /// Reads a file that is no index of others.
    pub(super) fn load_file(path: &Path) -> Result<Trace> {
        Bytes::read(path).and_then(Trace::parse)
    }

    /// Reads a file that is in memory, as [`load`](Self::load) does. It cannot be an index of other files.
    ///
    /// # Errors
    /// Returns the errors of [`load`](Self::load) about what a file holds.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Trace> {
        Trace::parse(Bytes::Owned(bytes))
    }

    pub(super) fn parse(bytes: Bytes) -> Result<Trace> {
        if let Some(read) = formats::read(&bytes) {
            let mut trace = read?;
            trace.bytes[formats::FILE] = bytes;
            return Ok(trace);
        }
        let (data_start, header) = read_header(bytes.as_slice()).map_err(|err| {
            match what_else_it_is(bytes.as_slice()) {
                Some(what) => anyhow!("not a safetensors file but {what}"),
                None => anyhow!("not a safetensors file, or a damaged one: {err}"),
            }
        })?;
        let mut infos = header.tensors();
        let mut trace = Trace::new();
        let mut metadata = header.metadata().clone().unwrap_or_default();
        let (mut strides, mut initial, mut digests) = (None, None, HashMap::new());
        let order = match metadata.remove(METADATA_KEY) {
            Some(text) => {
                let metadata = parse_metadata(&text)?;
                (trace.run, trace.environment) = (metadata.run, metadata.environment);
                trace.run::<Value>()?; // fails unless it is JSON, which the comparison needs
                (strides, initial) = (metadata.strides, metadata.initial);
                if let Some(info) = infos.remove(DIGESTS) {
                    let (start, end) = info.data_offsets;
                    // A copy, since a mapped file can be changed meanwhile.
                    let json = bytes.as_slice()[data_start + start..data_start + end].to_vec();
                    digests = read_digests(&json)?;
                }
                metadata.order
            }
            None => {
                trace.of_unknown_strides = true;
                let mut names = infos.keys().cloned().collect::<Vec<_>>();
                names.sort();
                names
            }
        };
        for name in order {
            let of_values = |info: &TensorInfo| {
                let (start, end) = info.data_offsets;
                let range = data_start + start..data_start + end;
                Entry::of_values(info.dtype, info.shape.clone(), 0, range)
            };
            let entry = match (infos.remove(&name), digests.remove(&name)) {
                (Some(info), None) => of_values(info),
                (None, Some(digest)) => digest,
                (Some(_), Some(_)) => bail!("the file has both {name} and its digest"),
                (None, None) => {
                    bail!("the recorded order names {name} twice, or there is no such tensor")
                }
            };
            trace.tensors.insert(name, entry);
        }
        if let Some(name) = infos.keys().chain(digests.keys()).min() {
            bail!("the recorded order leaves out {name}");
        }
        trace.take_strides(strides.unwrap_or_default())?;
        trace.take_initial(initial)?;
        trace.foreign_keys = metadata.into_keys().collect();
        trace.foreign_keys.sort();
        trace.bytes.push(bytes);
        Ok(trace)
    }

    /// Reads only the environment that a file records, or `None` if it records none.
    ///
    /// Nothing else is read or checked, so a file that is refused by [`load`](Self::load) may pass here.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, or if the environment is not an `E`.
    pub fn load_environment<E: DeserializeOwned>(path: impl AsRef<Path>) -> Result<Option<E>> {
        #[derive(Deserialize)]
        struct Head {
            #[serde(rename = "__metadata__", default)]
            metadata: HashMap<String, String>,
        }
        let path = path.as_ref();
        ensure!(fs::metadata(path)?.is_file(), "not a regular file");
        let mut file = File::open(path)?;
        let mut length = [0; size_of::<u64>()];
        file.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        ensure!(length <= MAX_HEADER as u64, "header too large: {length} bytes");
        let mut header = Vec::new();
        file.take(length).read_to_end(&mut header)?;
        let mut head = serde_json::from_slice::<Head>(&header)?;
        let Some(text) = head.metadata.remove(METADATA_KEY) else { return Ok(None) };
        parse_environment(&text)
    }

    /// Writes a safetensors file: the same bytes for the same tensors, here and from
    /// `scripts/reference.py`.
    ///
    /// The file is written by [`write_atomically`], so `path` never holds half a file.
    ///
    /// # Errors
    /// Returns an error if the file cannot be written, if it could not be read again, or if `path` is not a regular
    /// file.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let laid_out = self.lay_out()?;
        write_atomically(path.as_ref(), |file| laid_out.write(file))
    }

    /// Writes the bytes of the file that [`save`](Self::save) saves.
    ///
    /// # Errors
    /// Returns an error if `out` cannot be written to.
    pub fn write(&self, out: &mut impl Write) -> Result<()> {
        Ok(self.lay_out()?.write(out)?)
    }

    fn lay_out<'a>(&'a self) -> Result<LaidOut<'a>> {
        let metadata = serde_json::to_string(&Metadata {
            format: FORMAT,
            order: self.names().map(str::to_owned).collect(),
            strides: self.listed_strides(),
            initial: self.listed_initial(),
            run: self.run.clone(),
            environment: self.environment.clone(),
        })?;
        parse_metadata(&metadata).context("what is recorded of the run could not be read again")?;
        let metadata = HashMap::from([(METADATA_KEY.to_owned(), metadata)]);
        // The layout is that of `safetensors::serialize`, which itself would hold all the bytes a second time.
        let part = |(name, view): (&'a str, TensorView<'a>)| Part {
            name,
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            bytes: Cow::Borrowed(view.data()),
        };
        let digests = self.written_digests()?.map(|json| Part {
            name: DIGESTS,
            dtype: Dtype::U8,
            shape: vec![json.len()],
            bytes: Cow::Owned(json),
        });
        let mut tensors = self.iter().map(part).chain(digests).collect::<Vec<_>>();
        tensors.sort_by(|a, b| b.dtype.cmp(&a.dtype).then(a.name.cmp(b.name)));
        let mut end = 0;
        let infos = tensors.iter().map(|part| {
            let data_offsets = (end, end + part.bytes.len());
            end = data_offsets.1;
            let (dtype, shape) = (part.dtype, part.shape.clone());
            (part.name.to_owned(), TensorInfo { dtype, shape, data_offsets })
        });
        let mut header = serde_json::to_string(&Header::new(Some(metadata), infos.collect())?)?;
        ensure!(
            header.len() <= MAX_HEADER,
            "{} names need a header of {} bytes, and safetensors reads {MAX_HEADER} at most: save fewer in a file",
            tensors.len(),
            header.len()
        );
        let aligned = header.len().next_multiple_of(size_of::<u64>());
        header += &" ".repeat(aligned - header.len());
        Ok(LaidOut { header, tensors })
    }
}

/// Parses the header of a file, and returns where the data begins.
fn read_header(file: &[u8]) -> Result<(usize, Header)> {
    let (length, rest) = file.split_first_chunk().context("it is too short")?;
    let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
    ensure!(
        length <= MAX_HEADER,
        "header too large: {length} bytes, and {MAX_HEADER} are the most"
    );
    // A copy, since a mapped file can be changed meanwhile, and text has to stay as it was checked.
    let header = rest.get(..length).context("it ends within its header")?.to_vec();
    serde_json::from_slice::<NoNameTwice>(&header)?;
    let header = serde_json::from_slice::<Header>(&header)?;
    let (data, expected) = (rest.len() - length, header.data_len());
    ensure!(data == expected, "it has {data} bytes of data, and its header says {expected}");
    Ok((size_of::<u64>() + length, header))
}

/// The contents of a file, in the order in which it holds them.
struct LaidOut<'a> {
    header: String,
    tensors: Vec<Part<'a>>,
}

/// A tensor of a file.
struct Part<'a> {
    name: &'a str,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Cow<'a, [u8]>,
}

impl LaidOut<'_> {
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&(self.header.len() as u64).to_le_bytes())?;
        out.write_all(self.header.as_bytes())?;
        self.tensors.iter().try_for_each(|part| out.write_all(&part.bytes))
    }
}

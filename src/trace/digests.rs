//! The tensors of which a trace has the digest alone, and the part of a file that holds the digests.

use std::borrow::Cow;
use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::value::{RawValue, to_raw_value};

use super::metadata::NoNameTwice;
use super::{Content, Digest, Entry, RESERVED, Trace};

/// The name under which a file holds its digests: a tensor of bytes, which are JSON. It is not in the metadata, since
/// a header has a largest size.
pub(super) const DIGESTS: &str = "__digests__";

/// What a trace has of a tensor.
pub(crate) enum Stored<'a> {
    Values(TensorView<'a>),
    Digest(&'a Digest),
}

impl Stored<'_> {
    pub(crate) fn dtype(&self) -> Dtype {
        match self {
            Stored::Values(view) => view.dtype(),
            Stored::Digest(digest) => digest.dtype,
        }
    }

    pub(crate) fn shape(&self) -> &[usize] {
        match self {
            Stored::Values(view) => view.shape(),
            Stored::Digest(digest) => &digest.shape,
        }
    }

    /// Returns the digest, which is computed where the values are there.
    pub(crate) fn digest(&self) -> Cow<'_, Digest> {
        match self {
            Stored::Values(view) => Cow::Owned(Digest::of(view)),
            Stored::Digest(digest) => Cow::Borrowed(digest),
        }
    }
}

/// A digest, and its JSON as it was written.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) digest: Digest,
    json: Box<RawValue>,
}

impl Trace {
    /// Appends the digest of a tensor in the place of the tensor.
    ///
    /// # Errors
    /// Returns an error if the trace already has a tensor of that name, or if the digest has no SHA-256.
    pub fn push_digest(&mut self, name: impl Into<String>, digest: Digest) -> Result<()> {
        let name = name.into();
        self.ensure_new(&name)?;
        digest.check().with_context(|| name.clone())?;
        let json = to_raw_value(&digest)?;
        self.tensors.insert(name, Entry::of_digest(Written { digest, json }));
        Ok(())
    }

    /// Returns whether there is a tensor of that name, or its digest.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Returns the digest of the tensor of that name: the one that the file holds, or that of the values.
    pub fn digest(&self, name: &str) -> Option<Digest> {
        Some(self.stored(name)?.digest().into_owned())
    }

    /// Returns whether the trace has the digest of that tensor alone, and not its values.
    pub fn is_digest(&self, name: &str) -> bool {
        matches!(self.stored(name), Some(Stored::Digest(_)))
    }

    /// Returns what the trace has of the tensor of that name.
    pub(crate) fn stored(&self, name: &str) -> Option<Stored<'_>> {
        let entry = self.tensors.get(name)?;
        Some(match &entry.content {
            Content::Digest(written) => Stored::Digest(&written.digest),
            _ => Stored::Values(self.get(name)?),
        })
    }

    /// Returns the tensor of that name as plain data.
    ///
    /// # Errors
    /// Returns an error if there is none, or if the trace has its digest alone.
    pub(crate) fn values(&self, name: &str) -> Result<TensorView<'_>> {
        self.get(name).with_context(|| match (self.is_digest(name), &self.checkpoint_of(name)) {
            (false, _) => format!("no tensor named {name}"),
            (true, Some(file)) => format!("the values of {name} are in the checkpoint {file}"),
            (true, None) => format!("{name} was recorded as a digest, and its values are needed"),
        })
    }

    /// Returns the JSON of all digests, or `None` if there are none.
    pub(super) fn written_digests(&self) -> Result<Option<Vec<u8>>> {
        ensure!(self.get(DIGESTS).is_none(), "no tensor of a case can be named {DIGESTS}");
        let digests = self.tensors.iter().filter_map(|(name, entry)| match &entry.content {
            Content::Digest(written) => Some((name, &*written.json)),
            _ => None,
        });
        let digests = digests.collect::<indexmap::IndexMap<_, _>>();
        Ok(if digests.is_empty() { None } else { Some(serde_json::to_vec(&digests)?) })
    }

    pub(super) fn ensure_new(&self, name: &str) -> Result<()> {
        ensure!(!self.tensors.contains_key(name), "two tensors named {name}");
        ensure!(name != RESERVED, "no tensor of a safetensors file can be named {RESERVED}");
        Ok(())
    }
}

impl Entry {
    fn of_digest(written: Written) -> Entry {
        let (dtype, shape) = (written.digest.dtype, written.digest.shape.clone());
        let content = Content::Digest(Box::new(written));
        Entry { dtype, shape, content, strides: None, in_checkpoint: None }
    }
}

/// Reads the JSON of the digests of a file.
///
/// # Errors
/// Returns an error if it is other JSON, has a name twice, or if one is no digest.
pub(super) fn read_digests(json: &[u8]) -> Result<HashMap<String, Entry>> {
    let context = || format!("in {DIGESTS}");
    let json = str::from_utf8(json).with_context(context)?;
    serde_json::from_str::<NoNameTwice>(json).with_context(context)?;
    let listed = serde_json::from_str::<HashMap<String, Box<RawValue>>>(json);
    let entries = listed.with_context(context)?.into_iter().map(|(name, json)| {
        let digest = serde_json::from_str::<Digest>(json.get());
        let digest = digest.map_err(anyhow::Error::from).and_then(|digest| {
            digest.check()?;
            Ok(digest)
        });
        let digest = digest.with_context(|| name.clone()).with_context(context)?;
        Ok((name, Entry::of_digest(Written { digest, json })))
    });
    entries.collect()
}

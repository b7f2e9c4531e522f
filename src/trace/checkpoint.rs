//! The checkpoint that a case refers to, in the place of initial values of its own.

use std::path::{Component, Path};

use anyhow::{Context, Result, bail, ensure};
use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::bytes::Bytes;
use super::digest::{is_sha256, sha256};
use super::{Content, Trace};

/// A safetensors file that holds initial parameters and buffers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Checkpoint {
    /// The name of the file, relative to the folder of the case.
    pub(super) file: String,
    /// The SHA-256 of the file.
    sha256: String,
}

/// What the metadata says of it.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Initial {
    file: String,
    sha256: String,
    /// The names that the tensors have in the checkpoint, by those that they have in the case.
    tensors: IndexMap<String, String>,
}

impl Trace {
    /// Takes the initial values from the checkpoint that the file refers to, if it refers to one. `folder` is the one
    /// in which the file lies.
    ///
    /// # Errors
    /// Returns an error if the checkpoint is missing or is not the one that was recorded.
    pub fn load_checkpoint(&mut self, folder: &Path) -> Result<()> {
        let Some(checkpoint) = self.checkpoint.take() else { return Ok(()) };
        let path = folder.join(&checkpoint.file);
        let refers = || format!("the initial values are in the checkpoint {}", path.display());
        let bytes = Bytes::read(&path).with_context(refers)?;
        if sha256(bytes.as_slice()) != checkpoint.sha256 {
            let recorded = checkpoint.sha256;
            bail!("{}: it has changed since: its SHA-256 was {recorded}", refers());
        }
        let other = Trace::parse(bytes).with_context(refers)?;
        let first = self.bytes.len();
        for entry in self.tensors.values_mut() {
            let Some(name) = entry.in_checkpoint.take() else { continue };
            let there = other.tensors.get(&name);
            let there = there.with_context(|| format!("{}: it has no tensor {name}", refers()))?;
            let Content::Values(place, range) = &there.content else {
                bail!("{}: it has a digest of {name} alone", refers());
            };
            let same = (entry.dtype, &entry.shape) == (there.dtype, &there.shape);
            ensure!(same, "{}: its {name} is of another dtype or shape", refers());
            entry.content = Content::Values(first + place, range.clone());
        }
        self.bytes.extend(other.bytes);
        Ok(())
    }

    /// Returns the name of the checkpoint from the folder of the file on, if the file refers to one.
    pub fn checkpoint_file(&self) -> Option<&str> {
        Some(&self.checkpoint.as_ref()?.file)
    }

    /// Returns the file that holds the values of a tensor, if that is a checkpoint.
    pub(super) fn checkpoint_of(&self, name: &str) -> Option<&str> {
        self.tensors.get(name)?.in_checkpoint.as_ref()?;
        Some(&self.checkpoint.as_ref()?.file)
    }

    /// Returns what the metadata says of the checkpoint.
    pub(super) fn listed_initial(&self) -> Option<Initial> {
        let Checkpoint { file, sha256 } = self.checkpoint.clone()?;
        let tensors = self.tensors.iter();
        let tensors = tensors
            .filter_map(|(name, entry)| Some((name.clone(), entry.in_checkpoint.clone()?)))
            .collect();
        Some(Initial { file, sha256, tensors })
    }

    /// Takes what the metadata says of the checkpoint.
    ///
    /// # Errors
    /// Returns an error if the name of the file is not relative, the SHA-256 is none, or a tensor is no digest.
    pub(super) fn take_initial(&mut self, listed: Option<Initial>) -> Result<()> {
        let Some(Initial { file, sha256, tensors }) = listed else { return Ok(()) };
        let mut parts = Path::new(&file).components();
        let relative =
            parts.all(|part| matches!(part, Component::Normal(_) | Component::ParentDir));
        ensure!(
            relative && !file.is_empty(),
            "the checkpoint's name {file:?} is not relative to the case"
        );
        ensure!(is_sha256(&sha256), "the checkpoint's sha256 is not one");
        for (name, there) in tensors {
            let entry = self.tensors.get_mut(&name);
            let digest = entry.filter(|entry| matches!(entry.content, Content::Digest(_)));
            let digest = digest.with_context(|| {
                format!("{name} is said to be in the checkpoint, and the file has no digest of it")
            })?;
            digest.in_checkpoint = Some(there);
        }
        self.checkpoint = Some(Checkpoint { file, sha256 });
        Ok(())
    }
}

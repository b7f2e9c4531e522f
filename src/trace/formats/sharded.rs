//! Checkpoints in several files, with the index that [transformers](https://huggingface.co/docs/transformers/big_models)
//! writes: `model.safetensors.index.json`, which says which file holds which tensor.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::trace::metadata::NoNameTwice;
use crate::trace::{Content, Trace};

/// The names of an index and of a whole checkpoint in a folder, in the order in which they are looked for.
const NAMES: [&str; 4] = [
    "model.safetensors.index.json",
    "model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
];

/// How far from its beginning a text is looked at.
const MAX_LOOK: usize = 4096;

/// Which file holds which tensor.
#[derive(Deserialize)]
pub(in crate::trace) struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Returns the file that stands for a folder: an index, or a checkpoint in one file.
///
/// # Errors
/// Returns an error if there is none, or if several indices are in it.
pub(in crate::trace) fn in_folder(folder: &Path) -> Result<PathBuf> {
    if let Some(found) = NAMES.iter().map(|name| folder.join(name)).find(|path| path.is_file()) {
        return Ok(found);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(".index.json") {
            found.push(entry.path());
        }
    }
    match &found[..] {
        [index] => Ok(index.clone()),
        [] => bail!("a folder without {} or {}: name a file that is in it", NAMES[0], NAMES[1]),
        _ => bail!("a folder with several indices: name one of them"),
    }
}

/// Returns the index that a file is, or `None` if it is no JSON object with a `weight_map`.
///
/// # Errors
/// Returns an error if it is one, and names a tensor twice, and if it is damaged: it has the name or the `weight_map` of
/// an index, and cannot be read.
pub(in crate::trace) fn index(path: &Path, text: &[u8]) -> Result<Option<Index>> {
    // The length of a safetensors file's header can begin with the byte of a brace. Text holds no zeros.
    let is_text = |bytes: &[u8]| bytes.first() == Some(&b'{') && !bytes.contains(&0);
    if !text.get(..8.min(text.len())).is_some_and(is_text) {
        return Ok(None);
    }
    let index = match serde_json::from_slice(text) {
        Ok(index) => index,
        Err(err) if is_named_index(path) || is_index(text) => {
            let name = path.file_name().unwrap_or_default();
            bail!("the index {name:?} of a checkpoint is damaged: {err}: download it again")
        }
        Err(_) => return Ok(None),
    };
    serde_json::from_slice::<NoNameTwice>(text).context("an index")?;
    Ok(Some(index))
}

fn is_named_index(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".index.json"))
}

/// Returns whether a text has the list of an index near its beginning.
fn is_index(text: &[u8]) -> bool {
    let words = b"\"weight_map\"";
    text.get(..MAX_LOOK).unwrap_or(text).windows(words.len()).any(|part| part == words)
}

/// Reads the files that an index names, which lie beside it, as one trace whose tensors are sorted by name.
///
/// # Errors
/// Returns an error if a file is named by more than its name, if it cannot be read, or if the index and the files do
/// not agree on the tensors.
pub(in crate::trace) fn load_shards(folder: &Path, index: Index) -> Result<Trace> {
    let mut names = BTreeMap::<String, Vec<String>>::new();
    for (tensor, file) in index.weight_map {
        names.entry(file).or_default().push(tensor);
    }
    ensure!(!names.is_empty(), "an index that names no tensor");
    let mut whole = Trace { of_unknown_strides: true, ..Trace::new() };
    for (file, tensors) in names {
        // The index may come from anywhere, and names no file elsewhere.
        let mut parts = Path::new(&file).components();
        let is_name = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
        ensure!(is_name, "its index names the file {file:?}, which is not beside it");
        let mut shard = Trace::load_file(&folder.join(&file))
            .with_context(|| format!("cannot read {file:?}, which its index names"))?;
        let first = whole.bytes.len();
        whole.bytes.append(&mut shard.bytes);
        for name in tensors {
            let entry = shard.tensors.swap_remove(&name);
            let mut entry = entry.with_context(|| {
                format!("its index says that {file:?} holds {name}, which it does not")
            })?;
            if let Content::Values(place, _) = &mut entry.content {
                *place += first;
            }
            whole.tensors.insert(name, entry);
        }
        if let Some(name) = shard.tensors.keys().min() {
            bail!("its index does not say that {file:?} holds {name}");
        }
        // A tensor that is tied to one of another name stays so.
        whole.tied.extend(shard.tied);
        whole.foreign_keys.extend(shard.foreign_keys);
    }
    whole.tensors.sort_unstable_keys();
    whole.foreign_keys.sort();
    whole.foreign_keys.dedup();
    Ok(whole)
}

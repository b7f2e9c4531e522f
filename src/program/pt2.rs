//! A `.pt2` file: the zip archive that `torch.export.save` writes. Nothing in it is unpickled.

use std::collections::HashMap;
use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tch::{Kind as Dtype, Tensor};

use super::numbers::dtype;
use super::schema::{Size, TensorMeta};
use super::{Kind, Precision, Program};
use crate::torch::{memory, within};
use crate::trace::{Archive, Bytes};

/// The list of the tensors of an archive.
#[derive(Deserialize)]
struct Config {
    config: HashMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    path_name: String,
    use_pickle: bool,
    tensor_meta: TensorMeta,
}

impl Program {
    /// Reads a program that [`torch.export.save`](https://docs.pytorch.org/docs/2.13/export.html) wrote.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read or is damaged, or if the program is of another version or has an
    /// operator or an argument that is not supported. The message names it.
    pub fn load(path: impl AsRef<Path>) -> Result<Program> {
        Ok(Program::load_with_json(path.as_ref(), |_| Ok(()))?.0)
    }

    /// Reads a program, and the JSON that it was read from, which `check` sees before.
    pub(crate) fn load_with_json(
        path: &Path,
        check: impl FnOnce(&[u8]) -> Result<()>,
    ) -> Result<(Program, Vec<u8>)> {
        Program::read(path, check).with_context(|| path.display().to_string())
    }

    fn read(path: &Path, check: impl FnOnce(&[u8]) -> Result<()>) -> Result<(Program, Vec<u8>)> {
        let bytes = Bytes::read(path)?;
        let files = Archive::open(bytes.as_slice()).and_then(Archive::without_folder);
        let json = files.and_then(|files| Ok((model(&files)?, files)));
        let (json, files) = json.context("it is not a program of torch.export.save")?;
        check(json)?;
        let order = files.stored("byteorder").unwrap_or(b"little");
        ensure!(order == b"little", "its bytes are not in little-endian order");
        let weights = config(&files, "data/weights/", "model_weights_config.json")?;
        let constants = config(&files, "data/constants/", "model_constants_config.json")?;
        let mut storages = HashMap::<(String, Dtype), Tensor>::new();
        let mut leaves = HashMap::<String, Vec<Tensor>>::new();
        let program = Program::new(json, Precision::Own, |kind, name| {
            let places = [(&weights, "data/weights/"), (&constants, "data/constants/")];
            let found =
                places.iter().find_map(|(config, folder)| Some((config.get(name)?, folder)));
            let (entry, folder) = found.context("the archive does not have it")?;
            ensure!(!entry.use_pickle, "it is a pickle, which is not read");
            let (place, meta) = (format!("{folder}{}", entry.path_name), &entry.tensor_meta);
            // Tied parameters are one tensor. Others share the memory alone: a buffer has no gradient.
            let is_trained = kind == Kind::Parameter(true);
            let mut tied = leaves.get(&place).into_iter().flatten();
            if let Some(tied) = tied.find(|leaf| is_trained && matches_meta(leaf, meta)) {
                return Ok(tied.shallow_clone());
            }
            let dtype = dtype(meta.dtype)?.1;
            let memory = match storages.entry((place.clone(), dtype)) {
                Occupied(known) => known.into_mut(),
                Vacant(new) => new.insert(memory(files.stored(&place)?, dtype)?),
            };
            let tensor = tensor(meta, memory)?.f_data()?.f_set_requires_grad(is_trained)?;
            if is_trained {
                leaves.entry(place).or_default().push(tensor.shallow_clone());
            }
            Ok(tensor)
        })?;
        Ok((program, json.to_vec()))
    }
}

/// Returns the JSON of the program, of the one format that PyTorch writes and reads.
fn model<'a>(files: &Archive<'a>) -> Result<&'a [u8]> {
    const MODEL: &str = "models/model.json";
    let named = |name: &&str| name.starts_with("models/") && name.ends_with(".json");
    let others = files.names().filter(named).collect::<Vec<_>>();
    ensure!(
        others.is_empty() || others.contains(&MODEL),
        "the archive has no {MODEL}, and it has {}",
        others.join(", ")
    );
    let json = files.stored(MODEL)?;
    for (name, expected) in [("archive_format", "pt2"), ("archive_version", "0")] {
        let found = String::from_utf8_lossy(files.stored(name)?);
        ensure!(found == expected, "its {name} is {found:?}, and PyTorch reads {expected:?} alone");
    }
    Ok(json)
}

fn matches_meta(tensor: &Tensor, meta: &TensorMeta) -> bool {
    let known = |sizes: &[Size]| sizes.iter().map(known).collect::<Option<Vec<_>>>();
    known(&meta.sizes).is_some_and(|sizes| sizes == tensor.size())
        && known(&meta.strides).is_some_and(|strides| strides == tensor.stride())
}

fn known(size: &Size) -> Option<i64> {
    match size {
        Size::AsInt(size) => Some(*size),
        Size::AsExpr(_) => None,
    }
}

fn tensor(meta: &TensorMeta, memory: &Tensor) -> Result<Tensor> {
    let known = |sizes: &[Size]| sizes.iter().map(known).collect::<Option<Vec<_>>>();
    let (sizes, strides) =
        known(&meta.sizes).zip(known(&meta.strides)).context("its shape is not known")?;
    let offset = meta.storage_offset.as_ref().map_or(Some(0), self::known);
    within(memory, &sizes, &strides, offset.context("its offset is not known")?)
}

/// Reads the list of the tensors in a folder, which is not there if it has none.
fn config(archive: &Archive, folder: &str, name: &str) -> Result<HashMap<String, Entry>> {
    let name = format!("{folder}{name}");
    if !archive.names().any(|other| other == name) {
        return Ok(HashMap::new());
    }
    Ok(serde_json::from_slice::<Config>(archive.stored(&name)?).context(name)?.config)
}

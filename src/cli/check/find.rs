//! The case files that a command line names.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result, ensure};

/// Adds every `*.safetensors` file below `path` if it is a folder, and `path` itself otherwise.
pub(super) fn find_cases(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let before = files.len();
    search(path, files).with_context(|| format!("cannot search {}", path.display()))?;
    ensure!(files.len() > before, "{} holds no *.safetensors file", path.display());
    Ok(())
}

fn search(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        // Links to folders are not followed, so that none leads in a circle.
        if entry.file_type()?.is_dir() {
            search(&entry.path(), files)?;
        } else if entry.path().extension().is_some_and(|extension| extension == "safetensors") {
            files.push(entry.path());
        }
    }
    Ok(())
}

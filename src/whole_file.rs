//! Files that are there whole or not at all.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Writes beside `path` and renames, so that `path` never holds half a file; a link keeps pointing to it.
///
/// # Errors
/// The file cannot be written, or `path` is something other than a regular file.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    write(path, bytes).with_context(|| format!("cannot write {}", path.display()))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    // Renaming onto a device, a folder or a link would replace it, or fail late.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
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
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&sibling, path));
    if written.is_err() {
        // What went wrong first is what matters.
        let _ = fs::remove_file(&sibling);
    }
    Ok(written?)
}

//! Files that are there whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, ensure};

/// Writes beside `path` and renames, so that `path` never holds half a file; a link keeps pointing to it.
///
/// ```
/// use std::io::Write;
///
/// let file = std::env::temp_dir().join("whole_file_example.txt");
/// tch_parity::write_whole(&file, |file| file.write_all(b"all of it"))?;
/// assert_eq!(std::fs::read(&file)?, b"all of it");
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// The file cannot be written, or `path` is something other than a regular file.
pub fn write_whole(
    path: &Path,
    contents: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<()> {
    write(path, contents).with_context(|| format!("cannot write {}", path.display()))
}

fn write(
    path: &Path,
    contents: impl FnOnce(&mut BufWriter<&File>) -> io::Result<()>,
) -> Result<()> {
    // Renaming onto a device, a folder or a link would replace it, or fail late.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if let Ok(metadata) = fs::metadata(path) {
        ensure!(metadata.is_file(), "not a regular file");
    }
    let name = path.file_name().context("not a file's name")?;
    let mut sibling = name.to_owned();
    sibling.push(format!(".{}.tmp", std::process::id()));
    let sibling = path.with_file_name(sibling);
    let file = OpenOptions::new().write(true).create_new(true).open(&sibling)?;
    let mut buffered = BufWriter::new(&file);
    let written = contents(&mut buffered)
        .and_then(|()| buffered.flush())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&sibling, path));
    if written.is_err() {
        // What went wrong first is what matters.
        let _ = fs::remove_file(&sibling);
    }
    Ok(written?)
}

//! Files that are there whole or not at all.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

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
    // Renaming onto a device, a folder or a link would replace it, or fail late; so would renaming onto the
    // file that stdout happens to be, which is a link there.
    let is_device = path.starts_with("/dev") || path.starts_with("/proc");
    let path = &match fs::canonicalize(path) {
        Ok(path) => path,
        Err(_) if path.is_symlink() => bail!("a link to a file that is not there"),
        Err(_) => path.to_owned(),
    };
    if let Ok(metadata) = fs::metadata(path) {
        ensure!(metadata.is_file() && !is_device, "not a regular file");
    }
    ensure!(path.file_name().is_some(), "not a file's name");
    let sibling = path.with_file_name(format!(".tch-parity.{}.tmp", std::process::id()));
    // One of that name was left by a process that was killed.
    let _ = fs::remove_file(&sibling);
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

//! Files that are written completely or not at all.

use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use tempfile::{Builder, NamedTempFile};

/// Writes a file that afterwards holds all of `contents` or, after an error, what it held before.
///
/// The contents go into a file beside `path`, which is then renamed to it. A symbolic link is followed.
///
/// ```
/// use std::io::Write;
///
/// let file = std::env::temp_dir().join("write_atomically_example.txt");
/// tch_parity::write_atomically(&file, |file| file.write_all(b"all of it"))?;
/// assert_eq!(std::fs::read(&file)?, b"all of it");
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// Returns an error if the file cannot be written, or if `path` is not a regular file.
pub fn write_atomically(
    path: &Path,
    contents: impl FnOnce(&mut AtomicFile) -> io::Result<()>,
) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    contents(&mut file).with_context(|| cannot_write(path))?;
    file.persist()
}

/// A file that replaces another once it is complete. If it is dropped before that, it leaves nothing behind.
#[derive(Debug)]
pub struct AtomicFile {
    file: BufWriter<NamedTempFile>,
    /// The path that was asked for, with symbolic links followed.
    target: PathBuf,
}

impl AtomicFile {
    /// Creates the file that will be renamed to `path`, in the same folder.
    ///
    /// # Errors
    /// Returns an error if the folder cannot be written to, or if `path` is not a regular file.
    pub fn create(path: &Path) -> Result<AtomicFile> {
        AtomicFile::beside(path).with_context(|| cannot_write(path))
    }

    fn beside(path: &Path) -> Result<AtomicFile> {
        // A rename onto a device, a folder or a link would replace it, or fail late. So would a rename onto
        // the file that stdout happens to be, to which a link in /dev or /proc leads.
        let is_device = path.starts_with("/dev") || path.starts_with("/proc");
        let target = match fs::canonicalize(path) {
            Ok(path) => path,
            Err(_) if path.is_symlink() => bail!("dangling symbolic link"),
            Err(_) => path.to_owned(),
        };
        if let Ok(metadata) = fs::metadata(&target) {
            ensure!(metadata.is_file() && !is_device, "not a regular file");
        }
        ensure!(target.file_name().is_some(), "not a file name");
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let mut sibling = Builder::new();
        sibling.prefix(".tch-parity.").suffix(".tmp").permissions(like_any_new_file());
        Ok(AtomicFile { file: BufWriter::new(sibling.tempfile_in(folder)?), target })
    }

    /// Renames the file to the path that it was created for.
    ///
    /// # Errors
    /// Returns an error if what was written does not reach the disk, or if the file cannot be renamed.
    pub fn persist(self) -> Result<()> {
        let target = self.target;
        let renamed = self.file.into_inner().map_err(io::IntoInnerError::into_error);
        let renamed = renamed.and_then(|file| {
            file.as_file().sync_all()?;
            Ok(file.persist(&target)?)
        });
        renamed.map(|_: File| ()).with_context(|| cannot_write(&target))
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

/// Returns the permissions of any new file, from which the system takes away the process's umask. By default, a
/// temporary file would be readable only by its owner.
#[cfg(unix)]
fn like_any_new_file() -> Permissions {
    use std::os::unix::fs::PermissionsExt;
    Permissions::from_mode(0o666)
}

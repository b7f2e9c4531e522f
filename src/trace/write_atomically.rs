//! Files that are written completely or not at all.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use tempfile::{Builder, NamedTempFile};

/// Writes a file that afterwards holds all of `contents` or, after an error, what it held before.
///
/// The contents go into a file beside `path`, which is then renamed to it. A symbolic link is followed. The mode
/// and the owner of a file that is replaced stay. A hard link to it keeps the old contents.
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
/// The file cannot be written, or `path` is read-only, not a regular file, or the file that stdout or stderr
/// writes to.
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
    /// `None` once it is complete.
    file: Option<BufWriter<NamedTempFile>>,
    /// The path that was asked for, with symbolic links followed.
    target: PathBuf,
}

impl AtomicFile {
    /// Creates the file that will be renamed to `path`, in the same folder.
    ///
    /// # Errors
    /// The folder cannot be written to, or `path` is read-only, not a regular file, or the file that stdout or
    /// stderr writes to.
    pub fn create(path: &Path) -> Result<AtomicFile> {
        AtomicFile::beside(path).with_context(|| cannot_write(path))
    }

    fn beside(path: &Path) -> Result<AtomicFile> {
        // Renaming onto a device or a link would replace it, and onto a folder fail late.
        let target = match fs::canonicalize(path) {
            Ok(path) => path,
            // The links of Linux to what is not in any folder, such as a pipe.
            Err(_)
                if path.is_symlink() && (path.starts_with("/dev") || path.starts_with("/proc")) =>
            {
                bail!("not a regular file: write - for stdout")
            }
            Err(_) if path.is_symlink() => bail!("dangling symbolic link"),
            Err(_) => path.to_owned(),
        };
        let replaced = fs::metadata(&target).ok();
        if let Some(replaced) = &replaced {
            ensure!(replaced.is_file(), "not a regular file");
            ensure!(
                !is_open_as_output(replaced),
                "stdout or stderr writes to that file: write - for stdout"
            );
            ensure!(!replaced.permissions().readonly(), "the file is read-only");
        }
        ensure!(target.file_name().is_some(), "not a file name");
        let folder = match target.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        // A new file has what the process's umask leaves of this; a temporary file alone would be its owner's.
        let mode = Permissions::from_mode(0o666);
        // Of its own path, wherever the process goes meanwhile.
        let folder = &fs::canonicalize(folder)?;
        let target = folder.join(target.file_name().unwrap_or_default());
        let mut sibling = Builder::new();
        sibling.prefix(".tch-parity.").suffix(".tmp").permissions(mode);
        let mut unfinished = unfinished();
        let file = sibling.tempfile_in(folder)?;
        unfinished.insert(file.path().to_owned());
        drop(unfinished);
        let file = AtomicFile { file: Some(BufWriter::new(file)), target };
        if let Some(replaced) = replaced {
            file.take_after(&replaced)?;
        }
        Ok(file)
    }

    /// Gives the file the owner and the mode of the one that it replaces.
    fn take_after(&self, replaced: &fs::Metadata) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let file = file.get_ref().as_file();
        let ours = file.metadata()?;
        let owner = (replaced.uid(), replaced.gid());
        if (ours.uid(), ours.gid()) != owner {
            fchown(file, Some(owner.0), Some(owner.1)).context("the file has another owner")?;
        }
        Ok(file.set_permissions(replaced.permissions())?)
    }

    /// Renames the file to the path that it was created for.
    ///
    /// # Errors
    /// What was written does not reach the disk, or the file cannot be renamed.
    pub fn persist(mut self) -> Result<()> {
        let persisted = self.file.take().map_or(Ok(()), |file| {
            let path = file.get_ref().path().to_owned();
            let written = file.into_inner().map_err(io::IntoInnerError::into_error);
            let synced = written.and_then(|file| file.as_file().sync_all().map(|()| file));
            let mut unfinished = unfinished();
            // What is not renamed is removed here, before it is forgotten.
            let persisted = synced.and_then(|file| Ok(file.persist(&self.target)?));
            unfinished.remove(&path);
            persisted.map(|_: File| ())
        });
        persisted.with_context(|| cannot_write(&self.target))
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(file) = self.file.take() {
            let path = file.get_ref().path().to_owned();
            let mut unfinished = unfinished();
            drop(file); // which removes it, before it is forgotten
            unfinished.remove(&path);
        }
    }
}

/// Removes the files that have not taken the place of others yet, for a process that is about to end by a signal.
///
/// No file is begun or completed after that: the calls wait.
pub fn remove_unfinished_files() {
    let unfinished = unfinished();
    for file in unfinished.iter() {
        let _ = fs::remove_file(file); // there is nobody to be told any more
    }
    std::mem::forget(unfinished);
}

fn unfinished() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    static UNFINISHED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.as_mut().map_or(Ok(0), |file| file.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

fn cannot_write(path: &Path) -> String {
    format!("cannot write {}", path.display())
}

/// Returns whether a file is the one that stdout or stderr writes to.
fn is_open_as_output(file: &fs::Metadata) -> bool {
    let outputs =
        [rustix::fs::fstat(io::stdout().as_fd()), rustix::fs::fstat(io::stderr().as_fd())];
    let mut outputs = outputs.into_iter().flatten();
    outputs.any(|output| (output.st_dev, output.st_ino) == (file.dev(), file.ino()))
}

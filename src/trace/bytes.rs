//! The bytes of a trace: either owned, or those of a file that is mapped into memory.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use memmap2::Mmap;

/// The size in bytes from which on a file is mapped. Smaller files are read.
const MAP_FROM: u64 = 1 << 20;

#[derive(Debug)]
pub(crate) enum Bytes {
    Owned(Vec<u8>),
    /// Those of a file, which several traces can refer to.
    Mapped(Arc<Mmap>),
}

impl Default for Bytes {
    fn default() -> Bytes {
        Bytes::Owned(Vec::new())
    }
}

impl Bytes {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Bytes::Owned(bytes) => bytes,
            Bytes::Mapped(map) => map,
        }
    }

    pub(crate) fn read(path: &Path) -> Result<Bytes> {
        ensure!(fs::metadata(path)?.is_file(), "not a regular file");
        let mut file = File::open(path)?;
        if file.metadata()?.len() < MAP_FROM {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            return Ok(Bytes::Owned(bytes));
        }
        // SAFETY: the map is read as plain bytes, and all bytes are valid. If the file is truncated or
        // rewritten meanwhile, this process is stopped or sees mixed values, which is the price of comparing
        // files of any size. If the file is replaced by renaming, as `save` does, the map stays as it was.
        #[allow(unsafe_code)]
        Ok(Bytes::Mapped(Arc::new(unsafe { Mmap::map(&file)? })))
    }
}

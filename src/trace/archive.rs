//! A zip archive in memory, as PyTorch and NumPy write them.

use std::io::Read;
use std::ops::Range;

use anyhow::{Context, Result, bail, ensure};
use flate2::read::DeflateDecoder;
use indexmap::IndexMap;
use rawzip::{CompressionMethod, ZipArchive, crc32};

/// The files of an archive by their names, in the order of its directory.
///
/// The sums of files that are stored as they are have been checked. Those of compressed ones are checked when they are
/// unpacked.
pub(crate) struct Archive<'a> {
    bytes: &'a [u8],
    files: IndexMap<String, File>,
}

struct File {
    is_compressed: bool,
    range: Range<usize>,
    /// The size and the sum of what is in it.
    size: u64,
    crc: u32,
}

impl File {
    fn check(&self, contents: &[u8]) -> Result<()> {
        let is_whole = contents.len() as u64 == self.size && crc32(contents) == self.crc;
        ensure!(is_whole, "it is damaged: its size or its sum (CRC-32) is not the recorded one");
        Ok(())
    }
}

impl<'a> Archive<'a> {
    /// Opens an archive.
    ///
    /// # Errors
    /// Returns an error if the archive is damaged, or if a file in it is compressed in another way than by deflate,
    /// has the name of another one, or a name that leads out of a folder.
    pub(crate) fn open(bytes: &'a [u8]) -> Result<Archive<'a>> {
        let archive = ZipArchive::from_slice(bytes)?;
        let mut files = IndexMap::new();
        let mut entries = archive.entries();
        let mut total = 0usize;
        while let Some(entry) = entries.next_entry()? {
            let path = entry.file_path();
            let name = std::str::from_utf8(path.as_bytes()).context("a name that is not UTF-8")?;
            ensure!(
                !name.starts_with('/') && !name.split('/').any(|part| part == ".."),
                "an entry is named {name:?}"
            );
            if entry.is_dir() {
                continue;
            }
            let is_compressed = match entry.compression_method() {
                CompressionMethod::STORE => false,
                CompressionMethod::DEFLATE => true,
                _ => bail!("{name} is compressed in a way that is not read"),
            };
            let stored = archive.get_entry(entry.wayfinder()).with_context(|| name.to_owned())?;
            let (start, end) = stored.compressed_data_range();
            let range = usize::try_from(start)?..usize::try_from(end)?;
            // Files that lie over each other would be read again and again.
            total = total.saturating_add(range.len());
            ensure!(total <= bytes.len(), "its files lie over each other");
            let (size, crc) = (entry.uncompressed_size_hint(), entry.crc32());
            let file = File { is_compressed, range, size, crc };
            if !is_compressed {
                file.check(stored.data()).with_context(|| name.to_owned())?;
            }
            ensure!(files.insert(name.to_owned(), file).is_none(), "two entries are {name}");
        }
        Ok(Archive { bytes, files })
    }

    /// Returns the names of the files, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// Returns the whole archive.
    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Takes the folder that all files are in from their names.
    ///
    /// # Errors
    /// Returns an error if a file is in no folder, or if two of them then have the same name.
    pub(crate) fn without_folder(self) -> Result<Archive<'a>> {
        let mut files = IndexMap::new();
        for (name, file) in self.files {
            let Some((_, rest)) = name.split_once('/') else { bail!("an entry is named {name:?}") };
            ensure!(files.insert(rest.to_owned(), file).is_none(), "two entries are {rest}");
        }
        Ok(Archive { files, ..self })
    }

    /// Returns where a file that is stored as it is lies in the archive, or `None` if there is no such file or if it
    /// is compressed.
    pub(crate) fn range(&self, name: &str) -> Option<Range<usize>> {
        let file = self.files.get(name).filter(|file| !file.is_compressed);
        Some(file?.range.clone())
    }

    /// Returns the bytes of a file that is stored as it is.
    ///
    /// # Errors
    /// Returns an error if there is no such file, or if it is compressed.
    pub(crate) fn stored(&self, name: &str) -> Result<&'a [u8]> {
        ensure!(self.files.contains_key(name), "the archive has no {name}");
        let range = self.range(name);
        let why = || format!("{name} is compressed, and PyTorch stores its files as they are");
        Ok(&self.bytes[range.with_context(why)?])
    }

    /// Unpacks a compressed file of at most `most` bytes.
    ///
    /// # Errors
    /// Returns an error if there is no such file, or if it is larger or damaged.
    pub(super) fn unpack(&self, name: &str, most: usize) -> Result<Vec<u8>> {
        let file = self.files.get(name).with_context(|| format!("the archive has no {name}"))?;
        ensure!(
            file.size <= most as u64,
            "it has {} bytes when it is unpacked, and {most} are the most: save it with numpy.savez",
            file.size
        );
        let mut bytes = Vec::new();
        let unpacked = DeflateDecoder::new(&self.bytes[file.range.clone()]);
        unpacked.take(file.size + 1).read_to_end(&mut bytes).context("it is damaged")?;
        file.check(&bytes)?;
        Ok(bytes)
    }
}

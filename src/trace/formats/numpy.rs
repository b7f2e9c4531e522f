//! NumPy's files: `.npy`, which is an array, and `.npz`, which is a zip archive of them
//! ([the format](https://numpy.org/doc/2.4/reference/generated/numpy.lib.format.html)).

use anyhow::{Context, Result, bail, ensure};
use safetensors::tensor::Dtype;

use super::{Building, FILE, Kind, Rows, Source};
use crate::trace::{Archive, Bytes, Trace};

pub(super) const MAGIC: &[u8] = b"\x93NUMPY";

/// The name of an array without one, as `numpy.savez` names it.
const UNNAMED: &str = "arr_0";

/// The most bytes of the compressed arrays of a file, once they are unpacked.
const MAX_UNPACKED: usize = 1 << 30;

pub(super) fn read_npy(bytes: &[u8]) -> Result<Trace> {
    let mut building = Building::new(bytes.len());
    let whole = Source { bytes, place: FILE, start: 0, end: bytes.len(), big_endian: false };
    array(&mut building, UNNAMED.to_owned(), whole).context("a NumPy array (.npy)")?;
    Ok(building.trace)
}

pub(super) fn read_npz(bytes: &[u8], archive: &Archive) -> Result<Trace> {
    let mut building = Building::new(bytes.len());
    let mut left = MAX_UNPACKED;
    for file in archive.names() {
        let name = file.strip_suffix(".npy");
        let name = name.with_context(|| format!("it holds {file}, which is no array"))?.to_owned();
        let added = match archive.range(file) {
            Some(range) => {
                let (start, end) = (range.start, range.end);
                let stored = Source { bytes, place: FILE, start, end, big_endian: false };
                array(&mut building, name, stored)
            }
            None => unpacked(&mut building, name, file, archive, &mut left),
        };
        added.with_context(|| file.to_owned())?;
    }
    Ok(building.trace)
}

fn unpacked(
    building: &mut Building,
    name: String,
    file: &str,
    archive: &Archive,
    left: &mut usize,
) -> Result<()> {
    let bytes = archive.unpack(file, *left)?;
    *left -= bytes.len();
    // What is unpacked is no larger than it is.
    building.most = building.most.saturating_add(bytes.len());
    let place = building.place(Vec::new());
    let (start, end) = (0, bytes.len());
    array(building, name, Source { bytes: &bytes, place, start, end, big_endian: false })?;
    building.trace.bytes[place] = Bytes::Owned(bytes);
    Ok(())
}

/// Adds the array that a part of a file holds.
fn array(building: &mut Building, name: String, file: Source) -> Result<()> {
    let bytes = &file.bytes[file.start..file.end];
    let (header, data) = header(bytes)?;
    let header = std::str::from_utf8(header).context("its header is not UTF-8")?;
    let Header { kind, big_endian, by_column, shape } = Header::parse(header.trim_end())?;
    let rows = Rows::packed(shape, by_column)?;
    let expected = rows.numel.checked_mul(kind.size()).context("its sizes are out of range")?;
    let found = bytes.len() - data;
    ensure!(found == expected, "it has {found} bytes of data, and its header says {expected}");
    building.add(name, kind, &rows, Source { start: file.start + data, big_endian, ..file })
}

/// Returns the header of an array, and where the data begins.
fn header(bytes: &[u8]) -> Result<(&[u8], usize)> {
    let rest = bytes.strip_prefix(MAGIC).context("it is no NumPy array")?;
    let cut = "it ends within its header";
    let ([major, _minor], rest) = rest.split_first_chunk().context(cut)?;
    let (length, rest) = match major {
        1 => {
            let (length, rest) = rest.split_first_chunk().context(cut)?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk().context(cut)?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        _ => bail!("version {major} of the format is unknown"),
    };
    let header = rest.get(..length).context(cut)?;
    Ok((header, bytes.len() - rest.len() + length))
}

struct Header {
    kind: Kind,
    big_endian: bool,
    by_column: bool,
    shape: Vec<usize>,
}

impl Header {
    /// Parses the text of a header, which is a dict of Python's:
    /// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
    fn parse(text: &str) -> Result<Header> {
        let wrong = || format!("its header is {text:?}");
        let inner = text.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        let mut rest = inner.with_context(wrong)?.trim();
        let (mut descr, mut by_column, mut shape) = (None, None, None);
        while !rest.is_empty() {
            let (key, value) = rest.split_once(':').with_context(wrong)?;
            let value = value.trim_start();
            let after = match key.trim() {
                "'descr'" => {
                    let quoted = value.strip_prefix('\'').and_then(|rest| rest.split_once('\''));
                    let (found, after) =
                        quoted.context("its elements have fields, which no tensor has")?;
                    descr = Some(found);
                    after
                }
                "'fortran_order'" => {
                    let found =
                        ["False", "True"].into_iter().position(|word| value.starts_with(word));
                    let found = found.with_context(wrong)?;
                    by_column = Some(found == 1);
                    &value[["False", "True"][found].len()..]
                }
                "'shape'" => {
                    let list = value.strip_prefix('(').and_then(|rest| rest.split_once(')'));
                    let (list, after) = list.with_context(wrong)?;
                    let sizes = list.split(',').map(str::trim).filter(|size| !size.is_empty());
                    let sizes = sizes.map(str::parse).collect::<Result<Vec<usize>, _>>();
                    shape = Some(sizes.with_context(wrong)?);
                    after
                }
                _ => bail!(wrong()),
            };
            rest = after.trim_start().trim_start_matches(',').trim_start();
        }
        let (kind, big_endian) = kind(descr.with_context(wrong)?)?;
        let by_column = by_column.with_context(wrong)?;
        Ok(Header { kind, big_endian, by_column, shape: shape.with_context(wrong)? })
    }
}

/// Returns the type that a name of NumPy's such as `<f4` stands for, and whether its bytes are in big-endian order.
fn kind(descr: &str) -> Result<(Kind, bool)> {
    let (order, name) = descr.split_at_checked(1).unwrap_or_default();
    let kind = match name {
        "b1" => Kind::Of(Dtype::BOOL),
        "u1" => Kind::Of(Dtype::U8),
        "u2" => Kind::Of(Dtype::U16),
        "u4" => Kind::Of(Dtype::U32),
        "u8" => Kind::Of(Dtype::U64),
        "i1" => Kind::Of(Dtype::I8),
        "i2" => Kind::Of(Dtype::I16),
        "i4" => Kind::Of(Dtype::I32),
        "i8" => Kind::Of(Dtype::I64),
        "f2" => Kind::Of(Dtype::F16),
        "f4" => Kind::Of(Dtype::F32),
        "f8" => Kind::Of(Dtype::F64),
        "c8" => Kind::Of(Dtype::C64),
        "c16" => Kind::Complex128,
        "O" => bail!("its elements are objects of Python's, which would have to be unpickled"),
        _ => bail!("no tensor has elements of NumPy's dtype {descr:?}"),
    };
    match order {
        "<" | "|" => Ok((kind, false)),
        ">" => Ok((kind, true)),
        _ => bail!("no tensor has elements of NumPy's dtype {descr:?}"),
    }
}

//! The files of tensors that are not safetensors files: PyTorch's state dicts, NumPy's arrays, and checkpoints in
//! several files.
//!
//! Each is read as plain data: nothing is unpickled. What lies in the file row by row stays there, and is compared
//! without being copied.

mod numpy;
mod pickle;
mod rows;
mod sharded;
mod state_dict;
mod values;

use std::ops::Range;

use anyhow::{Context, Result, bail};
use safetensors::tensor::Dtype;

use super::bytes::Bytes;
use super::{Archive, Content, Entry, Trace};
use rows::Rows;
pub(super) use sharded::{in_folder, index, load_shards};

/// The file itself, as a place in `Trace::bytes`.
pub(super) const FILE: usize = 0;

/// The most bytes of all tensors of a file together, tied ones left out: so many times those of the file, or so many.
/// A tensor that is expanded has more elements than its storage.
const MAX_GROWTH: usize = 16;
const MAX_SMALL: usize = 1 << 20;

/// Reads a file that is none of safetensors, or returns `None` if it is of no kind that is known here.
pub(super) fn read(bytes: &Bytes) -> Option<Result<Trace>> {
    let bytes = bytes.as_slice();
    if bytes.starts_with(numpy::MAGIC) {
        return Some(numpy::read_npy(bytes));
    }
    if !bytes.starts_with(b"PK\x03\x04") {
        return None;
    }
    let archive = match Archive::open(bytes).context("a damaged zip archive") {
        Ok(archive) => archive,
        Err(err) => return Some(Err(err)),
    };
    if archive.names().any(|name| name.ends_with("/data.pkl")) {
        return Some(state_dict::read(archive).context("a PyTorch checkpoint (.pt)"));
    }
    if archive.names().any(|name| name.ends_with(".npy")) {
        return Some(numpy::read_npz(bytes, &archive).context("NumPy arrays (.npz)"));
    }
    None
}

/// The type of an element of PyTorch's or NumPy's.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Of(Dtype),
    /// complex128, which safetensors lacks. It becomes two tensors of float64, as a recorder writes it.
    Complex128,
}

impl Kind {
    fn size(self) -> usize {
        match self {
            Kind::Of(dtype) => dtype.bitsize() / 8,
            Kind::Complex128 => 16,
        }
    }

    /// Returns the size of the numbers that an element consists of, whose bytes have an order.
    fn size_of_number(self) -> usize {
        match self {
            Kind::Of(Dtype::C64) => 4,
            Kind::Complex128 => 8,
            kind => kind.size(),
        }
    }
}

/// A trace whose tensors are added from the parts of a file.
struct Building {
    trace: Trace,
    /// How many bytes all tensors may have.
    most: usize,
}

/// Bytes that hold elements.
#[derive(Clone, Copy)]
struct Source<'a> {
    /// All bytes of a place in `Trace::bytes`.
    bytes: &'a [u8],
    place: usize,
    /// The elements are in this part of it.
    start: usize,
    end: usize,
    big_endian: bool,
}

impl Building {
    /// Begins a trace of a file of that length. Nothing but the file is in it, at the place [`FILE`].
    fn new(length: usize) -> Building {
        let mut trace = Trace::new();
        trace.bytes.push(Bytes::default());
        Building { trace, most: length.saturating_mul(MAX_GROWTH).max(MAX_SMALL) }
    }

    /// Adds a tensor, given where its elements lie in `source`.
    fn add(&mut self, name: String, kind: Kind, rows: &Rows, source: Source) -> Result<()> {
        let size = kind.size();
        let part = &source.bytes[source.start..source.end];
        rows.check(part.len() / size)?;
        let bytes = rows.numel.checked_mul(size).filter(|bytes| *bytes <= self.most);
        let bytes = bytes.context("its tensors are far larger together than the file")?;
        self.most -= bytes;
        let shape = rows.shape.clone();
        let swaps = source.big_endian && kind.size_of_number() > 1;
        let strides = Some(rows.strides.clone());
        let Kind::Of(dtype) = kind else {
            let mut whole = rows.gathered(part, size)?;
            if swaps {
                swap(&mut whole, kind.size_of_number());
            }
            for (at, part) in ["real", "imag"].into_iter().enumerate() {
                let numbers = whole.chunks(8).skip(at).step_by(2).flatten().copied().collect();
                let place = self.place(numbers);
                let name = format!("{name}[{part}]");
                self.insert(name, Dtype::F64, shape.clone(), None, (place, 0..bytes / 2))?;
            }
            return Ok(());
        };
        if rows.is_contiguous() && !swaps {
            let start = source.start + rows.offset * size;
            return self.insert(name, dtype, shape, strides, (source.place, start..start + bytes));
        }
        let mut gathered = rows.gathered(part, size)?;
        if swaps {
            swap(&mut gathered, kind.size_of_number());
        }
        let place = self.place(gathered);
        self.insert(name, dtype, shape, strides, (place, 0..bytes))
    }

    /// Adds a tensor that is the same as one before it.
    fn tie(&mut self, name: String, first: &str) -> Result<()> {
        let entry = self.trace.tensors.get(first);
        let entry = entry.with_context(|| format!("no tensor is named {first}"))?;
        let Content::Values(place, range) = &entry.content else { bail!("{first} is a digest") };
        let (dtype, shape, strides) = (entry.dtype, entry.shape.clone(), entry.strides.clone());
        let range = (*place, range.clone());
        self.insert(name.clone(), dtype, shape, strides, range)?;
        self.trace.tied.insert(name, first.to_owned());
        Ok(())
    }

    /// Keeps bytes that the file does not hold as they are, and returns their place.
    fn place(&mut self, bytes: Vec<u8>) -> usize {
        self.trace.bytes.push(Bytes::Owned(bytes));
        self.trace.bytes.len() - 1
    }

    fn insert(
        &mut self,
        name: String,
        dtype: Dtype,
        shape: Vec<usize>,
        strides: Option<Vec<usize>>,
        (place, range): (usize, Range<usize>),
    ) -> Result<()> {
        self.trace.ensure_new(&name)?;
        let mut entry = Entry::of_values(dtype, shape, place, range);
        if let Some(strides) = strides {
            entry.note_strides(strides);
        }
        self.trace.tensors.insert(name, entry);
        Ok(())
    }
}

/// Reverses the bytes of every number.
fn swap(bytes: &mut [u8], size: usize) {
    bytes.chunks_mut(size).for_each(<[u8]>::reverse);
}

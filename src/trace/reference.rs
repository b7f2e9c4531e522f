//! The tensors of another run, of which a trace need not hold the bytes again where they are the same.
//!
//! A replay that agrees with its case computes all that the case's file holds. A copy of it would take as much memory as
//! the file, and more time than to look whether it is the same.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::{Context, Result};
use safetensors::tensor::Dtype;

use super::bytes::Bytes;
use super::{Content, Entry, Trace};

/// The tensors of another run by their names. Their files are the first of a trace's bytes.
pub(super) type Reference = HashMap<String, Known>;

/// A tensor of another run.
#[derive(Debug)]
pub(super) struct Known {
    dtype: Dtype,
    shape: Vec<usize>,
    /// The place in `Trace::bytes`, and the range there.
    place: usize,
    range: Range<usize>,
}

impl Trace {
    /// Creates an empty trace of a run that may be the same as `other`. A tensor that is appended is not copied if
    /// `other` has the same values under the same name, in a file that is mapped into memory.
    pub fn beside(other: &Trace) -> Trace {
        let (mut bytes, mut places) = (Vec::new(), HashMap::new());
        for (place, file) in other.bytes.iter().enumerate() {
            if let Bytes::Mapped(map) = file {
                places.insert(place, bytes.len());
                bytes.push(Bytes::Mapped(map.clone()));
            }
        }
        let known = other.tensors.iter().filter_map(|(name, entry)| {
            let Content::Values(place, range) = &entry.content else { return None };
            let (dtype, shape) = (entry.dtype, entry.shape.clone());
            let (place, range) = (*places.get(place)?, range.clone());
            Some((name.clone(), Known { dtype, shape, place, range }))
        });
        Trace { reference: known.collect(), bytes, ..Trace::new() }
    }

    /// Returns the bytes that the other run has of a tensor of this name, dtype and shape.
    pub(crate) fn of_reference(&self, name: &str, dtype: Dtype, shape: &[usize]) -> Option<&[u8]> {
        let known = self.reference.get(name)?;
        let fits = known.dtype == dtype && known.shape == shape;
        fits.then(|| &self.bytes[known.place].as_slice()[known.range.clone()])
    }

    /// Appends the tensor that the other run has of that name. `strides` are those that this one has.
    ///
    /// # Errors
    /// Returns an error if the other run has none, or if the trace already has a tensor of that name.
    pub(crate) fn append_reference(
        &mut self,
        name: String,
        strides: Option<Vec<usize>>,
    ) -> Result<()> {
        self.ensure_new(&name)?;
        let known = self.reference.get(&name);
        let known = known.with_context(|| format!("the other run has no tensor named {name}"))?;
        let (shape, range) = (known.shape.clone(), known.range.clone());
        let entry = Entry::of_values(known.dtype, shape, known.place, range);
        self.insert_strided(name, entry, strides);
        Ok(())
    }
}

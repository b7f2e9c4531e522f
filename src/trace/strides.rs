//! The strides that tensors had in memory, which decide the order in which PyTorch sums.
//!
//! A file holds the elements row by row. Its metadata lists the strides of the tensors that had others than a new
//! tensor of their shape.

use anyhow::{Context, Result, ensure};
use indexmap::IndexMap;

use super::{Entry, Trace};

/// The most memory that strides may take: so many times the bytes of the elements, or so many bytes.
const MAX_SPREAD: usize = 16;
const MAX_SPAN: usize = 1 << 20;

/// The strides of the tensors that had others than new ones, in the order of the trace.
pub(super) type Strides = IndexMap<String, Vec<usize>>;

impl Trace {
    /// Returns the strides that a tensor had in memory, counted in elements, as PyTorch does, or `None` if there
    /// is no such tensor or nothing is known of its strides.
    ///
    /// They are known of what a recorder recorded, and not of a file without the metadata of this crate. The
    /// elements in the trace lie row by row, whatever the strides.
    pub fn strides(&self, name: &str) -> Option<Vec<usize>> {
        let entry = self.tensors.get(name).filter(|_| !self.of_unknown_strides)?;
        Some(entry.strides.clone().unwrap_or_else(|| contiguous(&entry.shape)))
    }

    /// Returns the strides of the tensors that had others than new ones, or `None` if there are none.
    pub(super) fn listed_strides(&self) -> Option<Strides> {
        let listed = self.tensors.iter();
        let listed =
            listed.filter_map(|(name, entry)| Some((name.clone(), entry.strides.clone()?)));
        Some(listed.collect::<Strides>()).filter(|listed| !listed.is_empty())
    }

    /// Takes the strides that a file lists.
    ///
    /// # Errors
    /// Returns an error if a tensor is not there, or if it cannot have had these strides.
    pub(super) fn take_strides(&mut self, listed: Strides) -> Result<()> {
        for (name, strides) in listed {
            let entry = self.tensors.get_mut(&name);
            let entry =
                entry.with_context(|| format!("the strides of {name}: there is no such tensor"))?;
            check(entry, &strides).with_context(|| format!("the strides of {name}"))?;
            entry.strides = Some(strides);
        }
        Ok(())
    }
}

impl Entry {
    /// Notes strides that the tensor had in memory. Those that would leave large gaps are left out.
    pub(super) fn note_strides(&mut self, strides: Vec<usize>) {
        // Nearly every tensor has these. An error for each of them would take longer than its copy, since an error
        // notes where it was made.
        if strides != contiguous(&self.shape) {
            self.strides = check(self, &strides).is_ok().then_some(strides);
        }
    }
}

/// Returns the strides of a new tensor of that shape.
fn contiguous(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1usize; shape.len()];
    for dim in (1..shape.len()).rev() {
        strides[dim - 1] = strides[dim].saturating_mul(shape[dim].max(1));
    }
    strides
}

/// Checks that a tensor can have had these strides, and that a new one of its shape would have others.
fn check(entry: &Entry, strides: &[usize]) -> Result<()> {
    let (shape, bits) = (&entry.shape, entry.dtype.bitsize());
    let count = strides.len();
    ensure!(count == shape.len(), "{count} are listed, and it has {} dimensions", shape.len());
    ensure!(entry.size() > 0, "they are listed, and it has no elements");
    ensure!(strides != contiguous(shape), "they are listed, and are those of a new tensor");
    // libtorch counts bytes in signed numbers, also where a dimension has one element.
    let fits = |elements: usize| isize::try_from(elements.checked_mul(bits)?).ok();
    let span = span(shape, strides).filter(|_| strides.iter().all(|&n| fits(n).is_some()));
    let bytes = span.and_then(fits).with_context(|| format!("{strides:?} are too large"))?;
    let (bytes, most) = (bytes as usize / 8, entry.size().saturating_mul(MAX_SPREAD));
    let most = most.max(MAX_SPAN);
    ensure!(bytes <= most, "{strides:?} span {bytes} bytes, and {most} are the most for its size");
    Ok(())
}

/// Returns how many elements there are from the first to the last in memory.
fn span(shape: &[usize], strides: &[usize]) -> Option<usize> {
    shape.iter().zip(strides).try_fold(1usize, |span, (&n, &stride)| {
        span.checked_add(n.saturating_sub(1).checked_mul(stride)?)
    })
}

//! Where the elements of a tensor lie, and how they become rows.

use anyhow::{Context, Result, ensure};

/// The most dimensions of a tensor that PyTorch and NumPy can index.
const MAX_DIM: usize = 64;

/// The place of a tensor's elements, counted in elements.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rows {
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
    pub(super) numel: usize,
}

impl Rows {
    /// Creates the place of a tensor.
    ///
    /// # Errors
    /// Returns an error if the number of elements overflows, or if there are too many dimensions or strides.
    pub(super) fn new(offset: usize, shape: Vec<usize>, strides: Vec<usize>) -> Result<Rows> {
        ensure!(
            shape.len() <= MAX_DIM,
            "it has {} dimensions, and {MAX_DIM} are the most",
            shape.len()
        );
        ensure!(shape.len() == strides.len(), "it has a stride too few or too many");
        let numel = match shape.contains(&0) {
            true => Some(0),
            false => shape.iter().try_fold(1usize, |numel, &n| numel.checked_mul(n)),
        };
        let numel = numel.with_context(|| format!("its sizes are out of range: {shape:?}"))?;
        Ok(Rows { offset, shape, strides, numel })
    }

    /// Creates the place of a tensor whose elements lie row by row or, if `by_column`, column by column, as Fortran
    /// has them.
    ///
    /// # Errors
    /// Returns the errors of [`new`](Self::new).
    pub(super) fn packed(shape: Vec<usize>, by_column: bool) -> Result<Rows> {
        let mut strides = vec![1usize; shape.len()];
        let mut next = 1usize;
        let last = shape.len();
        for dim in 0..last {
            let dim = if by_column { dim } else { last - 1 - dim };
            strides[dim] = next;
            next = next.saturating_mul(shape[dim].max(1));
        }
        Rows::new(0, shape, strides)
    }

    /// Checks that there are as many elements as are asked for.
    pub(super) fn check(&self, there: usize) -> Result<()> {
        let last =
            self.shape.iter().zip(&self.strides).try_fold(self.offset, |last, (&n, &stride)| {
                last.checked_add(n.saturating_sub(1).checked_mul(stride)?)
            });
        let fits = self.numel == 0 && self.offset <= there || last.is_some_and(|last| last < there);
        ensure!(fits, "it needs elements beyond the {there} that its storage has");
        Ok(())
    }

    pub(super) fn is_contiguous(&self) -> bool {
        let mut next = 1;
        self.numel == 0
            || self.shape.iter().zip(&self.strides).rev().all(|(&n, &stride)| {
                let fits = n == 1 || stride == next;
                next *= n;
                fits
            })
    }

    /// Copies the elements, which have been [checked](Self::check), row by row.
    ///
    /// # Errors
    /// Returns an error if there is not enough memory.
    pub(super) fn gathered(&self, bytes: &[u8], size: usize) -> Result<Vec<u8>> {
        let mut rows = Vec::new();
        rows.try_reserve_exact(self.numel * size).context("there is not enough memory")?;
        // A tensor without dimensions is a row of one element.
        let (row, outer) = match self.shape.split_last() {
            Some((&n, outer)) => ((n, self.strides[outer.len()]), outer),
            None => ((1, 1), &[][..]),
        };
        let mut index = vec![0; outer.len()];
        let mut at = self.offset;
        for _ in 0..self.numel.checked_div(row.0).unwrap_or(0) {
            match row {
                (n, 1) => rows.extend_from_slice(&bytes[at * size..][..n * size]),
                (n, stride) => (0..n).for_each(|column| {
                    rows.extend_from_slice(&bytes[(at + column * stride) * size..][..size]);
                }),
            }
            for dim in (0..outer.len()).rev() {
                index[dim] += 1;
                at += self.strides[dim];
                if index[dim] < outer[dim] {
                    break;
                }
                at -= index[dim] * self.strides[dim];
                index[dim] = 0;
            }
        }
        Ok(rows)
    }
}

//! A sparse gradient with each index once, and the elements of dense tensors at its indices.

use tch::{TchError, Tensor};

pub(super) struct Sparse {
    grad: Tensor,
    indices: Tensor,
    pub(super) values: Tensor,
}

impl Sparse {
    /// Adds up the values of each index: what follows is not linear in them.
    pub(super) fn new(grad: &Tensor) -> Result<Sparse, TchError> {
        let grad = grad.f_coalesce()?;
        let (indices, values) = (grad.f_internal_indices()?, grad.f_internal_values()?);
        Ok(Sparse { grad, indices, values })
    }

    /// Returns a sparse tensor with other values at the same indices.
    pub(super) fn with(&self, values: &Tensor) -> Result<Tensor, TchError> {
        let options = (values.f_kind()?, values.device());
        let size = self.grad.size();
        Tensor::f_sparse_coo_tensor_indices_size(&self.indices, values, size, options, false)
    }

    /// Returns the elements of a dense tensor at these indices.
    pub(super) fn of(&self, dense: &Tensor) -> Result<Tensor, TchError> {
        dense.f_sparse_mask(&self.grad)?.f_internal_values()
    }
}

//! The gradient of a value that a module returned, also where a later operation overwrites it in place.

use anyhow::Result;
use tch::Tensor;

use super::RetainGrad;
use super::shim::keep_gradient;

/// What a module returned, on its way to its gradient.
#[derive(Debug)]
pub(crate) struct Output {
    tensor: Tensor,
    version: i64,
    is_view: bool,
    /// The tensor whose grad is the gradient: that of a leaf is in its own.
    keeper: Tensor,
}

/// The gradient of a value that a module returned.
pub(crate) enum Gradient {
    /// The gradient.
    Known(Tensor),
    /// There is none, since the loss does not depend on the value, or backward was never run.
    Absent,
    /// The value was a view of another tensor, and was overwritten. Autograd then computes the gradient of the
    /// tensor that it was a view of.
    Overwritten,
}

impl Output {
    /// Retains the gradient of a tensor that requires one, and keeps that of the value that it has now.
    pub(crate) fn new(tensor: &Tensor) -> Result<Output> {
        tensor.retain_grad()?;
        let version = tensor.f_internal_version()?;
        let (keeper, is_view) = match tensor.f_is_leaf()? {
            true => (tensor.shallow_clone(), false),
            false => keep_gradient(tensor)?,
        };
        Ok(Output { tensor: tensor.shallow_clone(), version, is_view, keeper })
    }

    /// Returns the gradient of the value that the module returned.
    pub(crate) fn gradient(&self) -> Result<Gradient> {
        // Autograd gives a view another node once it or what it is a view of was overwritten, and the first node
        // then has a part of the gradient, or nothing.
        if self.is_view && self.tensor.f_internal_version()? != self.version {
            return Ok(Gradient::Overwritten);
        }
        let gradient = self.keeper.f_grad()?;
        Ok(if gradient.defined() { Gradient::Known(gradient) } else { Gradient::Absent })
    }
}

//! Clipping of gradients: `torch.nn.utils.clip_grad_norm_` and its like, from
//! [clip_grad.py](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/nn/utils/clip_grad.py).

use std::borrow::Borrow;

use anyhow::{Result, ensure};
use tch::{Device, Kind, Tensor, no_grad};

use super::optimizer::FLOATS;
use crate::repr::repr_float;
use crate::torch::{Scaled, ensure_dense};

/// The most dimensions that libtorch reduces.
const MAX_DIMS: usize = 64;

/// Checks that libtorch can take the norm of a tensor: tch panics over an operation with a number that fails.
fn ensure_has_norm(tensor: &Tensor) -> Result<()> {
    ensure_dense(tensor)?;
    let kind = tensor.f_kind()?;
    ensure!(FLOATS.contains(&kind), "the norm of a tensor of {kind:?} is not defined");
    ensure!(tensor.dim() <= MAX_DIMS, "a tensor of more than {MAX_DIMS} dimensions has no norm");
    Ok(())
}

fn gradients<T: Borrow<Tensor>>(parameters: &[T]) -> Result<Vec<Tensor>> {
    let gradients = parameters.iter().map(|p| p.borrow().f_grad()).collect::<Result<Vec<_>, _>>();
    Ok(gradients?.into_iter().filter(Tensor::defined).collect())
}

/// Scales the gradients of the parameters so that their norm is at most `max_norm`, and returns their norm before that.
/// `norm_type` is 2 for the Euclidean norm, and may be infinite. Parameters without a gradient are skipped.
///
/// The order of the parameters decides the last bits of the norm: take that of `model.parameters()` in Python, as
/// [`Case::named_parameters`](crate::Case::named_parameters) does.
///
/// # Errors
/// Returns an error if a gradient is not a dense tensor of floats, and libtorch's errors.
pub fn clip_grad_norm_<T: Borrow<Tensor>>(
    parameters: &[T],
    max_norm: f64,
    norm_type: f64,
) -> Result<f64> {
    let total_norm = get_total_norm(&gradients(parameters)?, norm_type, false)?;
    clip_grads_with_norm_(parameters, max_norm, &total_norm)?;
    Ok(total_norm.f_double_value(&[])?)
}

/// Returns the norm of the norms of the tensors.
///
/// # Errors
/// Returns an error if `error_if_nonfinite` and the norm is infinite or NaN, and libtorch's errors.
pub fn get_total_norm<T: Borrow<Tensor>>(
    tensors: &[T],
    norm_type: f64,
    error_if_nonfinite: bool,
) -> Result<Tensor> {
    tensors.iter().try_for_each(|tensor| ensure_has_norm(tensor.borrow()))?;
    let Some(first) = tensors.first() else {
        return Ok(Tensor::f_zeros([0i64; 0], (Kind::Float, Device::Cpu))?);
    };
    let empty = tensors.iter().any(|tensor| tensor.borrow().numel() == 0);
    ensure!(
        !empty || (norm_type.is_finite() && norm_type >= 0.),
        "the norm of order {} of a tensor without elements is not defined",
        repr_float(norm_type)
    );
    let device = first.borrow().device();
    no_grad(|| {
        let norm = |tensor: &Tensor| {
            let dims = (0..tensor.dim() as i64).collect::<Vec<_>>();
            tensor.f_norm_scalaropt_dim(norm_type, dims, false)
        };
        let norms = tensors.iter().map(|tensor| norm(tensor.borrow())?.f_to_device(device));
        let total = norm(&Tensor::f_stack(&norms.collect::<Result<Vec<_>, _>>()?, 0)?)?;
        ensure!(
            !error_if_nonfinite || total.f_double_value(&[])?.is_finite(),
            "The total norm of order {} for gradients from `parameters` is non-finite, so it cannot be clipped. To \
             disable this error and scale the gradients by the non-finite norm anyway, set `error_if_nonfinite=False`",
            repr_float(norm_type)
        );
        Ok(total)
    })
}

/// Multiplies the gradients of the parameters by `max_norm / (total_norm + 1e-6)`, or by 1 if that is more.
///
/// # Errors
/// Returns an error if a gradient is not a dense tensor of floats, and libtorch's errors.
pub fn clip_grads_with_norm_<T: Borrow<Tensor>>(
    parameters: &[T],
    max_norm: f64,
    total_norm: &Tensor,
) -> Result<()> {
    ensure_has_norm(total_norm)?;
    no_grad(|| {
        let mut factor = total_norm.f_add_scalar(1e-6)?.f_reciprocal_()?;
        let factor = factor.scale_(max_norm)?.f_clamp_max(1.)?;
        for mut gradient in gradients(parameters)? {
            let _ = gradient.f_mul_(&factor.f_to_device(gradient.device())?)?;
        }
        Ok(())
    })
}

/// Limits each element of the gradients of the parameters to `[-clip_value, clip_value]`.
///
/// # Errors
/// Returns an error if a gradient is not a dense tensor of floats, and libtorch's errors.
pub fn clip_grad_value_<T: Borrow<Tensor>>(parameters: &[T], clip_value: f64) -> Result<()> {
    no_grad(|| {
        for mut gradient in gradients(parameters)? {
            ensure_has_norm(&gradient)?;
            let _ = gradient.f_clamp_min_(-clip_value)?.f_clamp_max_(clip_value)?;
        }
        Ok(())
    })
}

//! The elements of float tensors as numbers.

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};

/// Lists the elements of a float tensor in row-major order. Of another dtype there are none.
pub(super) fn elements<'a>(view: &TensorView<'a>) -> Box<dyn Iterator<Item = f64> + 'a> {
    let bytes: &'a [u8] = view.data();
    match view.dtype() {
        Dtype::F16 => Box::new(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).into())),
        Dtype::BF16 => Box::new(bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).into())),
        Dtype::F32 => Box::new(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b).into())),
        Dtype::F64 => Box::new(bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b))),
        _ => Box::new(std::iter::empty()),
    }
}

/// Returns the greatest finite magnitude of the elements, or 0 if there is none.
pub(super) fn max_magnitude(view: &TensorView) -> f64 {
    elements(view).map(f64::abs).filter(|x| x.is_finite()).fold(0., f64::max)
}

/// Adds up the magnitudes of the elements of each channel, and returns the largest sum.
///
/// The channels lie along dimension 1 if it has `channels` elements and is not the last, as those of images do;
/// else along the last one, as features do.
pub(super) fn max_channel_sum(view: &TensorView, channels: usize) -> f64 {
    let shape = view.shape();
    let dimension = match shape {
        [_, second, _, ..] if *second == channels => 1,
        _ => shape.len().saturating_sub(1),
    };
    let Some(&count) = shape.get(dimension).filter(|count| **count > 0) else {
        return max_magnitude(view);
    };
    let inner = shape[dimension + 1..].iter().product::<usize>().max(1);
    let mut sums = vec![0.; count.min(view.data().len())];
    for (at, value) in elements(view).enumerate() {
        if value.is_finite() {
            sums[at / inner % count] += value.abs();
        }
    }
    sums.into_iter().fold(0., f64::max)
}

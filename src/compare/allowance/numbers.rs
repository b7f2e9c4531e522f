//! How large the elements of float tensors are.

use safetensors::tensor::TensorView;

use crate::trace::floats;

/// Returns the greatest finite magnitude of the elements, or 0 if there is none.
pub(super) fn max_magnitude(view: &TensorView) -> f64 {
    floats(view).map(f64::abs).filter(|x| x.is_finite()).fold(0., f64::max)
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
    for (at, value) in floats(view).enumerate() {
        if value.is_finite() {
            sums[at / inner % count] += value.abs();
        }
    }
    sums.into_iter().fold(0., f64::max)
}

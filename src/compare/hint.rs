//! The hint that a tensor that differs only has its dimensions in another order.

use safetensors::tensor::TensorView;

use super::criterion::Criterion;
use super::statistics::statistics;
use super::verdict::{Verdict, verdict};

/// The largest number of elements for which permutations are tried.
const MAX_NUMEL: usize = 1 << 22;

/// Returns, in words, the first permutation of the actual tensor's dimensions that brings it near the expected
/// tensor.
pub(super) fn hint(
    actual: &TensorView,
    expected: &TensorView,
    criterion: Criterion,
) -> Option<String> {
    let tolerance = criterion.tolerance(expected.dtype());
    if actual.dtype() != expected.dtype() {
        return None;
    }
    permutations(actual, expected.shape()).find_map(|(dims, bytes)| {
        let view = TensorView::new(actual.dtype(), expected.shape().to_vec(), &bytes).ok()?;
        let near = match verdict(&statistics(&view, expected, tolerance), tolerance) {
            Verdict::Bitwise => "bitwise the same",
            Verdict::Ulp(_) | Verdict::Close => "close",
            Verdict::Differs => return None,
        };
        Some(match dims[..] {
            [1, 0] => format!("its transpose is {near}"),
            _ => format!("with its dimensions permuted by {dims:?} it is {near}"),
        })
    })
}

/// Lists every permutation of `from`'s dimensions, except the identity, that results in the shape `to`, each with
/// the bytes that `from.permute(dims).contiguous()` has in PyTorch.
///
/// The list is empty unless there are 2 to 4 dimensions, no more than [`MAX_NUMEL`] elements, and whole bytes
/// for each element.
fn permutations<'a>(
    from: &'a TensorView<'a>,
    to: &'a [usize],
) -> impl Iterator<Item = (Vec<usize>, Vec<u8>)> + 'a {
    let rank = from.shape().len();
    let numel = to.iter().product::<usize>();
    let small = (2..=4).contains(&rank) && rank == to.len() && (1..=MAX_NUMEL).contains(&numel);
    let orders = if small && from.dtype().bitsize() % 8 == 0 { orders(rank) } else { Vec::new() };
    orders
        .into_iter()
        .filter(move |dims| dims.iter().zip(to).all(|(&dim, &n)| from.shape()[dim] == n))
        .map(move |dims| {
            let bytes = permuted(from, &dims);
            (dims, bytes)
        })
}

/// Lists every permutation of `0..rank` except the identity.
fn orders(rank: usize) -> Vec<Vec<usize>> {
    let mut orders = vec![Vec::new()];
    for _ in 0..rank {
        let longer = |order: Vec<usize>| {
            let rest = (0..rank).filter(|dim| !order.contains(dim)).collect::<Vec<_>>();
            rest.into_iter().map(move |dim| [&order[..], &[dim]].concat())
        };
        orders = orders.into_iter().flat_map(longer).collect();
    }
    orders.retain(|order| !order.is_sorted());
    orders
}

fn permuted(from: &TensorView, dims: &[usize]) -> Vec<u8> {
    let size = from.dtype().bitsize() / 8;
    let shape = from.shape();
    let stride = |dim: usize| shape[dim + 1..].iter().product::<usize>();
    let axes = dims.iter().map(|&dim| (shape[dim], stride(dim))).collect::<Vec<_>>();
    let mut bytes = Vec::with_capacity(from.data().len());
    for flat in 0..shape.iter().product() {
        let mut rest = flat;
        let mut at = 0;
        for (n, stride) in axes.iter().rev() {
            at += rest % n * stride;
            rest /= n;
        }
        bytes.extend_from_slice(&from.data()[at * size..][..size]);
    }
    bytes
}

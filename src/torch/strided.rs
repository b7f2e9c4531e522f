//! Tensors with the strides that they had when they were recorded.
//!
//! The strides decide the order in which PyTorch sums, and with it the bits of what is computed from a tensor.

use std::collections::HashSet;

use anyhow::{Context, Error, Result, ensure};
use tch::{Device, Kind, Tensor};

use super::tensors::{kind_of, reach};
use crate::trace::Trace;

impl Trace {
    /// Returns the tensor of that name, on the CPU, with the strides that it had.
    ///
    /// # Errors
    /// There is no tensor of that name, tch has no tensors of its dtype, or the strides put several values in one
    /// place; the message names it.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        self.tensor_on(name, Device::Cpu)
    }

    /// Returns the tensor of that name on a device, with the strides that it had.
    pub(crate) fn tensor_on(&self, name: &str, device: Device) -> Result<Tensor> {
        let view = self.values(name)?;
        let strides = self.strides(name).unwrap_or_default();
        let tensor = kind_of(view.dtype()).and_then(|kind| {
            let (shape, strides) = (signed(view.shape())?, signed(&strides)?);
            let rows = Tensor::f_from_data_size(view.data(), &shape, kind)?;
            if rows.numel() == 0 || strides.is_empty() || strides == rows.stride() {
                return Ok(rows.f_to_device(device)?);
            }
            strided(view.data(), &shape, &strides, (kind, device))
        });
        tensor.with_context(|| name.to_owned())
    }
}

/// Makes a tensor of its own, and no view, whose memory is filled element by element.
fn strided(data: &[u8], shape: &[i64], strides: &[i64], of: (Kind, Device)) -> Result<Tensor> {
    let tensor = Tensor::f_empty_strided(shape, strides, of)?;
    let span = reach(shape, strides).context("its strides are too large")?;
    let memory = laid_out(data, of.0.elt_size_in_bytes(), shape, strides, span as usize)?;
    let memory = Tensor::f_from_data_size(&memory, &[span], of.0)?;
    tensor.f_as_strided([span], [1], 0)?.f_copy_(&memory)?;
    Ok(tensor)
}

/// Returns the elements of a storage, as many as are whole.
///
/// # Errors
/// Returns libtorch's errors.
pub(crate) fn memory(storage: &[u8], kind: Kind) -> Result<Tensor> {
    let size = kind.elt_size_in_bytes();
    let all = storage.len() / size;
    Ok(Tensor::f_from_data_size(&storage[..all * size], &[i64::try_from(all)?], kind)?)
}

/// Returns a part of the memory that a tensor of one dimension has, which it shares.
///
/// # Errors
/// Returns an error if the sizes, the strides and the offset, in elements, reach beyond the memory.
pub(crate) fn within(
    memory: &Tensor,
    shape: &[i64],
    strides: &[i64],
    offset: i64,
) -> Result<Tensor> {
    let kind = memory.f_kind()?;
    ensure!(
        shape.len() == strides.len(),
        "its shape is {shape:?}, and its strides are {strides:?}"
    );
    let negative = |numbers: &[i64]| numbers.iter().any(|number| *number < 0);
    ensure!(!negative(shape) && !negative(strides) && offset >= 0, "a negative size or stride");
    if shape.contains(&0) {
        return Ok(Tensor::f_empty_strided(shape, strides, (kind, Device::Cpu))?);
    }
    let end = reach(shape, strides).and_then(|reach| reach.checked_add(offset));
    let (end, all) = (end.unwrap_or(i64::MAX), memory.size()[0]);
    ensure!(end <= all, "it takes {end} elements of its storage, which has {all}");
    Ok(memory.f_as_strided(shape, strides, offset)?)
}

/// Returns the memory of a tensor, given its elements row by row: every element in its place, and zeros between
/// them. A stride of zero, and windows that overlap, put several elements in one place, which have to be the same.
fn laid_out(
    data: &[u8],
    size: usize,
    shape: &[i64],
    strides: &[i64],
    span: usize,
) -> Result<Vec<u8>> {
    let (mut memory, mut written) = (Vec::new(), Vec::new());
    memory.try_reserve_exact(span * size)?;
    memory.resize(span * size, 0);
    written.try_reserve_exact(span)?;
    written.resize(span, false);
    let (mut index, mut at) = (vec![0; shape.len()], 0);
    for element in data.chunks_exact(size) {
        let place = &mut memory[at * size..][..size];
        let first = !std::mem::replace(&mut written[at], true);
        ensure!(first || place == element, "strides {strides:?} put several values in one place");
        place.copy_from_slice(element);
        for dim in (0..shape.len()).rev() {
            index[dim] += 1;
            at += strides[dim] as usize;
            if index[dim] < shape[dim] {
                break;
            }
            at -= (strides[dim] * shape[dim]) as usize;
            index[dim] = 0;
        }
    }
    Ok(memory)
}

/// Returns whether no two elements of a tensor are one place in memory, as far as its strides tell it.
pub(crate) fn is_apart(tensor: &Tensor) -> bool {
    let (sizes, strides) = (tensor.size(), tensor.stride());
    let mut dims = sizes.into_iter().zip(strides).filter(|(n, _)| *n > 1).collect::<Vec<_>>();
    dims.sort_by_key(|(_, stride)| *stride);
    let mut places = 1i64;
    tensor.numel() == 0
        || dims.into_iter().all(|(n, stride)| {
            let apart = stride >= places;
            places = places.saturating_add((n - 1).saturating_mul(stride));
            apart
        })
}

/// Returns whether two dense tensors have an element in one place of memory. Those of one dtype are compared place by
/// place, since slices of one tensor can lie between one another.
pub(crate) fn share_memory(a: &Tensor, b: &Tensor) -> Result<bool> {
    if a.f_kind()? != b.f_kind()? {
        return Ok(true);
    }
    let size = a.f_kind()?.elt_size_in_bytes();
    let places = |tensor: &Tensor| {
        let mut places = vec![tensor.data_ptr() as usize];
        for (n, stride) in tensor.size().into_iter().zip(tensor.stride()) {
            let step = stride as usize * size;
            places =
                places.iter().flat_map(|at| (0..n as usize).map(move |i| at + i * step)).collect();
        }
        places
    };
    let of_a = places(a).into_iter().collect::<HashSet<_>>();
    Ok(places(b).iter().any(|place| of_a.contains(place)))
}

/// Returns whether a variable is set by copying into it: it has the strides of the value, or it is a slice of a
/// larger tensor, which it would no longer be with memory of its own.
pub(crate) fn is_copied_into(variable: &Tensor, value: &Tensor) -> bool {
    let (size, stride) = (variable.size(), variable.stride());
    let is_slice = reach(&size, &stride).is_none_or(|reach| reach > variable.numel() as i64);
    stride == value.stride() || is_slice
}

/// Sets a variable to a value. Where it has other strides, each of its handles is given the value's memory.
pub(crate) fn set(variable: &Tensor, value: &Tensor) -> Result<()> {
    let mut variable = variable.shallow_clone();
    match is_copied_into(&variable, value) {
        true => variable.f_copy_(value).map(drop)?,
        false => variable.f_set_data(value)?,
    }
    Ok(())
}

fn signed(sizes: &[usize]) -> Result<Vec<i64>> {
    sizes.iter().map(|&n| i64::try_from(n).map_err(Error::from)).collect()
}

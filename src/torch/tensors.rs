//! libtorch's tensors into the plain data of a [`Trace`].

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Range;

use anyhow::{Context, Error, Result, ensure};
use safetensors::tensor::{Dtype, TensorView};
use tch::{Kind, Tensor};

use super::shim::{copy_bytes, ensure_dense, has_bytes};
use crate::trace::{Digest, Trace};

/// The dtypes that a [`Trace`] keeps, as libtorch and as safetensors name them.
const DTYPES: [(Kind, Dtype); 15] = [
    (Kind::Bool, Dtype::BOOL),
    (Kind::Uint8, Dtype::U8),
    (Kind::Int8, Dtype::I8),
    (Kind::Int16, Dtype::I16),
    (Kind::Int, Dtype::I32),
    (Kind::Int64, Dtype::I64),
    (Kind::Half, Dtype::F16),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Float, Dtype::F32),
    (Kind::Double, Dtype::F64),
    (Kind::ComplexFloat, Dtype::C64),
    (Kind::Float8e5m2, Dtype::F8_E5M2),
    (Kind::Float8e4m3fn, Dtype::F8_E4M3),
    (Kind::Float8e5m2fnuz, Dtype::F8_E5M2FNUZ),
    (Kind::Float8e4m3fnuz, Dtype::F8_E4M3FNUZ),
];

impl Trace {
    /// Appends a copy of what `tensor` holds now, from any device, and notes its strides.
    ///
    /// # Errors
    /// A tensor of that name is there already; the tensor has no elements laid out by strides (it is undefined,
    /// nested, sparse, or on the device meta); its dtype is not one that a [`Trace`] keeps: float16, bfloat16,
    /// float32, float64, complex64, floats of 8 bits, bool, uint8 and the signed integers; or it is too large.
    pub fn push(&mut self, name: impl Into<String>, tensor: &Tensor) -> Result<()> {
        let name = name.into();
        let (dtype, shape, bytes) = described(&name, tensor)?;
        let strides = tensor.stride().iter().map(|&n| n as usize).collect();
        if let Some(known) = self.of_reference(&name, dtype, &shape)
            && has_bytes(tensor, known)?
        {
            return self.append_reference(name, Some(strides));
        }
        self.append(name, dtype, shape, Some(strides), |data, start| {
            data.try_reserve(bytes)?;
            data.resize(start + bytes, 0);
            Ok(copy_bytes(tensor, &mut data[start..])?)
        })
    }

    /// Appends the digest of what `tensor` holds now, from any device.
    ///
    /// # Errors
    /// Returns the errors of [`push`](Self::push).
    pub(crate) fn push_digest_of(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        let (dtype, shape, bytes) = described(name, tensor)?;
        let data = bytes_of(tensor, bytes)?;
        self.push_digest(name, Digest::of(&TensorView::new(dtype, shape, &data)?))
    }
}

/// Returns a hash of the bytes of a tensor's elements, row by row, or `None` if it has none that lie by strides.
/// It is the same within one process alone.
pub(crate) fn hash_of(tensor: &Tensor) -> Option<u64> {
    ensure_dense(tensor).ok()?;
    let data = bytes_of(tensor, size_in_bytes(tensor).ok()?).ok()?;
    let mut hasher = DefaultHasher::new();
    data.hash(&mut hasher);
    Some(hasher.finish())
}

/// Returns a copy of the elements of a dense tensor, row by row, which are `size` bytes.
fn bytes_of(tensor: &Tensor, size: usize) -> Result<Vec<u8>> {
    let mut data = Vec::new();
    data.try_reserve_exact(size)?;
    data.resize(size, 0);
    copy_bytes(tensor, &mut data)?;
    Ok(data)
}

/// Returns the dtype, the shape and the number of bytes that a trace would have of a tensor.
fn described(name: &str, tensor: &Tensor) -> Result<(Dtype, Vec<usize>, usize)> {
    let bytes = ensure_dense(tensor).map_err(Error::from).and_then(|()| size_in_bytes(tensor));
    let bytes = bytes.with_context(|| name.to_owned())?;
    let kind = tensor.f_kind().with_context(|| name.to_owned())?;
    let dtype = DTYPES.iter().find(|dtype| dtype.0 == kind);
    let dtype = dtype.with_context(|| format!("{name}: a trace keeps no {kind:?}"))?.1;
    Ok((dtype, tensor.size().iter().map(|&n| n as usize).collect(), bytes))
}

/// Returns libtorch's word for a dtype.
pub(super) fn kind_of(dtype: Dtype) -> Result<Kind> {
    let found = DTYPES.iter().find(|known| known.1 == dtype);
    Ok(found.with_context(|| format!("tch has no dtype {dtype}"))?.0)
}

/// The most bytes of an expanded tensor, of which few are stored: such a tensor can claim any size.
const MAX_EXPANDED: usize = 1 << 30;

/// Returns how many elements there are from the first to the last in memory.
pub(super) fn reach(shape: &[i64], strides: &[i64]) -> Option<i64> {
    shape.iter().zip(strides).try_fold(1i64, |reach, (&n, &stride)| {
        reach.checked_add((n - 1).max(0).checked_mul(stride.max(0))?)
    })
}

/// Returns the addresses of a dense tensor that has elements, from the first byte to the last.
pub(crate) fn span(tensor: &Tensor) -> Result<Range<usize>> {
    let start = tensor.data_ptr() as usize;
    let elements =
        reach(&tensor.size(), &tensor.stride()).and_then(|reach| usize::try_from(reach).ok());
    let bytes =
        elements.and_then(|reach| reach.checked_mul(tensor.f_kind().ok()?.elt_size_in_bytes()));
    let end = bytes.and_then(|bytes| start.checked_add(bytes));
    Ok(start..end.context("a tensor that is larger than memory")?)
}

/// Returns how many bytes the elements of a dense tensor are, one after the other.
pub(super) fn size_in_bytes(tensor: &Tensor) -> Result<usize> {
    let size = tensor.f_kind()?.elt_size_in_bytes();
    let (shape, strides) = (tensor.size(), tensor.stride());
    let product = |sizes: Vec<i64>| {
        let mut sizes = sizes.into_iter();
        sizes.try_fold(size, |bytes, n| bytes.checked_mul(usize::try_from(n).ok()?))
    };
    let reach = reach(&shape, &strides);
    let stored = reach.and_then(|reach| product(vec![reach]));
    let all = product(shape.clone());
    let all = all.with_context(|| format!("a tensor of shape {shape:?} is too large"))?;
    ensure!(
        stored >= Some(all) || all <= MAX_EXPANDED,
        "a tensor whose elements share memory, and would be {all} bytes, is too large: make it contiguous first"
    );
    Ok(all)
}

//! `repr` of a libtorch tensor: its plain data as [`crate::repr`] prints it, with the suffixes that only a
//! tensor has.

use tch::{Device, Kind, TchError, Tensor};

use super::device;
use super::shim::{copy_bytes, ensure_dense, grad_fn_name};
use super::tensors::size_in_bytes;
use crate::repr::{MAX_DIM, PyTorchDtype, Text, is_cut, is_summarized};

/// Returns what Python's `repr(tensor)` returns, such as `tensor([[ 1., -1.]], requires_grad=True)`.
///
/// An undefined tensor (`.grad` before a backward pass) is Python's `None`.
///
/// # Errors
/// The tensor is nested, sparse, on the device meta, of a quantized dtype, of more than 64 dimensions, or too
/// large.
pub fn repr(tensor: &Tensor) -> Result<String, TchError> {
    if !tensor.defined() {
        return Ok("None".to_owned());
    }
    ensure_dense(tensor)?;
    let dtype = dtype(tensor.f_kind()?)?;
    let shape = shape(tensor);
    size_in_bytes(tensor).map_err(|err| TchError::Shape(err.to_string()))?;
    if shape.len() > MAX_DIM {
        return Err(TchError::Kind(format!("cannot print a tensor of {} dimensions", shape.len())));
    }
    let summarize = is_summarized(&shape);
    let shown = shown(tensor, summarize)?;

    let (mut before, mut after) = (Vec::new(), Vec::new());
    // The CPU is the default.
    if tensor.device() != Device::Cpu {
        before.push(format!("device='{}'", device::name(tensor.device())));
    }
    // PyTorch asks autograd for the name, and takes a refusal for an answer: a view that was made and changed
    // in place without gradients has none (https://github.com/pytorch/pytorch/issues/99968).
    match grad_fn_name(tensor) {
        Ok(Some(name)) => after.push(format!("grad_fn=<{name}>")),
        Ok(None) if tensor.requires_grad() => after.push("requires_grad=True".to_owned()),
        Ok(None) => {}
        Err(_) => after.push("grad_fn=<Invalid>".to_owned()),
    }
    Ok(Text { dtype, shape: &shape, shown: &shown, summarize }.repr(before, after))
}

/// Returns the elements in brackets, as if `indent` characters stood before them; where they are to be
/// summarized, the first and last three of every dimension longer than six.
pub(crate) fn elements(
    tensor: &Tensor,
    indent: usize,
    summarize: bool,
) -> Result<String, TchError> {
    let (dtype, shape, shown) =
        (dtype(tensor.f_kind()?)?, shape(tensor), shown(tensor, summarize)?);
    Ok(Text { dtype, shape: &shape, shown: &shown, summarize }.elements(indent))
}

fn shape(tensor: &Tensor) -> Vec<usize> {
    tensor.size().iter().map(|&n| n as usize).collect()
}

/// Returns PyTorch's name of a dtype, such as `torch.float32`.
pub(crate) fn dtype_name(kind: Kind) -> String {
    dtype(kind).map_or_else(|_| format!("{kind:?}"), |dtype| dtype.name.to_owned())
}

/// PyTorch's dtype of that kind.
fn dtype(kind: Kind) -> Result<&'static PyTorchDtype, TchError> {
    let name = match kind {
        Kind::Half => "torch.float16",
        Kind::BFloat16 => "torch.bfloat16",
        Kind::Float => "torch.float32",
        Kind::Double => "torch.float64",
        Kind::Float8e4m3fn => "torch.float8_e4m3fn",
        Kind::Float8e5m2 => "torch.float8_e5m2",
        Kind::Float8e4m3fnuz => "torch.float8_e4m3fnuz",
        Kind::Float8e5m2fnuz => "torch.float8_e5m2fnuz",
        Kind::ComplexHalf => "torch.complex32",
        Kind::ComplexFloat => "torch.complex64",
        Kind::ComplexDouble => "torch.complex128",
        Kind::Uint8 => "torch.uint8",
        Kind::Int8 => "torch.int8",
        Kind::Int16 => "torch.int16",
        Kind::Int => "torch.int32",
        Kind::Int64 => "torch.int64",
        Kind::Bool => "torch.bool",
        Kind::QInt8 | Kind::QUInt8 | Kind::QInt32 => "quantized",
    };
    let dtype = PyTorchDtype::named(name);
    dtype.ok_or_else(|| TchError::Kind(format!("cannot print a tensor of dtype {kind:?}")))
}

/// Returns the bytes of the elements that are shown.
fn shown(tensor: &Tensor, summarize: bool) -> Result<Vec<u8>, TchError> {
    let mut shown = tensor.f_detach()?.f_resolve_neg()?;
    // libtorch selects bytes, but no floats of 8 bits.
    if shown.f_kind()?.elt_size_in_bytes() == 1 {
        shown = shown.f_view_dtype(Kind::Uint8)?;
    }
    for (dim, &n) in tensor.size().iter().enumerate() {
        if is_cut(n as usize, summarize) {
            let index = Tensor::from_slice(&[0, 1, 2, n - 3, n - 2, n - 1]);
            shown = shown.f_index_select(dim as i64, &index.f_to_device(tensor.device())?)?;
        }
    }
    let size = size_in_bytes(&shown).map_err(|err| TchError::Shape(err.to_string()))?;
    let mut bytes = vec![0; size];
    copy_bytes(&shown, &mut bytes)?;
    Ok(bytes)
}

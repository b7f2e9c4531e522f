//! The elements of a tensor as numbers.

use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};

/// Lists the elements of a float tensor in row-major order. Of another dtype there are none.
pub(crate) fn floats<'a>(view: &TensorView<'a>) -> Box<dyn Iterator<Item = f64> + 'a> {
    let bytes: &'a [u8] = view.data();
    match view.dtype() {
        Dtype::F16 => Box::new(bytes.as_chunks().0.iter().map(|b| f16::from_le_bytes(*b).into())),
        Dtype::BF16 => Box::new(bytes.as_chunks().0.iter().map(|b| bf16::from_le_bytes(*b).into())),
        Dtype::F32 => Box::new(bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b).into())),
        Dtype::F64 => Box::new(bytes.as_chunks().0.iter().map(|b| f64::from_le_bytes(*b))),
        _ => Box::new(std::iter::empty()),
    }
}

/// Lists the elements of a tensor of floats, integers or booleans in row-major order. Of a complex tensor, and of floats
/// of 8 bits or fewer, there are none.
pub(super) fn numbers<'a>(view: &TensorView<'a>) -> Box<dyn Iterator<Item = f64> + 'a> {
    let bytes: &'a [u8] = view.data();
    match view.dtype() {
        Dtype::BOOL | Dtype::U8 => Box::new(bytes.iter().map(|b| (*b).into())),
        Dtype::I8 => Box::new(bytes.as_chunks().0.iter().map(|b| i8::from_le_bytes(*b).into())),
        Dtype::I16 => Box::new(bytes.as_chunks().0.iter().map(|b| i16::from_le_bytes(*b).into())),
        Dtype::U16 => Box::new(bytes.as_chunks().0.iter().map(|b| u16::from_le_bytes(*b).into())),
        Dtype::I32 => Box::new(bytes.as_chunks().0.iter().map(|b| i32::from_le_bytes(*b).into())),
        Dtype::U32 => Box::new(bytes.as_chunks().0.iter().map(|b| u32::from_le_bytes(*b).into())),
        Dtype::I64 => Box::new(bytes.as_chunks().0.iter().map(|b| i64::from_le_bytes(*b) as f64)),
        Dtype::U64 => Box::new(bytes.as_chunks().0.iter().map(|b| u64::from_le_bytes(*b) as f64)),
        _ => floats(view),
    }
}

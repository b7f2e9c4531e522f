//! The dtypes that PyTorch prints: their names, and what their bytes mean.

use half::{bf16, f16};
use safetensors::tensor::Dtype;

/// Elements as they are printed.
pub(crate) enum Elements {
    Floats(Vec<f64>),
    /// Floats that have only an exponent, no sign and no fraction. PyTorch treats their nan as a finite number.
    Exponents(Vec<f64>),
    /// Complex numbers, each as its real and its imaginary part.
    Complex(Vec<[f64; 2]>),
    /// Integers and booleans, as text.
    Words(Vec<String>),
}

/// The least float8_e8m0fnu. PyTorch takes it for 0 when it compares it with 0.
pub(super) const LEAST_EXPONENT: f64 = 1. / (1u128 << 127) as f64;

/// A dtype as PyTorch prints it.
pub(crate) struct PyTorchDtype {
    /// The name of the dtype, as `str(dtype)` returns it.
    pub(crate) name: &'static str,
    /// Whether the elements alone show the dtype, so that it is not printed.
    pub(crate) is_default: bool,
    /// The number of bytes of one element.
    pub(crate) size: usize,
    pub(crate) decode: fn(&[u8]) -> Elements,
}

impl PyTorchDtype {
    /// Returns PyTorch's dtype for that of a safetensors file, or `None` if PyTorch has none.
    pub(crate) fn of(dtype: Dtype) -> Option<&'static PyTorchDtype> {
        PyTorchDtype::named(match dtype {
            Dtype::BOOL => "torch.bool",
            Dtype::U8 => "torch.uint8",
            Dtype::U16 => "torch.uint16",
            Dtype::U32 => "torch.uint32",
            Dtype::U64 => "torch.uint64",
            Dtype::I8 => "torch.int8",
            Dtype::I16 => "torch.int16",
            Dtype::I32 => "torch.int32",
            Dtype::I64 => "torch.int64",
            Dtype::F16 => "torch.float16",
            Dtype::BF16 => "torch.bfloat16",
            Dtype::F32 => "torch.float32",
            Dtype::F64 => "torch.float64",
            Dtype::F8_E4M3 => "torch.float8_e4m3fn",
            Dtype::F8_E5M2 => "torch.float8_e5m2",
            Dtype::F8_E4M3FNUZ => "torch.float8_e4m3fnuz",
            Dtype::F8_E5M2FNUZ => "torch.float8_e5m2fnuz",
            Dtype::F8_E8M0 => "torch.float8_e8m0fnu",
            Dtype::F4 => "torch.float4_e2m1fn_x2",
            Dtype::C64 => "torch.complex64",
            _ => return None,
        })
    }

    /// Returns the dtype of that name.
    pub(crate) fn named(name: &str) -> Option<&'static PyTorchDtype> {
        TABLE.iter().find(|dtype| dtype.name == name)
    }
}

const fn row(name: &'static str, size: usize, decode: fn(&[u8]) -> Elements) -> PyTorchDtype {
    PyTorchDtype { name, is_default: false, size, decode }
}

/// Returns a dtype that PyTorch does not name beside the elements.
const fn default(name: &'static str, size: usize, decode: fn(&[u8]) -> Elements) -> PyTorchDtype {
    PyTorchDtype { name, is_default: true, size, decode }
}

static TABLE: [PyTorchDtype; 22] = [
    // A bool is read as a byte, since a file can hold one that is neither 0 nor 1.
    default("torch.bool", 1, |bytes| {
        words(bytes, |[byte]| if byte == 0 { "False" } else { "True" })
    }),
    row("torch.uint8", 1, |bytes| words(bytes, u8::from_le_bytes)),
    row("torch.uint16", 2, |bytes| words(bytes, u16::from_le_bytes)),
    row("torch.uint32", 4, |bytes| words(bytes, u32::from_le_bytes)),
    row("torch.uint64", 8, |bytes| words(bytes, u64::from_le_bytes)),
    row("torch.int8", 1, |bytes| words(bytes, i8::from_le_bytes)),
    row("torch.int16", 2, |bytes| words(bytes, i16::from_le_bytes)),
    row("torch.int32", 4, |bytes| words(bytes, i32::from_le_bytes)),
    default("torch.int64", 8, |bytes| words(bytes, i64::from_le_bytes)),
    row("torch.float16", 2, |bytes| floats(bytes, half)),
    row("torch.bfloat16", 2, |bytes| floats(bytes, |bytes| bf16::from_le_bytes(bytes).to_f64())),
    default("torch.float32", 4, |bytes| floats(bytes, single)),
    row("torch.float64", 8, |bytes| floats(bytes, f64::from_le_bytes)),
    row("torch.float8_e4m3fn", 1, |bytes| {
        floats(bytes, |[bits]| if bits & 0x7f == 0x7f { f64::NAN } else { narrow(bits, 3, 7) })
    }),
    row("torch.float8_e5m2", 1, |bytes| {
        floats(bytes, |[bits]| half([0, bits])) // the upper half of a float16
    }),
    row("torch.float8_e4m3fnuz", 1, |bytes| {
        floats(bytes, |[bits]| if bits == 0x80 { f64::NAN } else { narrow(bits, 3, 8) })
    }),
    row("torch.float8_e5m2fnuz", 1, |bytes| {
        floats(bytes, |[bits]| if bits == 0x80 { f64::NAN } else { narrow(bits, 2, 16) })
    }),
    row("torch.float8_e8m0fnu", 1, |bytes| {
        let exponent = |bits: u8| 2f64.powi(i32::from(bits) - 127);
        Elements::Exponents(read(
            bytes,
            |[bits]| if bits == 0xff { f64::NAN } else { exponent(bits) },
        ))
    }),
    // PyTorch prints each pair of these floats as the number that their byte holds.
    row("torch.float4_e2m1fn_x2", 1, |bytes| floats(bytes, |[byte]| f64::from(byte))),
    row("torch.complex32", 4, |bytes| {
        Elements::Complex(read(bytes, |[a, b, c, d]| [half([a, b]), half([c, d])]))
    }),
    default("torch.complex64", 8, |bytes| {
        Elements::Complex(read(bytes, |bytes: [u8; 8]| {
            let [real, imaginary] = [&bytes[..4], &bytes[4..]];
            [real, imaginary].map(|part| single([part[0], part[1], part[2], part[3]]))
        }))
    }),
    row("torch.complex128", 16, |bytes| {
        Elements::Complex(read(bytes, |bytes: [u8; 16]| {
            let parts = bytes.as_chunks::<8>().0;
            [f64::from_le_bytes(parts[0]), f64::from_le_bytes(parts[1])]
        }))
    }),
];

fn read<const N: usize, T>(bytes: &[u8], element: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes.as_chunks::<N>().0.iter().map(|bytes| element(*bytes)).collect()
}

fn words<const N: usize, T: ToString>(bytes: &[u8], element: fn([u8; N]) -> T) -> Elements {
    Elements::Words(read(bytes, |bytes| element(bytes).to_string()))
}

fn floats<const N: usize>(bytes: &[u8], element: fn([u8; N]) -> f64) -> Elements {
    Elements::Floats(read(bytes, element))
}

fn half(bytes: [u8; 2]) -> f64 {
    f16::from_le_bytes(bytes).to_f64()
}

fn single(bytes: [u8; 4]) -> f64 {
    f64::from(f32::from_le_bytes(bytes))
}

/// Returns the value of a finite float of 8 bits, given the number of bits of its mantissa and the bias of its
/// exponent ([FP8](https://arxiv.org/abs/2209.05433); the types named fnuz have [no negative
/// zero](https://arxiv.org/abs/2206.02915)).
fn narrow(bits: u8, mantissa_bits: u8, bias: i32) -> f64 {
    let mantissa = f64::from(bits & ((1 << mantissa_bits) - 1)) / f64::from(1u8 << mantissa_bits);
    let magnitude = match i32::from((bits & 0x7f) >> mantissa_bits) {
        0 => mantissa * 2f64.powi(1 - bias),
        exponent => (1. + mantissa) * 2f64.powi(exponent - bias),
    };
    if bits & 0x80 == 0 { magnitude } else { -magnitude }
}

//! The digest of a tensor, which stands in a file in the place of the elements.

use std::borrow::Cow;
use std::fmt;

use anyhow::{Context, Result, ensure};
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::numbers::numbers;

/// The number of hexadecimal digits of a SHA-256.
const HEX: usize = 64;

/// How many digits of the shown SHA-256s tell two of them apart.
const SHOWN: usize = 12;

/// The SHA-256 of a tensor's elements, and a summary of them for the reader, by which nothing is judged.
///
/// The SHA-256 is that of the elements' bytes, little-endian and row by row. Every nan is hashed as the quiet nan that
/// `float("nan")` is in PyTorch, since a nan equals any nan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Digest {
    /// The dtype of the tensor.
    pub dtype: Dtype,
    /// The shape of the tensor.
    pub shape: Vec<usize>,
    /// The SHA-256 in hexadecimal digits.
    pub sha256: String,
    /// The least finite element; `None` if there is none, or if the elements are no numbers that are ordered.
    pub min: Option<f64>,
    /// The greatest finite element.
    pub max: Option<f64>,
    /// The mean of the finite elements.
    pub mean: Option<f64>,
    /// The Euclidean norm of the finite elements.
    pub norm: Option<f64>,
    /// The number of elements that are nan.
    pub nan: u64,
    /// The number of elements that are infinite.
    pub inf: u64,
}

impl Digest {
    /// Computes the digest of a tensor.
    pub fn of(view: &TensorView) -> Digest {
        let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
        let (mut sum, mut squares, mut count, mut nan, mut inf) = (0., 0., 0u64, 0, 0);
        for x in numbers(view) {
            if x.is_finite() {
                (min, max) = (min.min(x), max.max(x));
                (sum, squares, count) = (sum + x, squares + x * x, count + 1);
            } else if x.is_nan() {
                nan += 1;
            } else {
                inf += 1;
            }
        }
        let some = |x: f64| (count > 0 && x.is_finite()).then(|| rounded(x));
        Digest {
            dtype: view.dtype(),
            shape: view.shape().to_vec(),
            sha256: sha256(&with_one_nan(view)),
            min: some(min),
            max: some(max),
            mean: some(sum / count as f64),
            norm: some(squares.sqrt()),
            nan,
            inf,
        }
    }

    /// Returns whether two tensors are the same to the bit; a nan equals any nan.
    pub fn is_same(&self, other: &Digest) -> bool {
        (self.dtype, &self.shape, &self.sha256) == (other.dtype, &other.shape, &other.sha256)
    }

    /// Returns how many elements the tensor has.
    pub(crate) fn numel(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns how many bytes the elements are.
    pub(super) fn bytes(&self) -> usize {
        self.numel() * self.dtype.bitsize() / 8
    }

    /// Checks what a file says.
    pub(super) fn check(&self) -> Result<()> {
        let product = |all: usize, n: &usize| all.checked_mul(*n);
        let bits = self.shape.iter().try_fold(self.dtype.bitsize(), product);
        bits.with_context(|| format!("its shape {:?} is too large", self.shape))?;
        ensure!(is_sha256(&self.sha256), "its sha256 is not {HEX} hexadecimal digits");
        Ok(())
    }

    /// Returns the beginning of the SHA-256, by which a reader tells two apart.
    pub(crate) fn short(&self) -> &str {
        self.sha256.get(..SHOWN).unwrap_or(&self.sha256)
    }
}

/// The summary, as `min -1.5, max 2.25, mean 0.1, norm 3.2, 1 nan, 2 inf`.
impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known =
            [("min", self.min), ("max", self.max), ("mean", self.mean), ("norm", self.norm)];
        let known = known.into_iter().filter_map(|(name, x)| Some(format!("{name} {:?}", x?)));
        let counts = [("nan", self.nan), ("inf", self.inf)];
        let counts = counts.into_iter().filter(|(_, count)| *count > 0);
        let parts = known.chain(counts.map(|(name, count)| format!("{count} {name}")));
        f.write_str(&parts.collect::<Vec<_>>().join(", "))
    }
}

/// Returns the SHA-256 of bytes in hexadecimal digits.
pub(super) fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns whether a text is a SHA-256 as a file has it.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == HEX && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// Returns a number with six significant digits.
fn rounded(value: f64) -> f64 {
    format!("{value:.5e}").parse().unwrap_or(value)
}

/// Returns whether the bytes of an element are a nan.
type IsNan = fn(&[u8]) -> bool;

/// Returns the bytes of a tensor with every nan as the one that `float("nan")` is in PyTorch.
fn with_one_nan<'a>(view: &TensorView<'a>) -> Cow<'a, [u8]> {
    fn of<const N: usize>(bytes: &[u8]) -> [u8; N] {
        bytes.try_into().unwrap_or([0; N])
    }
    let (nan, is_nan): (&[u8], IsNan) = match view.dtype() {
        Dtype::F16 => (&[0x00, 0x7e], |b| f16::from_le_bytes(of(b)).is_nan()),
        Dtype::BF16 => (&[0xc0, 0x7f], |b| bf16::from_le_bytes(of(b)).is_nan()),
        // The parts of a complex number are float32.
        Dtype::F32 | Dtype::C64 => (&[0, 0, 0xc0, 0x7f], |b| f32::from_le_bytes(of(b)).is_nan()),
        Dtype::F64 => (&[0, 0, 0, 0, 0, 0, 0xf8, 0x7f], |b| f64::from_le_bytes(of(b)).is_nan()),
        // Other floats of 8 bits have one nan.
        Dtype::F8_E4M3 => (&[0x7f], |b| b[0] & 0x7f == 0x7f),
        Dtype::F8_E5M2 => (&[0x7f], |b| b[0] & 0x7f > 0x7c),
        _ => return Cow::Borrowed(view.data()),
    };
    let bytes: &'a [u8] = view.data();
    if !bytes.chunks_exact(nan.len()).any(is_nan) {
        return Cow::Borrowed(bytes);
    }
    let mut bytes = bytes.to_vec();
    bytes.chunks_exact_mut(nan.len()).filter(|b| is_nan(b)).for_each(|b| b.copy_from_slice(nan));
    Cow::Owned(bytes)
}

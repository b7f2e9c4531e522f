//! How far apart is still close.

use safetensors::tensor::Dtype;
use serde::Serialize;

/// How far two tensors of a dtype may be apart and still be close.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Tolerance {
    /// Element-wise: `|actual - expected| <= atol + rtol * |expected|`.
    pub rtol: f64,
    /// The part of it that does not depend on `expected`.
    pub atol: f64,
    /// Over the tensor: `max|actual - expected| <= scaled * max|expected|`.
    pub scaled: f64,
}

/// The one table of tolerances. `rtol` and `atol` are the defaults of
/// [`torch.testing.assert_close`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/testing/_comparison.py#L83).
/// That `atol` alone passes most gradients of a hidden layer as zeros; `scaled` does not. It is 17
/// units of rounding for float32 (7 were the most seen between two kernels), as many for float16 and
/// bfloat16; 45 for float64. Whatever is not here is equal or it is not.
pub const TOLERANCES: [(Dtype, Tolerance); 4] = [
    (Dtype::F16, Tolerance { rtol: 1e-3, atol: 1e-5, scaled: 1.6e-2 }),
    (Dtype::BF16, Tolerance { rtol: 1.6e-2, atol: 1e-5, scaled: 1.3e-1 }),
    (Dtype::F32, Tolerance { rtol: 1.3e-6, atol: 1e-5, scaled: 2e-6 }),
    (Dtype::F64, Tolerance { rtol: 1e-7, atol: 1e-7, scaled: 1e-14 }),
];

impl Tolerance {
    /// That of a dtype; none for one whose tensors are equal or not.
    pub(crate) fn of(dtype: Dtype) -> Option<Tolerance> {
        TOLERANCES.iter().find(|(of, _)| *of == dtype).map(|(_, tolerance)| *tolerance)
    }
}

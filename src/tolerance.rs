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

/// Whose results are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// Two CPUs, or whatever is not known.
    Cpus,
    /// A GPU and a CPU, or GPUs of two kinds.
    Gpus,
}

/// The one table of tolerances. `rtol` and `atol` are the defaults of
/// [`torch.testing.assert_close`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/testing/_comparison.py#L83).
/// That `atol` alone passes most gradients of a hidden layer as zeros; `scaled` does not. It is 17
/// units of rounding for float32 (7 were the most seen between two kernels), as many for float16 and
/// bfloat16; 45 for float64. With a GPU it is five times that, since exp and log are other functions there
/// ([CUDA's are within 2 ulp](https://docs.nvidia.com/cuda/cuda-c-programming-guide/#mathematical-functions-appendix))
/// and products are fused; TF32 is off. Whatever dtype is not here is equal or it is not.
pub const TOLERANCES: [(Dtype, Between, Tolerance); 6] = [
    (Dtype::F16, Between::Cpus, Tolerance { rtol: 1e-3, atol: 1e-5, scaled: 1.6e-2 }),
    (Dtype::BF16, Between::Cpus, Tolerance { rtol: 1.6e-2, atol: 1e-5, scaled: 1.3e-1 }),
    (Dtype::F32, Between::Cpus, Tolerance { rtol: 1.3e-6, atol: 1e-5, scaled: 2e-6 }),
    (Dtype::F64, Between::Cpus, Tolerance { rtol: 1e-7, atol: 1e-7, scaled: 1e-14 }),
    (Dtype::F32, Between::Gpus, Tolerance { rtol: 1.3e-6, atol: 1e-5, scaled: 1e-5 }),
    (Dtype::F64, Between::Gpus, Tolerance { rtol: 1e-7, atol: 1e-7, scaled: 5e-14 }),
];

/// A value of a run agrees with one by hand, which is computed in float64, within as many times the running
/// error bound of the formula in the run's dtype (Higham, Accuracy and Stability of Numerical Algorithms, 2nd
/// ed., §3.3). Once is what the formula itself may cost; PyTorch adds up in another order and writes a fraction
/// in another way, and of a float64 run the judge rounds as much as the run. Twice was enough for all of 3,000
/// random cases, once for all but 61.
pub(crate) const ROUNDINGS_BY_HAND: f64 = 4.;

impl Tolerance {
    /// That of a dtype, that of CPUs where there is none for GPUs; none for a dtype whose tensors are equal
    /// or not.
    pub(crate) fn of(dtype: Dtype, between: Between) -> Option<Tolerance> {
        let rows = TOLERANCES.iter().rev();
        let mut fits =
            rows.filter(|row| row.0 == dtype && [between, Between::Cpus].contains(&row.1));
        fits.next().map(|row| row.2)
    }
}

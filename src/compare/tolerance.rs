//! The one table of tolerances, each with its reason.

use safetensors::tensor::Dtype;
use serde::{Deserialize, Serialize};

/// The distance within which two tensors of a dtype are close.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tolerance {
    /// The relative tolerance of an element, in `|actual - expected| <= atol + rtol * |expected|`.
    pub rtol: f64,
    /// The absolute tolerance of an element, in the same formula.
    pub atol: f64,
    /// The tolerance over the tensor, in `max|actual - expected| <= scaled * max|expected|`.
    pub scaled: f64,
}

/// Which hardware the two results come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// The results come from CPUs, or it is not known from where.
    Cpus,
    /// The results come from a GPU and a CPU, or from GPUs of two kinds.
    Gpus,
}

/// The one table of tolerances.
///
/// `rtol` and `atol` are the defaults of
/// [`torch.testing.assert_close`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/testing/_comparison.py#L83).
/// With `atol` alone, zeros would pass for most gradients of a hidden layer; `scaled` does not let them pass.
/// `scaled` is 17 units of rounding for float32 (the most seen between two kernels was 7) and as many for
/// float16 and bfloat16; for float64 it is 45. With a GPU it is five times that, since exp and log are other
/// functions there ([CUDA's are within 2 ulp]) and products are fused; TF32 is off. complex64 has the tolerances of
/// float32, and complex128 those of float64. The formulas are then of magnitudes of complex numbers, and numbers that are
/// nan on both sides, in either part, are close. `assert_close` has none for floats of 8 bits, whose values have to be equal. A dtype without
/// a row has no tolerance: its tensors are either equal or different.
///
/// # Tensors of a case that are not close by themselves
///
/// Rounding can carry a tensor further than this. Each term of a sum is rounded in proportion to the terms, so the
/// error of a sum is measured against the sum of its terms' magnitudes, and not against a sum that cancels (Higham,
/// Accuracy and Stability of Numerical Algorithms, 2nd ed., §4.2). So the tensors of a case are judged in the order
/// of execution, step by step. Let `seen` be the largest difference of the step so far, as a part of its tensor's
/// size and without what drift explains. Let `drift` be the largest slack of the step so far, as a part of its
/// tensor's size. A tensor is close if
///
/// ```text
/// max|Δ| <= (scaled + 8 seen + 4 drift) size + slack
/// ```
///
/// Where n terms are summed up in an element of a gradient, `scaled` is at least `8 sqrt(n)` units of rounding.
/// Roundings that are independent add up to `sqrt(n)` units, and at worst there are n (Higham, §4.2).
///
/// | tensor | size | slack |
/// |---|---|---|
/// | output of a module | `max|expected|` | twice the largest `max|Δ|` of the module's parameters of one dimension, plus 8 times the largest `max|Δ| / max|expected|` of its others, times `max|expected|`; both at the beginning of the step |
/// | gradient of an output | `max|expected|` | 0 |
/// | gradient of a parameter | `max|expected|`, or what is summed up in it if that is more: `Σ|gradient of the module's output|` of a channel, for a weight times `max|input|` | 0 |
/// | gradient as the optimizer took it | that of the gradient, times `max|taken| / max|gradient|` where clipping made it smaller | 0 |
/// | buffer after a step | `max|expected|`; for `running_mean`, `max|input|` if that is more | its difference before the step; for `running_mean`, plus that of the input |
///
/// An element of a parameter after step k is close if
///
/// ```text
/// |Δ| <= |Δ before the step| + scaled max|expected| + min(e + a, 2 m) min(1, 4 max(|Δ gradient| / |gradient|))
/// ```
///
/// where `e` and `a` are the longest steps of an element of this parameter in the expected and the actual run, and
/// `m` is the longest expected step of an element of any parameter. The last maximum is over steps 1 to k, and the
/// gradient is this element's, as the optimizer took it. So an element whose gradients agree to the bit has to be
/// stepped alike. Weight decay `w` of a parameter `p` can cancel the gradient `g`: where an optimizer adds them,
/// `|g + w p|` is divided by, and `|Δ gradient|` includes `w |Δp|`. Muon mixes all elements, and computes in bfloat16:
/// the last factor is at least twice the `scaled` of that. Only differences of tensors that are close count, so an error does
/// not excuse what follows from it.
///
/// What the optimizer keeps of a parameter after step k adds up its gradients, with factors up to 1, or their squares.
/// With `D`, the sum over steps 1 to k of `max|Δ|` of the gradients that it took and of `w max|Δp|`, it is close if
///
/// ```text
/// max|Δ| <= scaled (max|expected| + w max|p|) + 8 D                 exp_avg, momentum_buffer, and others
/// max|Δ| <= scaled max|expected| + 8 D (D + 2 sqrt(max|expected|))  exp_avg_sq, max_exp_avg_sq, square_avg, sum
/// ```
///
/// or if its elements are close by the formula of a parameter's, with the longest changes of an element of this state
/// in the place of the steps.
///
/// # Tensors of a run that was computed in float64 as well
///
/// With `a`, `e` and `t` for the actual tensor, the expected one and the one in float64, and one rounding `u` of the
/// dtype, a tensor passes as well if
///
/// ```text
/// rms(a - t) <= 2 rms(e - t) + u rms(t)
/// max|a - t| <= 8 max|e - t| + u max|t|
/// rms(e - t) <= 8 (rms(a - t) + u rms(t))
/// ```
///
/// The last line sees a program that is wrong, and so as wrong in float64.
///
/// The factors 8 and 4 are measured: `scripts/right_and_wrong.py` shows with them how many right runs are called
/// different, and how many mistakes are missed (`docs/checking.md`).
///
/// [CUDA's are within 2 ulp]: https://docs.nvidia.com/cuda/cuda-c-programming-guide/#mathematical-functions-appendix
pub const TOLERANCES: [(Dtype, Between, Tolerance); 13] = [
    (Dtype::F16, Between::Cpus, Tolerance { rtol: 1e-3, atol: 1e-5, scaled: 1.6e-2 }),
    (Dtype::BF16, Between::Cpus, Tolerance { rtol: 1.6e-2, atol: 1e-5, scaled: 1.3e-1 }),
    (Dtype::F32, Between::Cpus, Tolerance { rtol: 1.3e-6, atol: 1e-5, scaled: 2e-6 }),
    (Dtype::F64, Between::Cpus, Tolerance { rtol: 1e-7, atol: 1e-7, scaled: 1e-14 }),
    (Dtype::C64, Between::Cpus, Tolerance { rtol: 1.3e-6, atol: 1e-5, scaled: 2e-6 }),
    (Dtype::F8_E4M3, Between::Cpus, EQUAL),
    (Dtype::F8_E5M2, Between::Cpus, EQUAL),
    (Dtype::F8_E4M3FNUZ, Between::Cpus, EQUAL),
    (Dtype::F8_E5M2FNUZ, Between::Cpus, EQUAL),
    (Dtype::F8_E8M0, Between::Cpus, EQUAL),
    (Dtype::F32, Between::Gpus, Tolerance { rtol: 1.3e-6, atol: 1e-5, scaled: 1e-5 }),
    (Dtype::F64, Between::Gpus, Tolerance { rtol: 1e-7, atol: 1e-7, scaled: 5e-14 }),
    (Dtype::C64, Between::Gpus, Tolerance { rtol: 1.3e-6, atol: 1e-5, scaled: 1e-5 }),
];

/// The tolerance of values that have to be equal; zeros are, whatever their sign.
const EQUAL: Tolerance = Tolerance { rtol: 0., atol: 0., scaled: 0. };

/// The largest difference allowed between a run and the value computed by hand, as a multiple of the formula's
/// rounding error.
///
/// The rounding error is the running error bound of the formula in the run's dtype (Higham, Accuracy and
/// Stability of Numerical Algorithms, 2nd ed., §3.3). The value by hand is computed in float64. Evaluating the
/// formula as it is written costs at most that bound. But PyTorch sums in another order and computes a fraction
/// in another way, and if the run is float64, the value by hand is rounded as much as the run. Of 3,000 random
/// cases, all were within twice the bound, and all but 61 were within the bound.
pub const ROUNDINGS_BY_HAND: f64 = 4.;

/// How much larger a rounding error may become from one tensor of a step to the next.
pub(super) const CARRIED: f64 = 8.;

/// How much larger the drift of a module's parameters may become in the tensors that are computed from its output.
pub(super) const DRIFTED: f64 = 4.;

/// How far a step may follow the noise of a gradient, as a multiple of the noise's part in the gradient.
pub(super) const NOISE: f64 = 4.;

impl Tolerance {
    /// Returns the tolerance of a dtype, or `None` if its tensors are either equal or different. If the table has
    /// none for GPUs, it is that of CPUs.
    pub(crate) fn of(dtype: Dtype, between: Between) -> Option<Tolerance> {
        let rows = TOLERANCES.iter().rev();
        let mut fits =
            rows.filter(|row| row.0 == dtype && [between, Between::Cpus].contains(&row.1));
        fits.next().map(|row| row.2)
    }
}

//! `nn.Linear`: `y = x Wᵀ + b`, with `x` of shape `[*, in_features]`, `W` of shape
//! `[out_features, in_features]`, `b` of shape `[out_features]` and `y` of shape
//! `[*, out_features]`.

use std::fmt;

use tch::{Device, Kind, TchError, Tensor, no_grad};

use super::shim::ensure_dense;

/// A linear layer that is PyTorch's [`nn.Linear`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/nn/modules/linear.py#L53),
/// down to the bits of its initial values.
///
/// ```
/// use tch_parity::Linear;
///
/// tch::manual_seed(0);
/// let fc = Linear::new(2, 3)?;
/// assert_eq!(fc.to_string(), "Linear(in_features=2, out_features=3, bias=True)");
/// assert_eq!(fc.forward(&tch::Tensor::from_slice(&[1f32, -1.]))?.size(), [3]);
/// # Ok::<(), tch::TchError>(())
/// ```
#[derive(Debug)]
pub struct Linear {
    /// The weight `W`, of shape `[out_features, in_features]`.
    pub weight: Tensor,
    /// The bias `b`, of shape `[out_features]`.
    pub bias: Tensor,
}

impl Linear {
    /// Draws both parameters from libtorch's default generator, in float32 on the CPU.
    ///
    /// The weight is drawn first, then the bias, both uniform within ±1/sqrt(in_features).
    ///
    /// # Errors
    /// libtorch's own, such as for a negative number of features.
    pub fn new(in_features: i64, out_features: i64) -> Result<Linear, TchError> {
        let mut weight = Tensor::f_empty([out_features, in_features], (Kind::Float, Device::Cpu))?;
        let mut bias = Tensor::f_empty(out_features, (Kind::Float, Device::Cpu))?;
        let fan_in = in_features as f64;
        no_grad(|| -> Result<(), TchError> {
            // `kaiming_uniform_(weight, a=sqrt(5))`, which leaves a weight without elements, and with
            // it the generator, alone. The bound is 1/sqrt(fan_in) in another order of operations:
            // https://github.com/pytorch/pytorch/blob/v2.13.0/torch/nn/init.py#L554
            if weight.numel() > 0 {
                let gain = (2. / (1. + 5f64.sqrt().powi(2))).sqrt();
                let bound = 3f64.sqrt() * (gain / fan_in.sqrt());
                let _ = weight.f_uniform_(-bound, bound)?;
            }
            // Python's bound is the integer 0 where there are no inputs, and its negative is no -0.
            let bound = if in_features > 0 { 1. / fan_in.sqrt() } else { 0. };
            let _ = bias.f_uniform_(0. - bound, bound)?;
            Ok(())
        })?;
        Ok(Linear {
            weight: weight.f_set_requires_grad(true)?,
            bias: bias.f_set_requires_grad(true)?,
        })
    }

    /// Computes `F.linear(input, weight, bias)`.
    ///
    /// # Errors
    /// libtorch's own, such as for shapes that do not fit; a weight without elements in oneDNN's layout.
    pub fn forward(&self, input: &Tensor) -> Result<Tensor, TchError> {
        // oneDNN divides by its number of elements where libtorch transposes it, and the process ends.
        if self.weight.is_mkldnn() && self.weight.numel() == 0 {
            ensure_dense(&self.weight)?;
        }
        input.f_linear(&self.weight, Some(&self.bias))
    }
}

/// Python's `repr(module)`.
impl fmt::Display for Linear {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        if ensure_dense(&self.weight).is_err() {
            return f.write_str("Linear(weight without a shape)");
        }
        match self.weight.size()[..] {
            [out_features, in_features] => {
                write!(
                    f,
                    "Linear(in_features={in_features}, out_features={out_features}, bias=True)"
                )
            }
            ref size => write!(f, "Linear(weight of shape {size:?})"),
        }
    }
}

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::formula::{Formula, Options, require};
use super::python::{div, max, min, pow};
use super::state::State;
use crate::torch::Scaled;

/// The optimizer Adafactor, which is
/// [`torch.optim.Adafactor`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/optim/_adafactor.py#L330).
///
/// ```text
/// beta     = t^beta2_decay
/// alpha    = max(eps2, rms(p)) * min(lr, 1 / √t)
/// row_var  = row_var + beta * (mean of grad² in each row - row_var)       (col_var: in each column)
/// estimate = row_var @ col_var / max(mean of row_var, eps1)
/// update   = grad / √max(estimate, eps1²)
/// p        = p * (1 - lr * weight_decay) - alpha / max(1, rms(update) / d) * update
/// ```
///
/// The estimate for a parameter of fewer than two dimensions is `variance`, the average of `grad²` itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adafactor {
    /// The learning rate.
    pub lr: f64,
    /// The power of the step with which averages are taken; it is not positive.
    pub beta2_decay: f64,
    /// The smallest square root of an estimate, and the smallest size of a parameter. `None` is the dtype's epsilon.
    pub eps: (Option<f64>, f64),
    /// The root mean square at which an update is clipped.
    pub d: f64,
    /// The share, times the learning rate, by which a parameter shrinks.
    pub weight_decay: f64,
    /// Whether to step up instead of down.
    pub maximize: bool,
}

impl Default for Adafactor {
    fn default() -> Adafactor {
        Adafactor {
            lr: 1e-2,
            beta2_decay: -0.8,
            eps: (None, 1e-3),
            d: 1.,
            weight_decay: 0.,
            maximize: false,
        }
    }
}

impl Options for Adafactor {
    const NAME: &'static str = "Adafactor";

    fn check(&self) -> Result<()> {
        require(self.lr >= 0., "Learning rate should be >= 0 but is", self.lr)?;
        require(self.beta2_decay <= 0., "beta2_decay should be <= 0 but is", self.beta2_decay)?;
        if let Some(eps1) = self.eps.0 {
            require(eps1 >= 0., "epsilon1 should be >= 0 but is", eps1)?;
        }
        require(self.eps.1 >= 0., "epsilon2 should be >= 0 but is", self.eps.1)?;
        require(self.d >= 1., "Clipping threshold d should be >= 1 but is", self.d)?;
        require(self.weight_decay >= 0., "weight_decay should be >= 0 but is", self.weight_decay)
    }

    fn lr(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn state(&self, p: &Tensor) -> Result<State> {
        let state = State::counting();
        let mut size = p.size();
        let [.., _, columns] = size[..] else { return state.zeros("variance", p) };
        let (mut state, n) = (state, size.len());
        size[n - 1] = 1;
        state.set("row_var", p.f_new_zeros(&size, (p.f_kind()?, p.device()))?);
        (size[n - 2], size[n - 1]) = (1, columns);
        state.set("col_var", p.f_new_zeros(&size, (p.f_kind()?, p.device()))?);
        Ok(state)
    }
}

impl Formula for Adafactor {
    fn maximize(&self) -> bool {
        self.maximize
    }

    /// Fixes an epsilon that was not given to that of the first parameter's dtype, as PyTorch does for its group.
    fn in_group(&self, first: &Tensor) -> Result<Adafactor> {
        let eps1 = match first.f_kind()? {
            Kind::Double => f64::EPSILON,
            Kind::Half => 2f64.powi(-10),
            Kind::BFloat16 => 2f64.powi(-7),
            _ => f64::from(f32::EPSILON),
        };
        Ok(Adafactor { eps: (self.eps.0.or(Some(eps1)), self.eps.1), ..self.clone() })
    }

    fn update(&self, p: &mut Tensor, grad: &Tensor, state: &mut State) -> Result<()> {
        let step = state.count()?;
        let (lr, eps1, eps2) = (self.lr, self.eps.0.unwrap_or_default(), self.eps.1);
        let beta = pow(step, self.beta2_decay);
        let rho = min(lr, 1. / pow(step, 0.5));
        let alpha = max(eps2, root_mean_square(p)?) * rho;
        if self.weight_decay != 0. {
            p.scale_(1. - lr * self.weight_decay)?;
        }
        let estimate = if grad.dim() > 1 {
            let mean_of = |dim: i64| {
                let norm = grad.f_norm_scalaropt_dim(2., dim, true)?;
                let n = grad.size()[(grad.dim() as i64 + dim) as usize];
                { norm }.f_square_()?.f_div_scalar_(n)
            };
            let (mut row_var, mut col_var) = (state.tensor("row_var")?, state.tensor("col_var")?);
            let _ = row_var.f_lerp_(&mean_of(-1)?, beta)?;
            let _ = col_var.f_lerp_(&mean_of(-2)?, beta)?;
            let mean = row_var.f_mean_dim(-2, true, None)?.f_clamp_min_(eps1)?;
            row_var.f_matmul(&col_var)?.f_div_(&mean)?
        } else {
            let mut variance = state.tensor("variance")?;
            variance.f_lerp_(&grad.f_mul(grad)?, beta)?.f_detach_copy()?
        };
        let update = { estimate }.f_clamp_min_(eps1 * eps1)?.f_rsqrt_()?.f_mul_(grad)?;
        let denom = max(1., norm(&update)? / (pow(update.numel() as f64, 0.5) * self.d));
        Ok(p.add_scaled_(&update, -alpha / denom)?)
    }
}

/// Returns the norm of a tensor as Python's `tensor.norm(2).item()`.
fn norm(tensor: &Tensor) -> Result<f64> {
    let dims = (0..tensor.dim() as i64).collect::<Vec<_>>();
    Ok(tensor.f_norm_scalaropt_dim(2., dims, false)?.f_double_value(&[])?)
}

fn root_mean_square(tensor: &Tensor) -> Result<f64> {
    div(norm(tensor)?, pow(tensor.numel() as f64, 0.5))
}

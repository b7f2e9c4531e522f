use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::formula::{Formula, Options, average, decayed_or_decoupled, require_like_adam};
use super::python::pow;
use super::state::State;
use crate::torch::Scaled;

/// Rectified Adam: [`torch.optim.RAdam`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/optim/radam.py#L256).
///
/// ```text
/// exp_avg    = exp_avg + (1 - beta1) * (grad - exp_avg)
/// exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * grad²
/// m          = exp_avg / (1 - beta1ᵗ) * lr
/// rho_inf    = 2 / (1 - beta2) - 1
/// rho        = rho_inf - 2t * beta2ᵗ / (1 - beta2ᵗ)
/// p          = p - m * √(1 - beta2ᵗ) / (√exp_avg_sq + eps) * rect        (p - m, unless rho > 5)
/// rect       = √((rho - 4) (rho - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho))
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RAdam {
    /// The learning rate.
    pub lr: f64,
    /// How much of the averages of the gradient and of its square is kept.
    pub betas: (f64, f64),
    /// What is added to the denominator.
    pub eps: f64,
    /// The share of a parameter that is added to its gradient.
    pub weight_decay: f64,
    /// Whether weight decay shrinks the parameter instead, as in AdamW.
    pub decoupled_weight_decay: bool,
    /// Whether to step up instead of down.
    pub maximize: bool,
}

impl Default for RAdam {
    fn default() -> RAdam {
        RAdam {
            lr: 1e-3,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.,
            decoupled_weight_decay: false,
            maximize: false,
        }
    }
}

impl Options for RAdam {
    const NAME: &'static str = "RAdam";

    fn check(&self) -> Result<()> {
        require_like_adam(self.lr, self.betas, self.eps, self.weight_decay)
    }

    fn lr(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.betas.0)
    }

    fn state(&self, p: &Tensor) -> Result<State> {
        State::counting().zeros("exp_avg", p)?.zeros("exp_avg_sq", p)
    }
}

impl Formula for RAdam {
    fn maximize(&self) -> bool {
        self.maximize
    }

    fn update(&self, p: &mut Tensor, grad: &Tensor, state: &mut State) -> Result<()> {
        let step = state.count()?;
        let (mut exp_avg, mut exp_avg_sq) = (state.tensor("exp_avg")?, state.tensor("exp_avg_sq")?);
        let (lr, (beta1, beta2)) = (self.lr, self.betas);
        let decay = (lr, self.weight_decay, self.decoupled_weight_decay);
        let grad = decayed_or_decoupled(grad, p, decay)?;
        average(&mut exp_avg, &mut exp_avg_sq, &grad, self.betas)?;
        let bias_correction2 = 1. - pow(beta2, step);
        let mut m = exp_avg.f_div_scalar(1. - pow(beta1, step))?;
        m.scale_(lr)?;
        let rho_inf = 2. / (1. - beta2) - 1.;
        let rho = rho_inf - 2. * step * pow(beta2, step) / bias_correction2;
        if rho > 5. {
            let rect = (rho - 4.) * (rho - 2.) * rho_inf / ((rho_inf - 4.) * (rho_inf - 2.) * rho);
            // A number that is divided by a tensor is the tensor's reciprocal times the number.
            let mut adaptive = exp_avg_sq.f_sqrt()?.f_add_scalar_(self.eps)?.f_reciprocal_()?;
            adaptive.scale_(pow(bias_correction2, 0.5))?;
            m.f_mul_(&adaptive)?.scale_(pow(rect, 0.5))?;
        }
        Ok(p.add_scaled_(&m, -1.)?)
    }
}

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::formula::{Formula, Options, average, decayed_or_decoupled, require_like_adam};
use super::python::pow;
use super::state::State;
use crate::torch::Scaled;

/// The optimizer Adam, which is
/// [`torch.optim.Adam`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/optim/adam.py#L347).
///
/// ```text
/// exp_avg    = exp_avg + (1 - beta1) * (grad - exp_avg)
/// exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * grad²
/// p          = p - lr / (1 - beta1ᵗ) * exp_avg / (√exp_avg_sq / √(1 - beta2ᵗ) + eps)
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adam {
    /// The learning rate.
    pub lr: f64,
    /// How much of the averages of the gradient and of its square is kept.
    pub betas: (f64, f64),
    /// What is added to the denominator.
    pub eps: f64,
    /// The share of a parameter that is added to its gradient.
    pub weight_decay: f64,
    /// Whether to divide by the largest average of the square so far.
    pub amsgrad: bool,
    /// Whether to step up instead of down.
    pub maximize: bool,
    /// Whether weight decay shrinks the parameter instead, as in AdamW.
    pub decoupled_weight_decay: bool,
}

impl Default for Adam {
    fn default() -> Adam {
        Adam {
            lr: 1e-3,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.,
            amsgrad: false,
            maximize: false,
            decoupled_weight_decay: false,
        }
    }
}

impl Options for Adam {
    const NAME: &'static str = "Adam";

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
        let state = State::counting().zeros("exp_avg", p)?.zeros("exp_avg_sq", p)?;
        if self.amsgrad { state.zeros("max_exp_avg_sq", p) } else { Ok(state) }
    }
}

impl Formula for Adam {
    fn maximize(&self) -> bool {
        self.maximize
    }

    fn check_gradient(&self, grad: &Tensor) -> Result<()> {
        ensure!(
            !grad.is_sparse(),
            "Adam does not support sparse gradients, please consider SparseAdam instead"
        );
        Ok(())
    }

    fn update(&self, p: &mut Tensor, grad: &Tensor, state: &mut State) -> Result<()> {
        let step = state.count()?;
        let (mut exp_avg, mut exp_avg_sq) = (state.tensor("exp_avg")?, state.tensor("exp_avg_sq")?);
        let (beta1, beta2) = self.betas;
        let decay = (self.lr, self.weight_decay, self.decoupled_weight_decay);
        let grad = decayed_or_decoupled(grad, p, decay)?;
        average(&mut exp_avg, &mut exp_avg_sq, &grad, self.betas)?;
        let step_size = self.lr / (1. - pow(beta1, step));
        let bias_correction2_sqrt = pow(1. - pow(beta2, step), 0.5);
        let root = if self.amsgrad {
            let max_exp_avg_sq = state.tensor("max_exp_avg_sq")?;
            max_exp_avg_sq.f_maximum_out(&max_exp_avg_sq, &exp_avg_sq)?.f_sqrt()?
        } else {
            exp_avg_sq.f_sqrt()?
        };
        let denom = { root }.f_div_scalar_(bias_correction2_sqrt)?.f_add_scalar_(self.eps)?;
        Ok(p.addcdiv_scaled_(&exp_avg, &denom, -step_size)?)
    }
}

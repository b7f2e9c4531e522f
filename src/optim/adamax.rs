use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::formula::{Formula, Options, decayed, require_like_adam};
use super::python::pow;
use super::state::State;
use crate::torch::Scaled;

/// Adam with the infinity norm:
/// [`torch.optim.Adamax`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/optim/adamax.py#L226).
///
/// ```text
/// exp_avg = exp_avg + (1 - beta1) * (grad - exp_avg)
/// exp_inf = max(beta2 * exp_inf, |grad| + eps)
/// p       = p - lr / (1 - beta1ᵗ) * exp_avg / exp_inf
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adamax {
    /// The learning rate.
    pub lr: f64,
    /// How much of the average of the gradient and of the norm is kept.
    pub betas: (f64, f64),
    /// What is added to the denominator.
    pub eps: f64,
    /// The share of a parameter that is added to its gradient.
    pub weight_decay: f64,
    /// Whether to step up instead of down.
    pub maximize: bool,
}

impl Default for Adamax {
    fn default() -> Adamax {
        Adamax { lr: 2e-3, betas: (0.9, 0.999), eps: 1e-8, weight_decay: 0., maximize: false }
    }
}

impl Options for Adamax {
    const NAME: &'static str = "Adamax";

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
        State::counting().zeros("exp_avg", p)?.zeros("exp_inf", p)
    }
}

impl Formula for Adamax {
    fn maximize(&self) -> bool {
        self.maximize
    }

    fn update(&self, p: &mut Tensor, grad: &Tensor, state: &mut State) -> Result<()> {
        let step = state.count()?;
        let (mut exp_avg, mut exp_inf) = (state.tensor("exp_avg")?, state.tensor("exp_inf")?);
        let (beta1, beta2) = self.betas;
        let grad = decayed(grad, p, self.weight_decay)?;
        let _ = exp_avg.f_lerp_(&grad, 1. - beta1)?;
        exp_inf.scale_(beta2)?;
        let norm = grad.f_abs()?.f_add_scalar_(self.eps)?;
        let _ = exp_inf.f_maximum_out(&exp_inf, &norm)?;
        Ok(p.addcdiv_scaled_(&exp_avg, &exp_inf, -(self.lr / (1. - pow(beta1, step))))?)
    }
}

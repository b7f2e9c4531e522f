use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::formula::{Formula, Options, average, decayed_or_decoupled, require, require_like_adam};
use super::python::pow;
use super::state::State;
use crate::torch::Scaled;

/// Adam with Nesterov momentum:
/// [`torch.optim.NAdam`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/optim/nadam.py#L281).
///
/// ```text
/// mu         = beta1 * (1 - 0.96^(t * momentum_decay) / 2)       (mu_next: of t + 1; mu_product: of all so far)
/// exp_avg    = exp_avg + (1 - beta1) * (grad - exp_avg)
/// exp_avg_sq = beta2 * exp_avg_sq + (1 - beta2) * grad²
/// denom      = √(exp_avg_sq / (1 - beta2ᵗ)) + eps
/// p          = p - lr * (1 - mu) / (1 - mu_product) * grad / denom
///                - lr * mu_next / (1 - mu_product * mu_next) * exp_avg / denom
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NAdam {
    /// The learning rate.
    pub lr: f64,
    /// How much of the averages of the gradient and of its square is kept.
    pub betas: (f64, f64),
    /// What is added to the denominator.
    pub eps: f64,
    /// The share of a parameter that is added to its gradient.
    pub weight_decay: f64,
    /// How fast the momentum grows to its value.
    pub momentum_decay: f64,
    /// Whether weight decay shrinks the parameter instead, as in AdamW.
    pub decoupled_weight_decay: bool,
    /// Whether to step up instead of down.
    pub maximize: bool,
}

impl Default for NAdam {
    fn default() -> NAdam {
        NAdam {
            lr: 2e-3,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.,
            momentum_decay: 4e-3,
            decoupled_weight_decay: false,
            maximize: false,
        }
    }
}

impl Options for NAdam {
    const NAME: &'static str = "NAdam";

    fn check(&self) -> Result<()> {
        require_like_adam(self.lr, self.betas, self.eps, self.weight_decay)?;
        require(self.momentum_decay >= 0., "Invalid momentum_decay value", self.momentum_decay)
    }

    fn lr(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.betas.0)
    }

    fn state(&self, p: &Tensor) -> Result<State> {
        let mut state = State::counting();
        state.set_number("mu_product", 1., Kind::Float);
        state.zeros("exp_avg", p)?.zeros("exp_avg_sq", p)
    }
}

impl Formula for NAdam {
    fn maximize(&self) -> bool {
        self.maximize
    }

    fn update(&self, p: &mut Tensor, grad: &Tensor, state: &mut State) -> Result<()> {
        let step = state.count()?;
        let (mut exp_avg, mut exp_avg_sq) = (state.tensor("exp_avg")?, state.tensor("exp_avg_sq")?);
        let (lr, (beta1, beta2)) = (self.lr, self.betas);
        let decay = (lr, self.weight_decay, self.decoupled_weight_decay);
        let grad = decayed_or_decoupled(grad, p, decay)?;
        let mu_of = |step: f64| beta1 * (1. - 0.5 * pow(0.96, step * self.momentum_decay));
        let (mu, mu_next) = (mu_of(step), mu_of(step + 1.));
        let (product, kind) = state.number("mu_product")?;
        let factor = if kind == Kind::Float { f64::from(mu as f32) } else { mu };
        state.set_number("mu_product", product * factor, kind);
        let product = state.number("mu_product")?.0;
        average(&mut exp_avg, &mut exp_avg_sq, &grad, self.betas)?;
        let mean = exp_avg_sq.f_div_scalar(1. - pow(beta2, step))?;
        let denom = { mean }.f_sqrt_()?.f_add_scalar_(self.eps)?;
        p.addcdiv_scaled_(&grad, &denom, -lr * (1. - mu) / (1. - product))?;
        Ok(p.addcdiv_scaled_(&exp_avg, &denom, (-lr * mu_next) / (1. - product * mu_next))?)
    }
}

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::formula::{Formula, Options, decayed, require, require_lr};
use super::state::State;
use crate::torch::Scaled;

/// The optimizer Adadelta, which is
/// [`torch.optim.Adadelta`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/optim/adadelta.py#L245).
///
/// ```text
/// square_avg = rho * square_avg + (1 - rho) * grad²
/// delta      = √(acc_delta + eps) / √(square_avg + eps) * grad
/// acc_delta  = rho * acc_delta + (1 - rho) * delta²
/// p          = p - lr * delta
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adadelta {
    /// The learning rate.
    pub lr: f64,
    /// How much of the averages of the squares is kept.
    pub rho: f64,
    /// What is added to the denominator.
    pub eps: f64,
    /// The share of a parameter that is added to its gradient.
    pub weight_decay: f64,
    /// Whether to step up instead of down.
    pub maximize: bool,
}

impl Default for Adadelta {
    fn default() -> Adadelta {
        Adadelta { lr: 1., rho: 0.9, eps: 1e-6, weight_decay: 0., maximize: false }
    }
}

impl Options for Adadelta {
    const NAME: &'static str = "Adadelta";

    fn check(&self) -> Result<()> {
        require_lr(self.lr)?;
        require((0. ..=1.).contains(&self.rho), "Invalid rho value", self.rho)?;
        require(self.eps >= 0., "Invalid epsilon value", self.eps)?;
        require(self.weight_decay >= 0., "Invalid weight_decay value", self.weight_decay)
    }

    fn lr(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn state(&self, p: &Tensor) -> Result<State> {
        State::counting().zeros("square_avg", p)?.zeros("acc_delta", p)
    }
}

impl Formula for Adadelta {
    fn maximize(&self) -> bool {
        self.maximize
    }

    fn update(&self, p: &mut Tensor, grad: &Tensor, state: &mut State) -> Result<()> {
        let _ = state.count()?;
        let (mut square_avg, mut acc_delta) =
            (state.tensor("square_avg")?, state.tensor("acc_delta")?);
        let grad = decayed(grad, p, self.weight_decay)?;
        square_avg.scale_(self.rho)?;
        square_avg.addcmul_scaled_(&grad, &grad, 1. - self.rho)?;
        let std = square_avg.f_add_scalar(self.eps)?.f_sqrt_()?;
        let delta = acc_delta.f_add_scalar(self.eps)?.f_sqrt_()?.f_div_(&std)?.f_mul_(&grad)?;
        acc_delta.scale_(self.rho)?;
        acc_delta.addcmul_scaled_(&delta, &delta, 1. - self.rho)?;
        Ok(p.add_scaled_(&delta, -self.lr)?)
    }
}

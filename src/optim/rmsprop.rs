use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::formula::{Formula, Options, decayed, require, require_lr};
use super::state::State;
use crate::torch::Scaled;

/// The optimizer RMSprop, which is
/// [`torch.optim.RMSprop`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/optim/rmsprop.py#L265).
///
/// ```text
/// square_avg = alpha * square_avg + (1 - alpha) * grad²
/// avg        = √square_avg + eps                (centered: √(square_avg - grad_avg²) + eps)
/// buf        = momentum * buf + grad / avg
/// p          = p - lr * buf                     (without momentum: p - lr * grad / avg)
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RMSprop {
    /// The learning rate.
    pub lr: f64,
    /// How much of the average of the square is kept.
    pub alpha: f64,
    /// What is added to the denominator.
    pub eps: f64,
    /// The share of a parameter that is added to its gradient.
    pub weight_decay: f64,
    /// The share of the last step that is repeated.
    pub momentum: f64,
    /// Whether to divide by an estimate of the standard deviation.
    pub centered: bool,
    /// Whether to step up instead of down.
    pub maximize: bool,
}

impl Default for RMSprop {
    fn default() -> RMSprop {
        RMSprop {
            lr: 1e-2,
            alpha: 0.99,
            eps: 1e-8,
            weight_decay: 0.,
            momentum: 0.,
            centered: false,
            maximize: false,
        }
    }
}

impl Options for RMSprop {
    const NAME: &'static str = "RMSprop";

    fn check(&self) -> Result<()> {
        require_lr(self.lr)?;
        require(self.eps >= 0., "Invalid epsilon value", self.eps)?;
        require(self.momentum >= 0., "Invalid momentum value", self.momentum)?;
        require(self.weight_decay >= 0., "Invalid weight_decay value", self.weight_decay)?;
        require(self.alpha >= 0., "Invalid alpha value", self.alpha)
    }

    fn lr(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.momentum)
    }

    fn state(&self, p: &Tensor) -> Result<State> {
        let mut state = State::counting().zeros("square_avg", p)?;
        if self.momentum > 0. {
            state = state.zeros("momentum_buffer", p)?;
        }
        if self.centered { state.zeros("grad_avg", p) } else { Ok(state) }
    }
}

impl Formula for RMSprop {
    fn maximize(&self) -> bool {
        self.maximize
    }

    fn update(&self, p: &mut Tensor, grad: &Tensor, state: &mut State) -> Result<()> {
        let _ = state.count()?;
        let mut square_avg = state.tensor("square_avg")?;
        let grad = decayed(grad, p, self.weight_decay)?;
        square_avg.scale_(self.alpha)?;
        square_avg.addcmul_scaled_(&grad, &grad, 1. - self.alpha)?;
        let root = if self.centered {
            let mut grad_avg = state.tensor("grad_avg")?;
            let _ = grad_avg.f_lerp_(&grad, 1. - self.alpha)?;
            square_avg.addcmul_scaled(&grad_avg, &grad_avg, -1.)?.f_sqrt_()?
        } else {
            square_avg.f_sqrt()?
        };
        let avg = { root }.f_add_scalar_(self.eps)?;
        if self.momentum > 0. {
            let mut buf = state.tensor("momentum_buffer")?;
            buf.scale_(self.momentum)?.addcdiv_scaled_(&grad, &avg, 1.)?;
            Ok(p.add_scaled_(&buf, -self.lr)?)
        } else {
            Ok(p.addcdiv_scaled_(&grad, &avg, -self.lr)?)
        }
    }
}

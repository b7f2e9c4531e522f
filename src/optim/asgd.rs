use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::formula::{Formula, Options, decayed, require, require_lr};
use super::python::{div, max, pow};
use super::state::State;
use crate::torch::Scaled;

/// Averaged stochastic gradient descent:
/// [`torch.optim.ASGD`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/optim/asgd.py#L197).
///
/// ```text
/// p   = p * (1 - lambd * eta) - eta * grad
/// ax  = ax + mu * (p - ax)                       (ax = p while mu is 1)
/// eta = lr / (1 + lambd * lr * t)^alpha
/// mu  = 1 / max(1, t - t0)
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ASGD {
    /// The learning rate.
    pub lr: f64,
    /// How fast parameters and step sizes fall.
    pub lambd: f64,
    /// The power with which step sizes fall.
    pub alpha: f64,
    /// The step from which on parameters are averaged.
    pub t0: f64,
    /// The share of a parameter that is added to its gradient.
    pub weight_decay: f64,
    /// Whether to step up instead of down.
    pub maximize: bool,
}

impl Default for ASGD {
    fn default() -> ASGD {
        ASGD { lr: 1e-2, lambd: 1e-4, alpha: 0.75, t0: 1e6, weight_decay: 0., maximize: false }
    }
}

impl Options for ASGD {
    const NAME: &'static str = "ASGD";

    fn check(&self) -> Result<()> {
        require_lr(self.lr)?;
        require(self.weight_decay >= 0., "Invalid weight_decay value", self.weight_decay)
    }

    fn lr(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn state(&self, p: &Tensor) -> Result<State> {
        let mut state = State::counting();
        state.set_number("eta", self.lr, Kind::Float);
        state.set_number("mu", 1., Kind::Float);
        state.zeros("ax", p)
    }
}

impl Formula for ASGD {
    fn maximize(&self) -> bool {
        self.maximize
    }

    fn update(&self, p: &mut Tensor, grad: &Tensor, state: &mut State) -> Result<()> {
        let step = state.count()?;
        let ((eta, kind), (mu, _)) = (state.number("eta")?, state.number("mu")?);
        let mut ax = state.tensor("ax")?;
        let grad = decayed(grad, p, self.weight_decay)?;
        p.scale_(1. - self.lambd * eta)?;
        p.add_scaled_(&grad, -eta)?;
        if mu == 1. {
            ax.f_copy_(p)?;
        } else {
            let _ = ax.f_add_(p.f_sub(&ax)?.scale_(mu)?)?;
        }
        let eta = div(self.lr, pow(1. + self.lambd * self.lr * step, self.alpha))?;
        state.set_number("eta", eta, kind);
        state.set_number("mu", 1. / max(1., step - self.t0), kind);
        Ok(())
    }
}

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::formula::{Formula, Options, decayed, require};
use super::state::State;
use crate::torch::Scaled;

/// Stochastic gradient descent, with momentum:
/// [`torch.optim.SGD`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/optim/sgd.py#L322).
///
/// ```text
/// buf = momentum * buf + (1 - dampening) * grad        (the first buf is grad)
/// p   = p - lr * buf                                   (nesterov: p - lr * (grad + momentum * buf))
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SGD {
    /// The learning rate.
    pub lr: f64,
    /// The share of the last step that is repeated.
    pub momentum: f64,
    /// How much of the gradient does not enter the momentum.
    pub dampening: f64,
    /// The share of a parameter that is added to its gradient.
    pub weight_decay: f64,
    /// Whether to use Nesterov momentum.
    pub nesterov: bool,
    /// Whether to step up instead of down.
    pub maximize: bool,
}

impl Default for SGD {
    fn default() -> SGD {
        SGD {
            lr: 1e-3,
            momentum: 0.,
            dampening: 0.,
            weight_decay: 0.,
            nesterov: false,
            maximize: false,
        }
    }
}

impl Options for SGD {
    const NAME: &'static str = "SGD";
    const LATER: &'static [&'static str] = &["momentum_buffer"];

    fn check(&self) -> Result<()> {
        // Written so that NaN passes, as it does in Python.
        let negative = |value: f64| value < 0.;
        require(!negative(self.lr), "Invalid learning rate", self.lr)?;
        require(!negative(self.momentum), "Invalid momentum value", self.momentum)?;
        require(!negative(self.weight_decay), "Invalid weight_decay value", self.weight_decay)?;
        let refused = self.nesterov && (self.momentum <= 0. || self.dampening != 0.);
        ensure!(!refused, "Nesterov momentum requires a momentum and zero dampening");
        Ok(())
    }

    fn lr(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.momentum)
    }

    fn state(&self, _p: &Tensor) -> Result<State> {
        Ok(State::default())
    }
}

impl Formula for SGD {
    fn maximize(&self) -> bool {
        self.maximize
    }

    fn check_gradient(&self, _grad: &Tensor) -> Result<()> {
        Ok(())
    }

    fn update(&self, p: &mut Tensor, grad: &Tensor, state: &mut State) -> Result<()> {
        let mut grad = decayed(grad, p, self.weight_decay)?;
        if self.momentum != 0. {
            let buf = match state.get("momentum_buffer") {
                Some(mut buf) => {
                    buf.scale_(self.momentum)?;
                    buf.add_scaled_(&grad, 1. - self.dampening)?;
                    buf
                }
                None => {
                    let buf = grad.f_detach_copy()?;
                    state.set("momentum_buffer", buf.shallow_clone());
                    buf
                }
            };
            grad = if self.nesterov { grad.add_scaled(&buf, self.momentum)? } else { buf };
        }
        Ok(p.add_scaled_(&grad, -self.lr)?)
    }
}

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::adam::Adam;
use super::formula::{Formula, Options};
use super::state::State;

/// The optimizer AdamW, which is
/// [`torch.optim.AdamW`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/optim/adamw.py#L20), which is
/// [`Adam`] whose weight decay shrinks the parameter before the step: `p = p * (1 - lr * weight_decay)`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdamW {
    /// The learning rate.
    pub lr: f64,
    /// How much of the averages of the gradient and of its square is kept.
    pub betas: (f64, f64),
    /// What is added to the denominator.
    pub eps: f64,
    /// The share, times the learning rate, by which a parameter shrinks.
    pub weight_decay: f64,
    /// Whether to divide by the largest average of the square so far.
    pub amsgrad: bool,
    /// Whether to step up instead of down.
    pub maximize: bool,
}

impl Default for AdamW {
    fn default() -> AdamW {
        let Adam { lr, betas, eps, amsgrad, maximize, .. } = Adam::default();
        AdamW { lr, betas, eps, weight_decay: 1e-2, amsgrad, maximize }
    }
}

impl AdamW {
    fn as_adam(&self) -> Adam {
        let AdamW { lr, betas, eps, weight_decay, amsgrad, maximize } = *self;
        Adam { lr, betas, eps, weight_decay, amsgrad, maximize, decoupled_weight_decay: true }
    }
}

impl Options for AdamW {
    const NAME: &'static str = "AdamW";

    fn check(&self) -> Result<()> {
        self.as_adam().check()
    }

    fn lr(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.betas.0)
    }

    fn state(&self, p: &Tensor) -> Result<State> {
        self.as_adam().state(p)
    }
}

impl Formula for AdamW {
    fn maximize(&self) -> bool {
        self.maximize
    }

    fn check_gradient(&self, grad: &Tensor) -> Result<()> {
        self.as_adam().check_gradient(grad)
    }

    fn update(&self, p: &mut Tensor, grad: &Tensor, state: &mut State) -> Result<()> {
        self.as_adam().update(p, grad, state)
    }
}

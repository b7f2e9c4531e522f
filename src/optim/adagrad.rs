use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::formula::{Formula, Options, decayed, require, require_lr};
use super::sparse::Sparse;
use super::state::State;
use crate::torch::Scaled;

/// Adagrad, for dense and for sparse gradients:
/// [`torch.optim.Adagrad`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/optim/adagrad.py#L364).
///
/// ```text
/// sum = sum + grad²
/// p   = p - lr / (1 + (t - 1) * lr_decay) * grad / (√sum + eps)
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Adagrad {
    /// The learning rate.
    pub lr: f64,
    /// How fast the learning rate falls.
    pub lr_decay: f64,
    /// The share of a parameter that is added to its gradient.
    pub weight_decay: f64,
    /// What `sum` begins with.
    pub initial_accumulator_value: f64,
    /// What is added to the denominator.
    pub eps: f64,
    /// Whether to step up instead of down.
    pub maximize: bool,
}

impl Default for Adagrad {
    fn default() -> Adagrad {
        Adagrad {
            lr: 1e-2,
            lr_decay: 0.,
            weight_decay: 0.,
            initial_accumulator_value: 0.,
            eps: 1e-10,
            maximize: false,
        }
    }
}

impl Options for Adagrad {
    const NAME: &'static str = "Adagrad";
    const EARLY: bool = true;

    fn check(&self) -> Result<()> {
        require_lr(self.lr)?;
        require(self.lr_decay >= 0., "Invalid lr_decay value", self.lr_decay)?;
        require(self.weight_decay >= 0., "Invalid weight_decay value", self.weight_decay)?;
        let initial = self.initial_accumulator_value;
        require(initial >= 0., "Invalid initial_accumulator_value value", initial)?;
        require(self.eps >= 0., "Invalid epsilon value", self.eps)
    }

    fn lr(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn state(&self, p: &Tensor) -> Result<State> {
        let mut state = State::counting();
        state.set("sum", p.f_full_like(self.initial_accumulator_value)?);
        Ok(state)
    }
}

impl Formula for Adagrad {
    fn maximize(&self) -> bool {
        self.maximize
    }

    fn check_gradient(&self, _grad: &Tensor) -> Result<()> {
        Ok(())
    }

    fn update(&self, p: &mut Tensor, grad: &Tensor, state: &mut State) -> Result<()> {
        let step = state.count()?;
        let mut sum = state.tensor("sum")?;
        let clr = self.lr / (1. + (step - 1.) * self.lr_decay);
        if grad.is_sparse() {
            let refused = self.weight_decay != 0.;
            ensure!(!refused, "weight_decay option is not compatible with sparse gradients");
            let grad = Sparse::new(grad)?;
            let _ = sum.f_add_(&grad.with(&grad.values.f_pow_tensor_scalar(2)?)?)?;
            let std = grad.of(&sum)?.f_sqrt_()?.f_add_scalar_(self.eps)?;
            return Ok(p.add_scaled_(&grad.with(&grad.values.f_div(&std)?)?, -clr)?);
        }
        let grad = decayed(grad, p, self.weight_decay)?;
        sum.addcmul_scaled_(&grad, &grad, 1.)?;
        let std = sum.f_sqrt()?.f_add_scalar_(self.eps)?;
        Ok(p.addcdiv_scaled_(&grad, &std, -clr)?)
    }
}

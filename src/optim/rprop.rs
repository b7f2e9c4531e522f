use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tch::Tensor;

use super::formula::{Formula, Options, require_lr};
use super::state::State;
use crate::repr::repr_float;
use crate::torch::Scaled;

/// Resilient backpropagation:
/// [`torch.optim.Rprop`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/optim/rprop.py#L223).
///
/// ```text
/// step_size = step_size * (etaplus where grad * prev > 0, etaminus where it is < 0), within step_sizes
/// grad      = 0 where grad * prev < 0
/// p         = p - sign(grad) * step_size
/// prev      = grad
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rprop {
    /// The learning rate.
    pub lr: f64,
    /// The factors of a step size after the sign changed, and after it did not.
    pub etas: (f64, f64),
    /// The smallest and the largest step size.
    pub step_sizes: (f64, f64),
    /// Whether to step up instead of down.
    pub maximize: bool,
}

impl Default for Rprop {
    fn default() -> Rprop {
        Rprop { lr: 1e-2, etas: (0.5, 1.2), step_sizes: (1e-6, 50.), maximize: false }
    }
}

impl Options for Rprop {
    const NAME: &'static str = "Rprop";

    fn check(&self) -> Result<()> {
        require_lr(self.lr)?;
        let (minus, plus) = self.etas;
        let (shown_minus, shown_plus) = (repr_float(minus), repr_float(plus));
        ensure!(
            0. < minus && minus < 1. && 1. < plus,
            "Invalid eta values: {shown_minus}, {shown_plus}"
        );
        Ok(())
    }

    fn lr(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn state(&self, p: &Tensor) -> Result<State> {
        let mut state = State::counting().zeros("prev", p)?;
        state.set("step_size", p.f_full_like(self.lr)?);
        Ok(state)
    }
}

impl Formula for Rprop {
    fn maximize(&self) -> bool {
        self.maximize
    }

    fn update(&self, p: &mut Tensor, grad: &Tensor, state: &mut State) -> Result<()> {
        let _ = state.count()?;
        let (mut prev, mut step_size) = (state.tensor("prev")?, state.tensor("step_size")?);
        let (etaminus, etaplus) = self.etas;
        let mut sign = grad.f_mul(&prev)?.f_sign_()?;
        let _ = sign.f_masked_fill_(&sign.f_gt(0.)?, etaplus)?;
        let _ = sign.f_masked_fill_(&sign.f_lt(0.)?, etaminus)?;
        let _ = sign.f_masked_fill_(&sign.f_eq(0.)?, 1.)?;
        let _ = step_size.f_mul_(&sign)?.f_clamp_(self.step_sizes.0, self.step_sizes.1)?;
        prev.f_copy_(grad)?;
        let _ = prev.f_masked_fill_(&sign.f_eq(etaminus)?, 0.)?;
        Ok(p.addcmul_scaled_(&prev.f_sign()?, &step_size, -1.)?)
    }
}

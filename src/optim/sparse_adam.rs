use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::formula::{Formula, Options, require, require_betas};
use super::python::pow;
use super::sparse::Sparse;
use super::state::State;
use crate::torch::Scaled;

/// Adam that steps only those elements of which a sparse gradient has values:
/// [`torch.optim.SparseAdam`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/optim/_functional.py#L25).
///
/// The formula is that of [`Adam`](super::Adam), but `eps` is added before the bias is corrected:
///
/// ```text
/// p = p - lr * √(1 - beta2ᵗ) / (1 - beta1ᵗ) * exp_avg / (√exp_avg_sq + eps)
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SparseAdam {
    /// The learning rate.
    pub lr: f64,
    /// How much of the averages of the gradient and of its square is kept.
    pub betas: (f64, f64),
    /// What is added to the denominator.
    pub eps: f64,
    /// Whether to step up instead of down.
    pub maximize: bool,
}

impl Default for SparseAdam {
    fn default() -> SparseAdam {
        SparseAdam { lr: 1e-3, betas: (0.9, 0.999), eps: 1e-8, maximize: false }
    }
}

impl Options for SparseAdam {
    const NAME: &'static str = "SparseAdam";

    fn check(&self) -> Result<()> {
        require(self.lr > 0., "Invalid learning rate", self.lr)?;
        require(self.eps > 0., "Invalid epsilon value", self.eps)?;
        require_betas(self.betas)
    }

    fn check_parameter(&self, p: &Tensor) -> Result<()> {
        ensure!(!p.is_sparse(), "SparseAdam requires dense parameter tensors");
        Ok(())
    }

    fn lr(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.betas.0)
    }

    fn state(&self, p: &Tensor) -> Result<State> {
        let mut state = State::default();
        state.set_number("step", 0., Kind::Int64);
        state.zeros("exp_avg", p)?.zeros("exp_avg_sq", p)
    }
}

impl Formula for SparseAdam {
    fn maximize(&self) -> bool {
        self.maximize
    }

    fn check_gradient(&self, grad: &Tensor) -> Result<()> {
        ensure!(
            grad.is_sparse(),
            "SparseAdam does not support dense gradients, please consider Adam instead"
        );
        Ok(())
    }

    fn update(&self, p: &mut Tensor, grad: &Tensor, state: &mut State) -> Result<()> {
        let step = state.count()?;
        let (mut exp_avg, mut exp_avg_sq) = (state.tensor("exp_avg")?, state.tensor("exp_avg_sq")?);
        let (beta1, beta2) = self.betas;
        let grad = Sparse::new(grad)?;
        if grad.values.numel() == 0 {
            return Ok(());
        }
        let old = grad.of(&exp_avg)?;
        let mut numer = grad.values.f_sub(&old)?;
        numer.scale_(1. - beta1)?;
        let _ = exp_avg.f_add_(&grad.with(&numer)?)?;
        let old_sq = grad.of(&exp_avg_sq)?;
        let square = grad.values.f_pow_tensor_scalar(2)?;
        let mut change = { square }.f_sub_(&old_sq)?;
        change.scale_(1. - beta2)?;
        let _ = exp_avg_sq.f_add_(&grad.with(&change)?)?;
        let _ = numer.f_add_(&old)?;
        let denom = change.f_add_(&old_sq)?.f_sqrt_()?.f_add_scalar_(self.eps)?;
        let step_size = self.lr * (1. - pow(beta2, step)).sqrt() / (1. - pow(beta1, step));
        numer.f_div_(&denom)?.scale_(-step_size)?;
        let _ = p.f_add_(&grad.with(&numer)?)?;
        Ok(())
    }
}

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use super::formula::{Formula, Options, require};
use super::python::{div, max};
use super::state::State;
use crate::torch::Scaled;

/// Muon, for matrices:
/// [`torch.optim.Muon`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/optim/_muon.py#L290).
///
/// ```text
/// buf    = buf + (1 - momentum) * (grad - buf)
/// update = grad + momentum * (buf - grad)                (buf, if not nesterov)
/// x      = update / max(‖update‖, eps), in bfloat16, so that it has no more rows than columns
/// x      = a x + (b g + c g²) x, where g = x xᵀ, ns_steps times
/// p      = p * (1 - lr * weight_decay) - lr * √max(1, rows / columns) * x
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Muon {
    /// The learning rate.
    pub lr: f64,
    /// The share, times the learning rate, by which a parameter shrinks.
    pub weight_decay: f64,
    /// How much of the average of the gradient is kept.
    pub momentum: f64,
    /// Whether to use Nesterov momentum.
    pub nesterov: bool,
    /// The coefficients `(a, b, c)` of the iteration.
    pub ns_coefficients: (f64, f64, f64),
    /// The smallest norm that is divided by.
    pub eps: f64,
    /// The number of iterations.
    pub ns_steps: u32,
    /// How the learning rate depends on the shape; `None` is [`AdjustLr::Original`].
    pub adjust_lr_fn: Option<AdjustLr>,
}

impl Default for Muon {
    fn default() -> Muon {
        Muon {
            lr: 1e-3,
            weight_decay: 0.1,
            momentum: 0.95,
            nesterov: true,
            ns_coefficients: (3.4445, -4.7750, 2.0315),
            eps: 1e-7,
            ns_steps: 5,
            adjust_lr_fn: None,
        }
    }
}

impl Options for Muon {
    const NAME: &'static str = "Muon";

    fn check(&self) -> Result<()> {
        require(self.lr >= 0., "Learning rate should be >= 0 but is", self.lr)?;
        require(self.momentum >= 0., "momentum should be >= 0 but is", self.momentum)?;
        require(self.weight_decay >= 0., "weight decay should be >= 0 but is", self.weight_decay)
    }

    fn check_parameter(&self, p: &Tensor) -> Result<()> {
        ensure!(
            p.dim() == 2,
            "Muon only supports 2D parameters whereas we found a parameter with size: torch.Size({:?})",
            p.size()
        );
        Ok(())
    }

    fn lr(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn momentum(&mut self) -> Option<&mut f64> {
        Some(&mut self.momentum)
    }

    fn state(&self, p: &Tensor) -> Result<State> {
        State::default().zeros("momentum_buffer", p)
    }
}

impl Formula for Muon {
    fn maximize(&self) -> bool {
        false
    }

    fn update(&self, p: &mut Tensor, grad: &Tensor, state: &mut State) -> Result<()> {
        ensure!(
            self.ns_steps < 100,
            "Number of steps must be less than 100 for computational efficiency"
        );
        let mut buf = state.tensor("momentum_buffer")?;
        let _ = buf.f_lerp_(grad, 1. - self.momentum)?;
        let update = if self.nesterov { grad.f_lerp(&buf, self.momentum)? } else { buf };
        let update = self.orthogonal(&update)?;
        let (rows, columns) = p.size2()?;
        let (rows, columns) = (rows as f64, columns as f64);
        let ratio = match self.adjust_lr_fn.unwrap_or(AdjustLr::Original) {
            AdjustLr::Original => max(1., div(rows, columns)?).sqrt(),
            AdjustLr::MatchRmsAdamW => 0.2 * max(rows, columns).sqrt(),
        };
        p.scale_(1. - self.lr * self.weight_decay)?;
        Ok(p.add_scaled_(&update, -(self.lr * ratio))?)
    }
}

/// How [`Muon`] adjusts the learning rate to the shape of a matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AdjustLr {
    /// `"original"`: times `√max(1, rows / columns)`.
    #[serde(rename = "original")]
    Original,
    /// `"match_rms_adamw"`: times `0.2 √max(rows, columns)`, which steps about as far as AdamW.
    #[serde(rename = "match_rms_adamw")]
    MatchRmsAdamW,
}

impl Muon {
    /// Brings the singular values of a matrix near 1, by an iteration of Newton and Schulz.
    fn orthogonal(&self, update: &Tensor) -> Result<Tensor> {
        let (a, b, c) = self.ns_coefficients;
        let (rows, columns) = update.size2()?;
        let turned = |x: Tensor| if rows > columns { x.f_transpose(0, 1) } else { Ok(x) };
        let mut x = turned(update.f_totype(Kind::BFloat16)?)?;
        let norm = x.f_norm_scalaropt_dim(2., [0, 1], false)?;
        let _ = x.f_div_(&{ norm }.f_clamp_min_(self.eps)?)?;
        for _ in 0..self.ns_steps {
            let gram = x.f_matmul(&x.f_transpose(0, 1)?)?;
            let gram = gram.addmm_scaled(&gram, &gram, b, c)?;
            x = x.addmm_scaled(&gram, &x, a, 1.)?;
        }
        Ok(turned(x)?)
    }
}

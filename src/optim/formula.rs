//! What one optimizer adds to what all of them share: its arguments, its state and its formula.

use std::fmt::Debug;

use anyhow::{Context, Result, bail, ensure};
use tch::Tensor;

use super::state::State;
use crate::repr::repr_float;
use crate::torch::Scaled;

/// The arguments of an optimizer, under PyTorch's names. Each group of parameters has its own.
pub trait Options: Clone + Debug {
    /// The name of the optimizer in PyTorch.
    const NAME: &'static str;

    /// The names of the state that is not there from the first step on.
    const LATER: &'static [&'static str] = &[];

    /// Whether the state is made with the optimizer, and not at the first step.
    const EARLY: bool = false;

    /// Checks the arguments.
    ///
    /// # Errors
    /// Returns PyTorch's error, in its words, if PyTorch refuses the arguments.
    fn check(&self) -> Result<()>;

    /// Checks that a parameter can be optimized.
    ///
    /// # Errors
    /// Returns PyTorch's error, in its words, if PyTorch refuses the parameter.
    fn check_parameter(&self, _p: &Tensor) -> Result<()> {
        Ok(())
    }

    /// Returns the learning rate, which schedules set.
    fn lr(&mut self) -> &mut f64;

    /// Returns what cyclic schedules call the momentum: `momentum` or the first of `betas`.
    fn momentum(&mut self) -> Option<&mut f64> {
        None
    }

    /// Returns the state that a parameter has before its first step.
    ///
    /// # Errors
    /// Returns libtorch's errors.
    fn state(&self, p: &Tensor) -> Result<State>;

    /// Returns the state that was recorded of a parameter.
    ///
    /// # Errors
    /// Returns an error if a name is missing or unknown, or of another shape or dtype than `p` asks for.
    fn restored(&self, recorded: &[(String, Tensor)], p: &Tensor) -> Result<State> {
        let mut state = self.state(p)?;
        let fresh = state.names().map(str::to_owned).collect::<Vec<_>>();
        for name in &fresh {
            ensure!(recorded.iter().any(|(there, _)| there == name), "{name} is missing");
        }
        for (name, value) in recorded {
            let like = match fresh.contains(name) {
                true => state.get(name).with_context(|| name.clone())?,
                false if Self::LATER.contains(&name.as_str()) => p.shallow_clone(),
                false => bail!("{} has no state {name}", Self::NAME),
            };
            state.load(name, value, &like)?;
        }
        Ok(state)
    }
}

/// An optimizer that steps one parameter after the other.
pub trait Formula: Options {
    /// Returns the arguments as they hold for a group whose first parameter with a gradient is `first`.
    ///
    /// # Errors
    /// Returns libtorch's errors.
    fn in_group(&self, _first: &Tensor) -> Result<Self> {
        Ok(self.clone())
    }

    /// Returns whether the gradient is negated first.
    fn maximize(&self) -> bool;

    /// Checks a gradient.
    ///
    /// # Errors
    /// Returns PyTorch's error, in its words, if the optimizer does not take such a gradient.
    fn check_gradient(&self, grad: &Tensor) -> Result<()> {
        ensure!(!grad.is_sparse(), "{} does not support sparse gradients", Self::NAME);
        Ok(())
    }

    /// Steps the parameter `p`. `grad` is negated already, if it has to be.
    ///
    /// # Errors
    /// Returns libtorch's errors.
    fn update(&self, p: &mut Tensor, grad: &Tensor, state: &mut State) -> Result<()>;
}

/// Adds weight decay to a gradient: `grad + weight_decay * p`.
pub(super) fn decayed(grad: &Tensor, p: &Tensor, weight_decay: f64) -> Result<Tensor> {
    match weight_decay != 0. {
        true => Ok(grad.add_scaled(p, weight_decay)?),
        false => Ok(grad.shallow_clone()),
    }
}

/// Applies weight decay as Adam's family does: the parameter shrinks if it is decoupled, else the gradient grows.
/// Returns the gradient.
pub(super) fn decayed_or_decoupled(
    grad: &Tensor,
    p: &mut Tensor,
    (lr, weight_decay, decoupled): (f64, f64, bool),
) -> Result<Tensor> {
    if weight_decay != 0. && decoupled {
        p.scale_(1. - lr * weight_decay)?;
        return Ok(grad.shallow_clone());
    }
    decayed(grad, p, weight_decay)
}

/// Takes a gradient into Adam's two moving averages, in place: `exp_avg` and `exp_avg_sq`.
pub(super) fn average(
    exp_avg: &mut Tensor,
    exp_avg_sq: &mut Tensor,
    grad: &Tensor,
    (beta1, beta2): (f64, f64),
) -> Result<()> {
    let _ = exp_avg.f_lerp_(grad, 1. - beta1)?;
    exp_avg_sq.scale_(beta2)?;
    Ok(exp_avg_sq.addcmul_scaled_(grad, grad, 1. - beta2)?)
}

/// Refuses a value as `if not VALID: raise ValueError(f"{what}: {value}")` does.
pub(super) fn require(valid: bool, what: &str, value: f64) -> Result<()> {
    ensure!(valid, "{what}: {}", repr_float(value));
    Ok(())
}

/// Refuses a negative or NaN learning rate.
pub(super) fn require_lr(lr: f64) -> Result<()> {
    require(lr >= 0., "Invalid learning rate", lr)
}

/// Refuses what the optimizers that are like Adam refuse.
pub(super) fn require_like_adam(
    lr: f64,
    betas: (f64, f64),
    eps: f64,
    weight_decay: f64,
) -> Result<()> {
    require_lr(lr)?;
    require(eps >= 0., "Invalid epsilon value", eps)?;
    require_betas(betas)?;
    require(weight_decay >= 0., "Invalid weight_decay value", weight_decay)
}

/// Refuses betas that are not within [0, 1).
pub(super) fn require_betas(betas: (f64, f64)) -> Result<()> {
    require((0. ..1.).contains(&betas.0), "Invalid beta parameter at index 0", betas.0)?;
    require((0. ..1.).contains(&betas.1), "Invalid beta parameter at index 1", betas.1)
}

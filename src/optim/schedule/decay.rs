//! The schedules that multiply the learning rate.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::super::python::{div, min, pow};
use super::lambda::Lambda;
use super::{At, ParamGroups, Rule, Scheduler};

/// A schedule that multiplies the learning rate by `gamma` after each `step_size` steps:
/// [`StepLR`](https://docs.pytorch.org/docs/2.13/generated/torch.optim.lr_scheduler.StepLR.html).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StepLR {
    /// The number of steps from one change to the next.
    pub step_size: i64,
    /// The factor of the learning rate.
    pub gamma: f64,
}

impl Default for StepLR {
    fn default() -> StepLR {
        StepLR { step_size: 1, gamma: 0.1 }
    }
}

impl StepLR {
    pub(super) fn check(&self) -> Result<()> {
        ensure!(self.step_size != 0, "integer modulo by zero");
        Ok(())
    }
}

impl Rule for StepLR {
    fn lr(&self, at: At) -> Result<f64> {
        let change = at.epoch != 0 && at.epoch % self.step_size == 0;
        Ok(if change { at.lr * self.gamma } else { at.lr })
    }

    fn closed_form(&self, at: At) -> Result<f64> {
        Ok(at.base * pow(self.gamma, at.epoch.div_euclid(self.step_size) as f64))
    }
}

/// A schedule that multiplies the learning rate by `gamma` at given steps:
/// [`MultiStepLR`](https://docs.pytorch.org/docs/2.13/generated/torch.optim.lr_scheduler.MultiStepLR.html).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MultiStepLR {
    /// The steps. One that is named twice counts twice.
    pub milestones: Vec<i64>,
    /// The factor of the learning rate.
    pub gamma: f64,
}

impl Default for MultiStepLR {
    fn default() -> MultiStepLR {
        MultiStepLR { milestones: Vec::new(), gamma: 0.1 }
    }
}

impl MultiStepLR {
    pub(super) fn check(&self) -> Result<()> {
        Ok(())
    }

    fn count(&self, counted: impl Fn(i64) -> bool) -> f64 {
        self.milestones.iter().filter(|&&milestone| counted(milestone)).count() as f64
    }
}

impl Rule for MultiStepLR {
    fn lr(&self, at: At) -> Result<f64> {
        let times = self.count(|milestone| milestone == at.epoch);
        Ok(if times > 0. { at.lr * pow(self.gamma, times) } else { at.lr })
    }

    fn closed_form(&self, at: At) -> Result<f64> {
        Ok(at.base * pow(self.gamma, self.count(|milestone| milestone <= at.epoch)))
    }
}

/// A schedule that multiplies the learning rate by `factor` for its first `total_iters` steps:
/// [`ConstantLR`](https://docs.pytorch.org/docs/2.13/generated/torch.optim.lr_scheduler.ConstantLR.html).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConstantLR {
    /// The factor of the learning rate.
    pub factor: f64,
    /// The number of steps.
    pub total_iters: i64,
}

impl Default for ConstantLR {
    fn default() -> ConstantLR {
        ConstantLR { factor: 1. / 3., total_iters: 5 }
    }
}

impl ConstantLR {
    pub(super) fn check(&self) -> Result<()> {
        let refused = self.factor > 1. || self.factor < 0.;
        ensure!(!refused, "Constant multiplicative factor expected to be between 0 and 1.");
        Ok(())
    }
}

impl Rule for ConstantLR {
    fn lr(&self, at: At) -> Result<f64> {
        match at.epoch {
            0 => Ok(at.lr * self.factor),
            epoch if epoch == self.total_iters => Ok(at.lr * div(1., self.factor)?),
            _ => Ok(at.lr),
        }
    }

    fn closed_form(&self, at: At) -> Result<f64> {
        let over = f64::from(u8::from(at.epoch >= self.total_iters));
        Ok(at.base * (self.factor + over * (1. - self.factor)))
    }
}

/// A schedule whose factor goes from `start_factor` to `end_factor` in equal steps:
/// [`LinearLR`](https://docs.pytorch.org/docs/2.13/generated/torch.optim.lr_scheduler.LinearLR.html).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinearLR {
    /// The factor at the first step.
    pub start_factor: f64,
    /// The factor from step `total_iters` on.
    pub end_factor: f64,
    /// The number of steps.
    pub total_iters: i64,
}

impl Default for LinearLR {
    fn default() -> LinearLR {
        LinearLR { start_factor: 1. / 3., end_factor: 1., total_iters: 5 }
    }
}

impl LinearLR {
    pub(super) fn check(&self) -> Result<()> {
        ensure!(
            !(self.start_factor > 1. || self.start_factor <= 0.),
            "Starting multiplicative factor expected to be greater than 0 and less or equal to 1."
        );
        ensure!(
            !(self.end_factor > 1. || self.end_factor < 0.),
            "Ending multiplicative factor expected to be between 0 and 1."
        );
        Ok(())
    }
}

impl Rule for LinearLR {
    fn lr(&self, at: At) -> Result<f64> {
        if at.epoch == 0 {
            return Ok(at.lr * self.start_factor);
        }
        if at.initial || at.epoch > self.total_iters {
            return Ok(at.lr);
        }
        let way = self.end_factor - self.start_factor;
        let (total, before) = (self.total_iters as f64, (at.epoch - 1) as f64);
        Ok(at.lr * (1. + div(way, total * self.start_factor + before * way)?))
    }

    fn closed_form(&self, at: At) -> Result<f64> {
        let way = self.end_factor - self.start_factor;
        let epoch = self.total_iters.min(at.epoch) as f64;
        Ok(at.base * (self.start_factor + div(way * epoch, self.total_iters as f64)?))
    }
}

/// A schedule that multiplies the learning rate by `gamma` after each step:
/// [`ExponentialLR`](https://docs.pytorch.org/docs/2.13/generated/torch.optim.lr_scheduler.ExponentialLR.html).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExponentialLR {
    /// The factor of the learning rate.
    pub gamma: f64,
}

impl ExponentialLR {
    pub(super) fn check(&self) -> Result<()> {
        Ok(())
    }
}

impl Rule for ExponentialLR {
    fn lr(&self, at: At) -> Result<f64> {
        Ok(if at.initial { at.lr } else { at.lr * self.gamma })
    }

    fn closed_form(&self, at: At) -> Result<f64> {
        Ok(at.base * pow(self.gamma, at.epoch as f64))
    }
}

/// A schedule in which the learning rate falls to zero as a power of the steps that are left:
/// [`PolynomialLR`](https://docs.pytorch.org/docs/2.13/generated/torch.optim.lr_scheduler.PolynomialLR.html).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolynomialLR {
    /// The number of steps.
    pub total_iters: i64,
    /// The power of the share that is left.
    pub power: f64,
}

impl Default for PolynomialLR {
    fn default() -> PolynomialLR {
        PolynomialLR { total_iters: 5, power: 1. }
    }
}

impl PolynomialLR {
    pub(super) fn check(&self) -> Result<()> {
        Ok(())
    }
}

impl Rule for PolynomialLR {
    fn lr(&self, at: At) -> Result<f64> {
        if at.initial || at.epoch > self.total_iters {
            return Ok(at.lr);
        }
        let left = |epoch: i64| div(epoch as f64, self.total_iters as f64).map(|share| 1. - share);
        Ok(at.lr * pow(div(left(at.epoch)?, left(at.epoch - 1)?)?, self.power))
    }

    fn closed_form(&self, at: At) -> Result<f64> {
        let epoch = min(self.total_iters as f64, at.epoch as f64);
        Ok(at.base * pow(1. - div(epoch, self.total_iters as f64)?, self.power))
    }
}

/// A schedule that multiplies the learning rate by a function of the number of the step, given once for all groups or
/// once for each:
/// [`MultiplicativeLR`](https://docs.pytorch.org/docs/2.13/generated/torch.optim.lr_scheduler.MultiplicativeLR.html).
#[derive(Debug)]
pub struct MultiplicativeLR(Lambda);

impl MultiplicativeLR {
    /// Creates the schedule from one function for all groups.
    pub fn new(factor: impl Fn(i64) -> f64 + 'static) -> MultiplicativeLR {
        MultiplicativeLR(Lambda::all(factor))
    }

    /// Creates the schedule from a function for each group.
    pub fn per_group(factors: Vec<Box<dyn Fn(i64) -> f64>>) -> MultiplicativeLR {
        MultiplicativeLR(Lambda::each(factors))
    }

    /// Begins the schedule for an optimizer.
    ///
    /// # Errors
    /// Returns an error if there is not one function, nor one for each group.
    pub fn build(self, optimizer: &mut dyn ParamGroups) -> Result<Scheduler> {
        self.0.check(optimizer)?;
        Scheduler::begin(self, optimizer)
    }
}

impl Rule for MultiplicativeLR {
    fn lr(&self, at: At) -> Result<f64> {
        Ok(if at.initial { at.lr } else { at.lr * self.0.call(at) })
    }
}

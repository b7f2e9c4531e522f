//! The schedules along a cosine.

use std::f64::consts::PI;

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::super::python::div;
use super::{At, ParamGroups, Rule, Scheduler};

/// A schedule along a cosine, computed from the last rate:
/// [`CosineAnnealingLR`](https://docs.pytorch.org/docs/2.13/generated/torch.optim.lr_scheduler.CosineAnnealingLR.html).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CosineAnnealingLR {
    /// The number of steps from the largest rate to the smallest.
    #[serde(rename = "T_max")]
    pub t_max: i64,
    /// The smallest rate.
    #[serde(default)]
    pub eta_min: f64,
}

impl CosineAnnealingLR {
    pub(super) fn check(&self) -> Result<()> {
        ensure!(self.t_max != 0, "integer modulo by zero");
        Ok(())
    }
}

impl Rule for CosineAnnealingLR {
    fn lr(&self, at: At) -> Result<f64> {
        let (t_max, eta_min) = (self.t_max as f64, self.eta_min);
        if at.initial {
            return Ok(at.lr);
        }
        if (at.epoch - 1 - self.t_max) % (2 * self.t_max) == 0 {
            return Ok(at.lr + (at.base - eta_min) * (1. - (PI / t_max).cos()) / 2.);
        }
        let height = |epoch: i64| 1. + (PI * epoch as f64 / t_max).cos();
        Ok(div(height(at.epoch), height(at.epoch - 1))? * (at.lr - eta_min) + eta_min)
    }

    fn closed_form(&self, at: At) -> Result<f64> {
        let height = 1. + (PI * at.epoch as f64 / self.t_max as f64).cos();
        Ok(self.eta_min + (at.base - self.eta_min) * height / 2.)
    }
}

/// A schedule along a cosine that begins again and again:
/// [`CosineAnnealingWarmRestarts`](https://docs.pytorch.org/docs/2.13/generated/torch.optim.lr_scheduler.CosineAnnealingWarmRestarts.html).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CosineAnnealingWarmRestarts {
    /// The number of steps to the first restart.
    #[serde(rename = "T_0")]
    pub t_0: i64,
    /// The factor by which that number grows after each restart.
    #[serde(rename = "T_mult")]
    pub t_mult: i64,
    /// The smallest rate.
    #[serde(default)]
    pub eta_min: f64,
}

impl CosineAnnealingWarmRestarts {
    /// Begins the schedule for an optimizer.
    ///
    /// # Errors
    /// Returns PyTorch's error, in its words, if PyTorch refuses the arguments.
    pub fn build(self, optimizer: &mut dyn ParamGroups) -> Result<Scheduler> {
        ensure!(self.t_0 > 0, "Expected positive integer T_0, but got {}", self.t_0);
        ensure!(self.t_mult >= 1, "Expected integer T_mult >= 1, but got {}", self.t_mult);
        let rule = WarmRestarts { t_cur: -1, t_i: self.t_0, options: self };
        Scheduler::begin(rule, optimizer)
    }
}

#[derive(Debug)]
struct WarmRestarts {
    options: CosineAnnealingWarmRestarts,
    /// The number of steps since the last restart.
    t_cur: i64,
    /// The number of steps from the last restart to the next.
    t_i: i64,
}

impl Rule for WarmRestarts {
    fn lr(&self, at: At) -> Result<f64> {
        let eta_min = self.options.eta_min;
        let height = 1. + (PI * self.t_cur as f64 / self.t_i as f64).cos();
        Ok(eta_min + (at.base - eta_min) * height / 2.)
    }

    fn advance(&mut self, last_epoch: i64) -> i64 {
        if last_epoch < 0 {
            (self.t_cur, self.t_i) = (0, self.options.t_0);
            return 0;
        }
        self.t_cur += 1;
        if self.t_cur >= self.t_i {
            self.t_cur %= self.t_i;
            self.t_i = self.t_i.saturating_mul(self.options.t_mult);
        }
        last_epoch + 1
    }
}

//! The schedule that follows a metric.

use anyhow::{Result, ensure};
use serde::{Deserialize, Serialize};

use super::super::python::max;
use super::{ParamGroups, PerGroup, lrs};

/// Whether a metric of [`ReduceLROnPlateau`] is to fall or to rise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlateauMode {
    /// A smaller metric is better, as of a loss.
    Min,
    /// A larger metric is better.
    Max,
}

/// What the threshold of [`ReduceLROnPlateau`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ThresholdMode {
    /// A share of the best metric.
    Rel,
    /// A difference from the best metric.
    Abs,
}

/// A schedule that multiplies the learning rate by `factor` when a metric has not become better for `patience` steps:
/// [`ReduceLROnPlateau`](https://docs.pytorch.org/docs/2.13/generated/torch.optim.lr_scheduler.ReduceLROnPlateau.html).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReduceLROnPlateau {
    /// Whether the metric is to fall or to rise.
    pub mode: PlateauMode,
    /// The factor of the learning rate.
    pub factor: f64,
    /// The number of steps without a better metric that are allowed.
    pub patience: i64,
    /// How much better a metric has to be.
    pub threshold: f64,
    /// What the threshold is.
    pub threshold_mode: ThresholdMode,
    /// The number of steps after a change in which none is counted.
    pub cooldown: i64,
    /// The lowest rate.
    pub min_lr: PerGroup,
    /// The smallest change that is made.
    pub eps: f64,
}

impl Default for ReduceLROnPlateau {
    fn default() -> ReduceLROnPlateau {
        ReduceLROnPlateau {
            mode: PlateauMode::Min,
            factor: 0.1,
            patience: 10,
            threshold: 1e-4,
            threshold_mode: ThresholdMode::Rel,
            cooldown: 0,
            min_lr: 0.0.into(),
            eps: 1e-8,
        }
    }
}

impl ReduceLROnPlateau {
    /// Begins the schedule for an optimizer.
    ///
    /// # Errors
    /// Returns PyTorch's error, in its words, if PyTorch refuses the arguments.
    pub fn build(self, optimizer: &mut dyn ParamGroups) -> Result<ReduceLROnPlateauScheduler> {
        // Written so that NaN passes, as it does in Python.
        let refused = self.factor >= 1.;
        ensure!(!refused, "Factor should be < 1.0.");
        let n = optimizer.count();
        let min_lrs = match &self.min_lr {
            PerGroup::All(value) => vec![*value; n],
            PerGroup::Each(values) => {
                ensure!(values.len() == n, "expected {n} min_lrs, got {}", values.len());
                values.clone()
            }
        };
        let best = if self.mode == PlateauMode::Min { f64::INFINITY } else { f64::NEG_INFINITY };
        let last_lr = lrs(optimizer);
        let (cooldown, bad) = (0, 0);
        Ok(ReduceLROnPlateauScheduler { options: self, min_lrs, best, cooldown, bad, last_lr })
    }
}

/// A [`ReduceLROnPlateau`] that has begun. Call [`step`](Self::step) with the metric.
#[derive(Debug)]
pub struct ReduceLROnPlateauScheduler {
    options: ReduceLROnPlateau,
    min_lrs: Vec<f64>,
    best: f64,
    /// The number of steps for which none is counted.
    cooldown: i64,
    /// The number of steps without a better metric.
    bad: i64,
    last_lr: Vec<f64>,
}

impl ReduceLROnPlateauScheduler {
    /// Returns the learning rates after the last step, one for each group.
    pub fn get_last_lr(&self) -> &[f64] {
        &self.last_lr
    }

    /// Lowers the learning rates of `optimizer` if `metric` and those before it say so.
    ///
    /// # Errors
    /// Returns an error if the optimizer has another number of groups than when the schedule began.
    pub fn step(&mut self, metric: f64, optimizer: &mut dyn ParamGroups) -> Result<()> {
        let (known, there) = (self.min_lrs.len(), optimizer.count());
        ensure!(there == known, "a schedule of {known} groups, for an optimizer of {there}");
        if self.is_better(metric) {
            (self.best, self.bad) = (metric, 0);
        } else {
            self.bad += 1;
        }
        if self.cooldown > 0 {
            self.cooldown -= 1;
            self.bad = 0;
        }
        if self.bad > self.options.patience {
            for (group, &min_lr) in self.min_lrs.iter().enumerate() {
                let lr = optimizer.lr(group);
                let new = max(*lr * self.options.factor, min_lr);
                if *lr - new > self.options.eps {
                    *lr = new;
                }
            }
            (self.cooldown, self.bad) = (self.options.cooldown, 0);
        }
        self.last_lr = lrs(optimizer);
        Ok(())
    }

    fn is_better(&self, metric: f64) -> bool {
        let (best, threshold) = (self.best, self.options.threshold);
        match (self.options.mode, self.options.threshold_mode) {
            (PlateauMode::Min, ThresholdMode::Rel) => metric < best * (1. - threshold),
            (PlateauMode::Min, ThresholdMode::Abs) => metric < best - threshold,
            (PlateauMode::Max, ThresholdMode::Rel) => metric > best * (threshold + 1.),
            (PlateauMode::Max, ThresholdMode::Abs) => metric > best + threshold,
        }
    }
}

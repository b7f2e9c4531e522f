//! Schedules of the learning rate:
//! [`torch.optim.lr_scheduler`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/optim/lr_scheduler.py). Most of
//! them compute a rate from the last one, so that rounding errors add up as they do in Python.

mod composed;
mod cosine;
mod cycle;
mod decay;
mod lambda;
mod plateau;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::formula::Options;
use super::optimizer::Optimizer;
pub use composed::{ChainedScheduler, SequentialLR};
pub use cosine::{CosineAnnealingLR, CosineAnnealingWarmRestarts};
pub use cycle::{AnnealStrategy, CyclicLR, CyclicMode, OneCycleLR};
pub use decay::{
    ConstantLR, ExponentialLR, LinearLR, MultiStepLR, MultiplicativeLR, PolynomialLR, StepLR,
};
pub use lambda::LambdaLR;
pub use plateau::{PlateauMode, ReduceLROnPlateau, ReduceLROnPlateauScheduler, ThresholdMode};

/// The groups of an optimizer, as a schedule sees them.
pub trait ParamGroups {
    /// Returns the number of groups.
    fn count(&self) -> usize;

    /// Returns the learning rate of a group.
    fn lr(&mut self, group: usize) -> &mut f64;

    /// Returns the learning rate with which the first schedule of a group began.
    fn initial_lr(&mut self, group: usize) -> &mut Option<f64>;

    /// Returns the momentum of a group, or the first of its betas.
    fn momentum(&mut self, group: usize) -> Option<&mut f64>;
}

impl<O: Options> ParamGroups for Optimizer<O> {
    fn count(&self) -> usize {
        self.groups.len()
    }

    fn lr(&mut self, group: usize) -> &mut f64 {
        self.groups[group].options.lr()
    }

    fn initial_lr(&mut self, group: usize) -> &mut Option<f64> {
        &mut self.groups[group].initial_lr
    }

    fn momentum(&mut self, group: usize) -> Option<&mut f64> {
        self.groups[group].options.momentum()
    }
}

/// A number for all groups, or one for each.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PerGroup {
    /// The same number for all groups.
    All(f64),
    /// A number for each group.
    Each(Vec<f64>),
}

impl From<f64> for PerGroup {
    fn from(value: f64) -> PerGroup {
        PerGroup::All(value)
    }
}

impl From<Vec<f64>> for PerGroup {
    fn from(values: Vec<f64>) -> PerGroup {
        PerGroup::Each(values)
    }
}

impl PerGroup {
    fn values(&self, name: &str, groups: &dyn ParamGroups) -> Result<Vec<f64>> {
        let n = groups.count();
        match self {
            PerGroup::All(value) => Ok(vec![*value; n]),
            PerGroup::Each(values) => {
                let m = values.len();
                ensure!(
                    m == n,
                    "{name} must have the same length as optimizer.param_groups. {name} has {m} values, param_groups \
                     has {n}."
                );
                Ok(values.clone())
            }
        }
    }
}

/// Where a schedule is.
#[derive(Clone, Copy)]
struct At {
    /// The number of steps so far.
    epoch: i64,
    /// Whether the schedule is being built.
    initial: bool,
    group: usize,
    /// The learning rate of the group with which the schedule began.
    base: f64,
    /// The learning rate of the group now.
    lr: f64,
}

/// A schedule's own formula.
trait Rule: std::fmt::Debug {
    /// Returns the next learning rate of a group.
    fn lr(&self, at: At) -> Result<f64>;

    /// Returns the learning rate of a group without the last one, where PyTorch has such a formula. `SequentialLR`
    /// begins with it.
    fn closed_form(&self, at: At) -> Result<f64> {
        self.lr(at)
    }

    /// Returns the next momentum of a group, unless the schedule leaves it alone.
    fn momentum(&self, _at: At) -> Result<Option<f64>> {
        Ok(None)
    }

    /// Goes on to the next step, and returns its number.
    fn advance(&mut self, last_epoch: i64) -> i64 {
        last_epoch + 1
    }
}

/// A schedule that has begun. Call [`step`](Self::step) after the optimizer's.
#[derive(Debug)]
pub struct Scheduler {
    kind: Kind,
    base_lrs: Vec<f64>,
    last_epoch: i64,
    last_lr: Vec<f64>,
}

#[derive(Debug)]
enum Kind {
    Rule(Box<dyn Rule>),
    Sequential { schedulers: Vec<Scheduler>, milestones: Vec<i64> },
    Chained(Vec<Scheduler>),
}

impl Scheduler {
    /// Begins a schedule, as `LRScheduler.__init__` does.
    fn begin(rule: impl Rule + 'static, groups: &mut dyn ParamGroups) -> Result<Scheduler> {
        let mut base_lrs = lrs(groups);
        for (group, lr) in base_lrs.iter_mut().enumerate() {
            *lr = *groups.initial_lr(group).get_or_insert(*lr);
        }
        let kind = Kind::Rule(Box::new(rule));
        let mut scheduler = Scheduler { kind, base_lrs, last_epoch: -1, last_lr: Vec::new() };
        scheduler.initial_step(groups)?;
        Ok(scheduler)
    }

    /// Returns the learning rates that the last step set, one for each group.
    pub fn get_last_lr(&self) -> &[f64] {
        &self.last_lr
    }

    /// Sets the learning rate of each group of `optimizer` to that of the next step.
    ///
    /// # Errors
    /// Returns PyTorch's error, in its words, if it refuses this step, and an error if the optimizer has another
    /// number of groups than when the schedule began.
    pub fn step(&mut self, optimizer: &mut dyn ParamGroups) -> Result<()> {
        match &mut self.kind {
            Kind::Rule(rule) => {
                self.last_epoch = rule.advance(self.last_epoch);
                self.set(optimizer, false, false)
            }
            Kind::Sequential { schedulers, milestones } => {
                self.last_epoch += 1;
                let i = milestones.partition_point(|&milestone| milestone <= self.last_epoch);
                if i > 0 && milestones[i - 1] == self.last_epoch {
                    schedulers[i].restart(optimizer)?;
                } else {
                    schedulers[i].step(optimizer)?;
                }
                self.last_lr.clone_from(&schedulers[i].last_lr);
                Ok(())
            }
            Kind::Chained(schedulers) => {
                schedulers.iter_mut().try_for_each(|scheduler| scheduler.step(optimizer))?;
                self.last_lr = lrs(optimizer);
                Ok(())
            }
        }
    }

    /// Takes the step that building a schedule takes: `LRScheduler._initial_step`.
    fn initial_step(&mut self, groups: &mut dyn ParamGroups) -> Result<()> {
        match &mut self.kind {
            Kind::Rule(rule) => {
                self.last_epoch = rule.advance(self.last_epoch);
                self.set(groups, true, false)
            }
            _ => self.step(groups),
        }
    }

    /// Begins again at step 0: `LRScheduler._update_lr(0)`.
    fn restart(&mut self, groups: &mut dyn ParamGroups) -> Result<()> {
        let Kind::Rule(_) = self.kind else {
            bail!("PyTorch has a composed schedule in SequentialLR only as the first")
        };
        self.last_epoch = 0;
        self.set(groups, false, true)
    }

    /// Takes back the step that building a schedule took: `SequentialLR.recursive_undo`.
    fn undo(&mut self) {
        match &mut self.kind {
            Kind::Rule(_) => self.last_epoch -= 1,
            Kind::Sequential { schedulers, .. } | Kind::Chained(schedulers) => {
                schedulers.iter_mut().for_each(Scheduler::undo);
            }
        }
    }

    fn set(&mut self, groups: &mut dyn ParamGroups, initial: bool, closed: bool) -> Result<()> {
        let Kind::Rule(rule) = &self.kind else { return Ok(()) };
        let (there, known) = (groups.count(), self.base_lrs.len());
        ensure!(there == known, "a schedule of {known} groups, for an optimizer of {there}");
        let mut next = Vec::with_capacity(known);
        for (group, &base) in self.base_lrs.iter().enumerate() {
            let at = At { epoch: self.last_epoch, initial, group, base, lr: *groups.lr(group) };
            let lr = if closed { rule.closed_form(at)? } else { rule.lr(at)? };
            next.push((lr, rule.momentum(at)?));
        }
        for (group, (lr, momentum)) in next.into_iter().enumerate() {
            *groups.lr(group) = lr;
            if let (Some(value), Some(place)) = (momentum, groups.momentum(group)) {
                *place = value;
            }
        }
        self.last_lr = lrs(groups);
        Ok(())
    }
}

fn lrs(groups: &mut dyn ParamGroups) -> Vec<f64> {
    (0..groups.count()).map(|group| *groups.lr(group)).collect()
}

macro_rules! build {
    ($($schedule:ident)*) => {$(
        impl $schedule {
            /// Begins the schedule for an optimizer, whose learning rates it sets to those of the first step.
            ///
            /// # Errors
            /// Returns PyTorch's error, in its words, if PyTorch refuses the arguments.
            pub fn build(self, optimizer: &mut dyn ParamGroups) -> Result<Scheduler> {
                self.check()?;
                Scheduler::begin(self, optimizer)
            }
        }
    )*};
}

build! {
    StepLR MultiStepLR ConstantLR LinearLR ExponentialLR PolynomialLR CosineAnnealingLR
}

//! The schedules that raise the learning rate and lower it, with the momentum going the other way.

use std::f64::consts::PI;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::super::python::{div, pow};
use super::{At, ParamGroups, PerGroup, Rule, Scheduler};
use crate::repr::repr_float;

/// The momentum of each group, at its lowest and at its highest.
#[derive(Debug)]
struct Momentum {
    base: Vec<f64>,
    max: Vec<f64>,
}

impl Momentum {
    /// Sets the momentum of each group to its highest.
    fn begin(
        base: &PerGroup,
        max: &PerGroup,
        groups: &mut dyn ParamGroups,
    ) -> Result<Option<Momentum>> {
        let base = base.values("base_momentum", groups)?;
        let max = max.values("max_momentum", groups)?;
        for (group, &max) in max.iter().enumerate() {
            *groups.momentum(group).context(
                "optimizer must support momentum or beta1 with `cycle_momentum` option enabled",
            )? = max;
        }
        Ok(Some(Momentum { base, max }))
    }
}

/// How the height of the cycles of a [`CyclicLR`] changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CyclicMode {
    /// The height stays.
    Triangular,
    /// Each cycle is half as high as the last.
    Triangular2,
    /// The height is `gamma` to the power of the number of the step.
    ExpRange,
}

/// A schedule that goes from `base_lr` to `max_lr` and back, again and again:
/// [`CyclicLR`](https://docs.pytorch.org/docs/2.13/generated/torch.optim.lr_scheduler.CyclicLR.html).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CyclicLR {
    /// The lowest rate.
    pub base_lr: PerGroup,
    /// The highest rate.
    pub max_lr: PerGroup,
    /// The number of steps up.
    pub step_size_up: i64,
    /// The number of steps down; `None` is as many as up.
    pub step_size_down: Option<i64>,
    /// How the height of the cycles changes.
    pub mode: CyclicMode,
    /// The base of [`CyclicMode::ExpRange`].
    pub gamma: f64,
    /// Whether the momentum goes from `max_momentum` to `base_momentum` meanwhile.
    pub cycle_momentum: bool,
    /// The lowest momentum.
    pub base_momentum: PerGroup,
    /// The highest momentum.
    pub max_momentum: PerGroup,
}

impl Default for CyclicLR {
    /// Returns PyTorch's defaults. `base_lr` and `max_lr`, which have none there, are 0.
    fn default() -> CyclicLR {
        CyclicLR {
            base_lr: 0.0.into(),
            max_lr: 0.0.into(),
            step_size_up: 2000,
            step_size_down: None,
            mode: CyclicMode::Triangular,
            gamma: 1.,
            cycle_momentum: true,
            base_momentum: 0.8.into(),
            max_momentum: 0.9.into(),
        }
    }
}

impl CyclicLR {
    /// Begins the schedule for an optimizer, whose learning rates it sets to `base_lr`.
    ///
    /// # Errors
    /// Returns PyTorch's error, in its words, if PyTorch refuses the arguments.
    pub fn build(self, optimizer: &mut dyn ParamGroups) -> Result<Scheduler> {
        let base_lrs = self.base_lr.values("base_lr", optimizer)?;
        for (group, &lr) in base_lrs.iter().enumerate() {
            *optimizer.lr(group) = lr;
        }
        let max_lrs = self.max_lr.values("max_lr", optimizer)?;
        let up = self.step_size_up as f64;
        let total_size = up + self.step_size_down.map_or(up, |down| down as f64);
        let step_ratio = div(up, total_size)?;
        let momentum = match self.cycle_momentum {
            true => Momentum::begin(&self.base_momentum, &self.max_momentum, optimizer)?,
            false => None,
        };
        let rule = Cycle { options: self, max_lrs, total_size, step_ratio, momentum };
        let mut scheduler = Scheduler::begin(rule, optimizer)?;
        scheduler.base_lrs = base_lrs;
        Ok(scheduler)
    }
}

#[derive(Debug)]
struct Cycle {
    options: CyclicLR,
    max_lrs: Vec<f64>,
    total_size: f64,
    step_ratio: f64,
    momentum: Option<Momentum>,
}

impl Cycle {
    /// Returns where in its cycle a step is, and the factor of the cycle's height.
    fn scale(&self, at: At) -> Result<(f64, f64)> {
        let cycles = at.epoch as f64 / self.total_size;
        let cycle = (1. + cycles).floor();
        let x = 1. + cycles - cycle;
        let within = match x <= self.step_ratio {
            true => div(x, self.step_ratio)?,
            false => div(x - 1., self.step_ratio - 1.)?,
        };
        let height = match self.options.mode {
            CyclicMode::Triangular => 1.,
            CyclicMode::Triangular2 => 1. / pow(2., cycle - 1.),
            CyclicMode::ExpRange => pow(self.options.gamma, at.epoch as f64),
        };
        Ok((within, height))
    }
}

impl Rule for Cycle {
    fn lr(&self, at: At) -> Result<f64> {
        let (within, height) = self.scale(at)?;
        Ok(at.base + (self.max_lrs[at.group] - at.base) * within * height)
    }

    fn momentum(&self, at: At) -> Result<Option<f64>> {
        let Some(Momentum { base, max }) = &self.momentum else { return Ok(None) };
        let (within, height) = self.scale(at)?;
        let (base, max) = (base[at.group], max[at.group]);
        Ok(Some(max - (max - base) * within * height))
    }
}

/// The curve of a [`OneCycleLR`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AnnealStrategy {
    /// Half a period of a cosine.
    Cos,
    /// A straight line.
    Linear,
}

/// A schedule of one cycle, up to `max_lr` and down to almost nothing:
/// [`OneCycleLR`](https://docs.pytorch.org/docs/2.13/generated/torch.optim.lr_scheduler.OneCycleLR.html).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct OneCycleLR {
    /// The highest rate.
    pub max_lr: PerGroup,
    /// The number of steps, which is PyTorch's `epochs * steps_per_epoch`.
    pub total_steps: i64,
    /// The share of the steps up.
    pub pct_start: f64,
    /// The curve between two rates.
    pub anneal_strategy: AnnealStrategy,
    /// Whether the momentum goes from `max_momentum` to `base_momentum` and back meanwhile.
    pub cycle_momentum: bool,
    /// The lowest momentum.
    pub base_momentum: PerGroup,
    /// The highest momentum.
    pub max_momentum: PerGroup,
    /// What `max_lr` is divided by at the first step.
    pub div_factor: f64,
    /// What the first rate is divided by at the last step.
    pub final_div_factor: f64,
    /// Whether the way down stops at the first rate, and takes as many steps to it as the way up.
    pub three_phase: bool,
}

impl Default for OneCycleLR {
    /// Returns PyTorch's defaults. `max_lr` and `total_steps`, which have none there, are 0.
    fn default() -> OneCycleLR {
        OneCycleLR {
            max_lr: 0.0.into(),
            total_steps: 0,
            pct_start: 0.3,
            anneal_strategy: AnnealStrategy::Cos,
            cycle_momentum: true,
            base_momentum: 0.85.into(),
            max_momentum: 0.95.into(),
            div_factor: 25.,
            final_div_factor: 1e4,
            three_phase: false,
        }
    }
}

impl OneCycleLR {
    /// Begins the schedule for an optimizer, whose learning rates it sets to `max_lr / div_factor`.
    ///
    /// # Errors
    /// Returns PyTorch's error, in its words, if PyTorch refuses the arguments.
    pub fn build(self, optimizer: &mut dyn ParamGroups) -> Result<Scheduler> {
        let (total, pct_start) = (self.total_steps, self.pct_start);
        ensure!(total > 0, "Expected positive integer total_steps, but got {total}");
        ensure!(
            (0. ..=1.).contains(&pct_start),
            "Expected float between 0 and 1 pct_start, but got {}",
            repr_float(pct_start)
        );
        let (steps, last) = (total as f64, (total - 1) as f64);
        let up = (pct_start * steps - 1., Level::Initial, Level::Max);
        let phases = match self.three_phase {
            true => vec![
                up,
                (2. * pct_start * steps - 2., Level::Max, Level::Initial),
                (last, Level::Initial, Level::Min),
            ],
            false => vec![up, (last, Level::Max, Level::Min)],
        };
        let mut levels = Vec::new();
        for (group, max) in self.max_lr.values("max_lr", optimizer)?.into_iter().enumerate() {
            let initial = div(max, self.div_factor)?;
            *optimizer.initial_lr(group) = Some(initial);
            levels.push([initial, max, div(initial, self.final_div_factor)?]);
        }
        let momentum = match self.cycle_momentum {
            true => Momentum::begin(&self.base_momentum, &self.max_momentum, optimizer)?,
            false => None,
        };
        Scheduler::begin(OneCycle { options: self, phases, levels, momentum }, optimizer)
    }
}

/// A rate at which a phase of [`OneCycleLR`] begins or ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Level {
    Initial,
    Max,
    Min,
}

#[derive(Debug)]
struct OneCycle {
    options: OneCycleLR,
    /// The last step of each phase, where it begins and where it ends.
    phases: Vec<(f64, Level, Level)>,
    /// The rate of each level, for each group.
    levels: Vec<[f64; 3]>,
    momentum: Option<Momentum>,
}

impl OneCycle {
    /// Interpolates between what a phase begins with and what it ends with.
    fn anneal(&self, at: At, value: impl Fn(Level) -> f64) -> Result<f64> {
        let (step, total) = (at.epoch as f64, self.options.total_steps);
        ensure!(
            at.epoch <= total,
            "Tried to step {step} times. The specified number of total steps is {total}"
        );
        let mut start_step = 0.;
        for (i, &(end_step, start, end)) in self.phases.iter().enumerate() {
            if step <= end_step || i == self.phases.len() - 1 {
                let pct = div(step - start_step, end_step - start_step)?;
                let (start, end) = (value(start), value(end));
                return Ok(match self.options.anneal_strategy {
                    AnnealStrategy::Cos => end + (start - end) / 2. * ((PI * pct).cos() + 1.),
                    AnnealStrategy::Linear => (end - start) * pct + start,
                });
            }
            start_step = end_step;
        }
        Ok(at.lr)
    }
}

impl Rule for OneCycle {
    fn lr(&self, at: At) -> Result<f64> {
        self.anneal(at, |level| self.levels[at.group][level as usize])
    }

    fn momentum(&self, at: At) -> Result<Option<f64>> {
        let Some(Momentum { base, max }) = &self.momentum else { return Ok(None) };
        let of = |level| if level == Level::Max { base[at.group] } else { max[at.group] };
        self.anneal(at, of).map(Some)
    }
}

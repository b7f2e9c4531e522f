//! The schedules that are made of others.

use anyhow::{Result, ensure};

use super::{Kind, ParamGroups, Scheduler, lrs};

/// A schedule that takes one schedule after the other:
/// [`SequentialLR`](https://docs.pytorch.org/docs/2.13/generated/torch.optim.lr_scheduler.SequentialLR.html).
#[derive(Debug)]
pub struct SequentialLR {
    /// The schedules, which have been built for the same optimizer in this order.
    pub schedulers: Vec<Scheduler>,
    /// The steps at which the second schedule and those after it begin.
    pub milestones: Vec<i64>,
}

impl SequentialLR {
    /// Begins the schedule for an optimizer.
    ///
    /// # Errors
    /// Returns PyTorch's error, in its words, if PyTorch refuses the arguments.
    pub fn build(self, optimizer: &mut dyn ParamGroups) -> Result<Scheduler> {
        let SequentialLR { mut schedulers, milestones } = self;
        let (n, m) = (schedulers.len(), milestones.len());
        ensure!(n > 0, "SequentialLR expects at least one scheduler, but got no scheduler.");
        ensure!(
            m + 1 == n,
            "Sequential Schedulers expects number of schedulers provided to be one more than the number of milestone \
             points, but got number of schedulers {n} and the number of milestones to be equal to {m}"
        );
        for group in 0..optimizer.count() {
            if let Some(initial) = *optimizer.initial_lr(group) {
                *optimizer.lr(group) = initial;
            }
        }
        schedulers.iter_mut().for_each(Scheduler::undo);
        let first = milestones.partition_point(|&milestone| milestone <= 0);
        schedulers[first].initial_step(optimizer)?;
        let last_lr = schedulers[first].last_lr.clone();
        let kind = Kind::Sequential { schedulers, milestones };
        Ok(Scheduler { kind, base_lrs: Vec::new(), last_epoch: 0, last_lr })
    }
}

/// A schedule that takes a step of each of its schedules, in their order:
/// [`ChainedScheduler`](https://docs.pytorch.org/docs/2.13/generated/torch.optim.lr_scheduler.ChainedScheduler.html).
#[derive(Debug)]
pub struct ChainedScheduler {
    /// The schedules, which have been built for the same optimizer in this order.
    pub schedulers: Vec<Scheduler>,
}

impl ChainedScheduler {
    /// Begins the schedule for an optimizer.
    ///
    /// # Errors
    /// Returns PyTorch's error, in its words, if there is no schedule.
    pub fn build(self, optimizer: &mut dyn ParamGroups) -> Result<Scheduler> {
        let none = self.schedulers.is_empty();
        ensure!(
            !none,
            "ChainedScheduler expects at least one scheduler to be chained, but got no scheduler."
        );
        let (kind, last_lr) = (Kind::Chained(self.schedulers), lrs(optimizer));
        Ok(Scheduler { kind, base_lrs: Vec::new(), last_epoch: -1, last_lr })
    }
}

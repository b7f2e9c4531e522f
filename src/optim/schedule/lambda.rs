//! The schedule that is a function of the reader's.

use std::fmt;

use anyhow::{Result, ensure};

use super::{At, ParamGroups, Rule, Scheduler};

/// A function for all groups, or one for each.
pub(super) struct Lambda {
    functions: Vec<Box<dyn Fn(i64) -> f64>>,
    for_all: bool,
}

impl Lambda {
    pub(super) fn all(function: impl Fn(i64) -> f64 + 'static) -> Lambda {
        Lambda { functions: vec![Box::new(function)], for_all: true }
    }

    pub(super) fn each(functions: Vec<Box<dyn Fn(i64) -> f64>>) -> Lambda {
        Lambda { functions, for_all: false }
    }

    pub(super) fn check(&self, groups: &dyn ParamGroups) -> Result<()> {
        let (n, m) = (groups.count(), self.functions.len());
        ensure!(self.for_all || n == m, "Expected {n} lr_lambdas, but got {m}");
        Ok(())
    }

    pub(super) fn call(&self, at: At) -> f64 {
        self.functions[if self.for_all { 0 } else { at.group }](at.epoch)
    }
}

impl fmt::Debug for Lambda {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Lambda({} functions)", self.functions.len())
    }
}

/// A schedule whose factor of the initial learning rate is a function of the number of the step, given once for all
/// groups or once for each:
/// [`LambdaLR`](https://docs.pytorch.org/docs/2.13/generated/torch.optim.lr_scheduler.LambdaLR.html).
#[derive(Debug)]
pub struct LambdaLR(Lambda);

impl LambdaLR {
    /// Creates the schedule from one function for all groups.
    pub fn new(factor: impl Fn(i64) -> f64 + 'static) -> LambdaLR {
        LambdaLR(Lambda::all(factor))
    }

    /// Creates the schedule from a function for each group.
    pub fn per_group(factors: Vec<Box<dyn Fn(i64) -> f64>>) -> LambdaLR {
        LambdaLR(Lambda::each(factors))
    }

    /// Begins the schedule for an optimizer, whose learning rates it sets to those of the first step.
    ///
    /// # Errors
    /// Returns an error if there is not one function, nor one for each group.
    pub fn build(self, optimizer: &mut dyn ParamGroups) -> Result<Scheduler> {
        self.0.check(optimizer)?;
        Scheduler::begin(self, optimizer)
    }
}

impl Rule for LambdaLR {
    fn lr(&self, at: At) -> Result<f64> {
        Ok(at.base * self.0.call(at))
    }
}

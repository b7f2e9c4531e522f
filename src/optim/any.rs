//! An optimizer whose kind is known only when the program runs: that of a recorded run.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tch::Tensor;

use super::recorded::{Arguments, RecordedOptimizer};
use super::*;
use crate::trace::{IMPLEMENTATIONS, Trace};

/// What schedules keep in a group, in Python.
const OF_SCHEDULES: [&str; 5] = ["initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum"];

/// The most iterations of LBFGS in a step. A file must not be able to ask for a step that never ends.
const MAX_ITER: i64 = 10_000;

/// An optimizer of any kind.
pub(crate) trait AnyOptimizer {
    /// Takes away all gradients.
    fn zero_grad(&self) -> Result<()>;

    /// Takes a step. `closure` computes the loss and its gradients again, and is called only by an optimizer that
    /// needs it, such as LBFGS.
    fn step(&mut self, closure: &mut Closure) -> Result<()>;

    /// Changes arguments of a group.
    fn change(&mut self, group: usize, arguments: &Arguments) -> Result<()>;

    /// Appends the state of all parameters to a trace.
    fn save_state(&self, trace: &mut Trace, prefix: &str) -> Result<()>;

    /// Sets the state of all parameters to that of a trace.
    fn load_state(&mut self, trace: &Trace, prefix: &str) -> Result<()>;
}

/// Clears the gradients by the optimizer, computes the loss and its gradients, and returns the loss.
pub(crate) type Closure<'a> = dyn FnMut(&dyn AnyOptimizer) -> Result<Tensor> + 'a;

impl<O: Formula + Serialize + DeserializeOwned> AnyOptimizer for Optimizer<O> {
    fn zero_grad(&self) -> Result<()> {
        self.zero_grad()
    }

    fn step(&mut self, _closure: &mut Closure) -> Result<()> {
        self.step()
    }

    fn change(&mut self, group: usize, arguments: &Arguments) -> Result<()> {
        change(self, group, arguments)
    }

    fn save_state(&self, trace: &mut Trace, prefix: &str) -> Result<()> {
        self.save_state(trace, prefix)
    }

    fn load_state(&mut self, trace: &Trace, prefix: &str) -> Result<()> {
        self.load_state(trace, prefix)
    }
}

impl AnyOptimizer for Optimizer<LBFGS> {
    fn zero_grad(&self) -> Result<()> {
        self.zero_grad()
    }

    fn step(&mut self, closure: &mut Closure) -> Result<()> {
        self.step_with(|optimizer| closure(optimizer)).map(drop)
    }

    fn change(&mut self, group: usize, arguments: &Arguments) -> Result<()> {
        change(self, group, arguments)
    }

    fn save_state(&self, trace: &mut Trace, prefix: &str) -> Result<()> {
        self.save_state(trace, prefix)
    }

    fn load_state(&mut self, trace: &Trace, prefix: &str) -> Result<()> {
        self.load_state(trace, prefix)
    }
}

fn change<O: Options + Serialize + DeserializeOwned>(
    optimizer: &mut Optimizer<O>,
    group: usize,
    arguments: &Arguments,
) -> Result<()> {
    let group = optimizer.groups.get_mut(group).context("no such group")?;
    group.options = with(&group.options, arguments)?;
    Ok(())
}

/// Returns the arguments of an optimizer with others in the place of some.
fn with<O: Options + Serialize + DeserializeOwned>(options: &O, others: &Arguments) -> Result<O> {
    let iterations = others.get("max_iter").and_then(Value::as_i64).unwrap_or(0);
    ensure!(iterations <= MAX_ITER, "max_iter is {iterations}: at most {MAX_ITER} are replayed");
    let mut all = serde_json::to_value(options)?;
    for (name, value) in formula_arguments::<O>(others) {
        if let Some(number @ ("NaN" | "Infinity" | "-Infinity")) = value.as_str() {
            bail!("{name} is {number}: only finite numbers are replayed");
        }
        all[name] = value.clone();
    }
    let options: O = serde_json::from_value(all)?;
    options.check()?;
    Ok(options)
}

/// Lists the arguments that the formula has, and not what a group holds in Python beside them.
fn formula_arguments<O: Options>(arguments: &Arguments) -> impl Iterator<Item = (&String, &Value)> {
    arguments.iter().filter(|(name, value)| {
        // AdamW is an Adam of which this is always true.
        let fixed = O::NAME == "AdamW" && *name == "decoupled_weight_decay" && **value == true;
        !fixed && !IMPLEMENTATIONS.iter().chain(&OF_SCHEDULES).any(|beside| beside == name)
    })
}

/// Calls a generic method with the optimizer that a name stands for.
macro_rules! dispatch {
    ($recorded:ident, $method:ident($argument:expr)) => {
        dispatch!($recorded, $method($argument): Adadelta Adafactor Adagrad Adam Adamax AdamW ASGD LBFGS Muon NAdam
            RAdam RMSprop Rprop SGD SparseAdam)
    };
    ($recorded:ident, $method:ident($argument:expr): $($optimizer:ident)*) => {
        match $recorded.name.as_str() {
            $(stringify!($optimizer) => $recorded.$method::<$optimizer>($argument),)*
            other => bail!(
                "unknown optimizer {other:?}: it has to be one of {}",
                [$(stringify!($optimizer)),*].join(", ")
            ),
        }
    };
}

impl RecordedOptimizer {
    /// Builds the optimizer of these parameters, with the arguments of the first step.
    ///
    /// # Errors
    /// Returns an error if the name or an argument is unknown, if PyTorch refuses an argument, and if a group or a
    /// change names a parameter or a group that is not there.
    pub(crate) fn build<'a>(
        &self,
        parameters: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
    ) -> Result<Box<dyn AnyOptimizer>> {
        let parameters = parameters.into_iter().collect::<Vec<_>>();
        dispatch!(self, built(&parameters))
    }

    fn built<O>(&self, parameters: &[(&str, &Tensor)]) -> Result<Box<dyn AnyOptimizer>>
    where
        O: Options + Default + Serialize + DeserializeOwned + 'static,
        Optimizer<O>: AnyOptimizer,
    {
        ensure!(self.arguments.contains_key("lr"), "missing field `lr` of the optimizer");
        let first = with(&O::default(), &self.arguments).context("the optimizer")?;
        let by_name = parameters.iter().copied().collect::<HashMap<_, _>>();
        let mut optimizer = Optimizer { groups: Vec::new() };
        if self.groups.is_empty() {
            optimizer.add_group(first.clone(), parameters.iter().copied())?;
        }
        for (at, group) in self.groups.iter().enumerate() {
            let of = || format!("group {at} of the optimizer");
            let named = group.parameters.iter().map(|name| {
                let tensor = by_name.get(name.as_str()).copied();
                Ok((name.as_str(), tensor.with_context(|| format!("no parameter {name:?}"))?))
            });
            let named = named.collect::<Result<Vec<_>>>().with_context(of)?;
            optimizer.add_group(with(&first, &group.arguments).with_context(of)?, named)?;
        }
        // Every change is tried now, so that a run does not end in the middle of its steps.
        let mut changed = optimizer.groups.iter().map(|g| g.options.clone()).collect::<Vec<_>>();
        for change in &self.changes {
            let of = || format!("the change of group {} in step {}", change.group, change.step);
            let groups = changed.len();
            let options = changed.get_mut(change.group);
            let options =
                options.with_context(|| format!("there are {groups} groups, counted from 0"));
            let options = options.with_context(of)?;
            *options = with(options, &change.arguments).with_context(of)?;
        }
        Ok(Box::new(optimizer))
    }

    /// Sets the arguments with which step `k` is taken, counted from 1.
    ///
    /// # Errors
    /// Returns an error if an argument is unknown, or if PyTorch refuses it.
    pub(crate) fn begin_step(&self, k: u32, optimizer: &mut dyn AnyOptimizer) -> Result<()> {
        let mut changes = self.changes.iter().filter(|change| change.step == k);
        let taken = changes.try_for_each(|c| optimizer.change(c.group, &c.arguments));
        taken.with_context(|| format!("step {k}"))
    }

    /// Lists the arguments that a program in Python has to write out: for all groups the learning rate and what is
    /// other than PyTorch's default, and for one group all that it has of its own.
    ///
    /// # Errors
    /// Returns an error if the optimizer is unknown.
    pub(crate) fn written_out<'a>(
        &'a self,
        group: Option<&'a RecordedGroup>,
    ) -> Result<Vec<(&'a String, &'a Value)>> {
        dispatch!(self, others_than_default(group))
    }

    fn others_than_default<'a, O: Options + Default + Serialize>(
        &'a self,
        group: Option<&'a RecordedGroup>,
    ) -> Result<Vec<(&'a String, &'a Value)>> {
        let Some(group) = group else {
            let default = serde_json::to_value(O::default())?;
            let shared = formula_arguments::<O>(&self.arguments);
            let other = |(name, value): &(&String, &Value)| {
                *name == "lr" || default.get(name.as_str()) != Some(*value)
            };
            return Ok(shared.filter(other).collect());
        };
        Ok(formula_arguments::<O>(&group.arguments).collect())
    }
}

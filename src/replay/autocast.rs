//! What a case says of autocast: in which state the model was called, and backward ran.

use std::collections::HashMap;

use anyhow::{Context, Result};
use indexmap::IndexMap;
use serde::Deserialize;

use super::described::Call;
use crate::torch::Autocast;

/// A state of autocast, as the metadata has it.
#[derive(Deserialize)]
pub(super) struct WrittenAutocast {
    /// The dtype of each type of devices for which it is on.
    dtypes: IndexMap<String, String>,
    /// Whether a weight that is casted twice is casted once.
    cache: bool,
}

impl WrittenAutocast {
    pub(super) fn read(self) -> Result<Autocast> {
        let state = Autocast::new(self.cache);
        let mut dtypes = self.dtypes.iter();
        let state =
            dtypes.try_fold(state, |state, (device, dtype)| state.with(device, true, dtype));
        state.context("the run was made in a state of autocast that is not supported")
    }
}

/// Where the steps of a run are within autocast.
#[derive(Debug)]
pub(super) struct Autocasts {
    /// The calls of the model, counted from 1, that are within one outermost `with torch.autocast` with the call before
    /// them, by the step.
    in_one: HashMap<u32, Vec<usize>>,
    /// The state in each backward pass, by the step, where it is on.
    backwards: HashMap<u32, Vec<Option<Autocast>>>,
}

impl Autocasts {
    pub(super) fn read(
        in_one: HashMap<u32, Vec<usize>>,
        backwards: HashMap<u32, Vec<Option<WrittenAutocast>>>,
    ) -> Result<Autocasts> {
        let read = |state: Option<WrittenAutocast>| state.map(WrittenAutocast::read).transpose();
        let backwards = backwards
            .into_iter()
            .map(|(step, states)| Ok((step, states.into_iter().map(read).collect::<Result<_>>()?)));
        Ok(Autocasts { in_one, backwards: backwards.collect::<Result<_>>()? })
    }

    /// Returns whether a call is within one outermost `with torch.autocast` with the call before it.
    pub(super) fn goes_on(&self, step: u32, call: &Call) -> bool {
        self.in_one.get(&step).is_some_and(|calls| calls.contains(&call.number))
    }

    /// Returns the state in the n-th backward pass of a step, counted from 0.
    pub(super) fn of_backward(&self, step: u32, pass: usize) -> Option<&Autocast> {
        self.backwards.get(&step)?.get(pass)?.as_ref()
    }
}

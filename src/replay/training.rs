//! The steps of a recorded run, whoever computes forward: what goes into it, backward, clipping and optimizers.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, bail};
use tch::{Device, Kind, Tensor, no_grad};

use super::described::{Call, Described};
use crate::case::{Case, Recorder};
use crate::optim::{AnyOptimizer, RecordedOptimizer};
use crate::program::Precision;
use crate::torch::{Autocast, AutocastGuard, Extent, backward, clear_grad, replace_gradient};
use crate::trace::case_name::{FACTOR, RNG};
use crate::trace::{Trace, in_step};

/// Is held by the step that draws random numbers.
static GENERATOR: Mutex<()> = Mutex::new(());

/// The parameters and buffers of a model, by the names that the case has for them.
pub(super) struct Variables {
    pub(super) parameters: Vec<(String, Tensor)>,
    pub(super) buffers: Vec<(String, Tensor)>,
}

/// Takes an output of the model, by the name that the case has for it.
pub(super) type HandOver<'a> = dyn FnMut(&str, &Tensor) -> Result<()> + 'a;

/// A model and its optimizers in the middle of a run.
pub(super) struct Training {
    model: Variables,
    optimizers: Vec<(RecordedOptimizer, Box<dyn AnyOptimizer>)>,
    device: Device,
    precision: Precision,
}

impl Training {
    /// Builds the recorded optimizers, in their recorded state, for a model with its initial values.
    pub(super) fn new(
        case: &Case,
        described: &Described,
        model: Variables,
        device: Device,
        precision: Precision,
    ) -> Result<Training> {
        let trace = &case.trace;
        let mut optimizers = Vec::new();
        for recorded in &described.optimizers {
            let named = model.parameters.iter().map(|(name, tensor)| (name.as_str(), tensor));
            let mut built = recorded.build(named)?;
            let state = state_of(recorded, trace, precision)?;
            if state.names().next().is_some() {
                built.load_state(&state, "state/")?;
            }
            optimizers.push((recorded.clone(), built));
        }
        Ok(Training { model, optimizers, device, precision })
    }

    /// Enters a recorded state of autocast. In float64 nothing is casted.
    fn enter(&self, case: &Case, autocast: Option<&Autocast>) -> Result<Option<AutocastGuard>> {
        let Some(autocast) = autocast.filter(|_| self.precision == Precision::Own) else {
            return Ok(None);
        };
        let mut autocast = autocast.clone();
        if self.device.is_cuda() != case.environment.device.starts_with("cuda") {
            autocast.compute_on(self.device);
        }
        Ok(Some(autocast.enter()?))
    }

    /// Takes a step, and records it. `forward` is given a call of the model and its inputs, by the names that the case
    /// has for those of the first call, and hands over each output by its name as soon as it is there.
    pub(super) fn step(
        &mut self,
        case: &Case,
        described: &Described,
        step: u32,
        recorder: &Recorder,
        mut forward: impl FnMut(&Call, &[(String, Tensor)], &mut HandOver<'_>) -> Result<()>,
    ) -> Result<()> {
        let trace = &case.trace;
        let recorded = |name: &str| trace.contains(&in_step(step, name));
        let (device, precision) = (self.device, self.precision);
        let value = |name: &str| recorded_in(trace, &in_step(step, name), device, precision);
        // The generator is one for all threads, and cases are replayed side by side.
        let draws = RNG.iter().any(|name| recorded(name));
        let _alone = draws.then(|| GENERATOR.lock().unwrap_or_else(PoisonError::into_inner));
        let kept = |name: &str| described.keeps(step, name);
        for (_, parameter) in self.model.parameters.iter().filter(|(name, _)| !kept(name)) {
            clear_grad(parameter)?;
        }
        described.ensure_same_arguments(step)?;
        let calls = described.calls(step)?;
        let mut inputs = Vec::new();
        let mut roots = Vec::<Vec<_>>::new();
        let mut goes_backward = false;
        let mut extent = None;
        for call in &calls {
            case.restore_rng_if_there(step, call.number)?;
            let mut given = Vec::new();
            for name in &described.programs[call.program].inputs {
                let own = call.name(name);
                let requires_grad = recorded(&format!("grad/{own}"));
                let input = value(&own)?.f_set_requires_grad(requires_grad)?;
                inputs.push((own, input.shallow_clone()));
                given.push((name.clone(), input));
            }
            let full = |name: &str| format!("grad/{}", call.name(name));
            let names = described.programs[call.program].outputs().collect::<Vec<_>>();
            goes_backward |= names.iter().any(|name| recorded(&full(name)));
            let mut begins = HashMap::new();
            let mut hand_over = |name: &str, output: &Tensor| -> Result<()> {
                if output.requires_grad() && recorded(&full(name)) {
                    let gradient = value(&full(name))?;
                    // Another output can be computed from this one. What the loss itself adds to what comes from there
                    // is not recorded, and the sum is.
                    replace_gradient(output, &gradient)?;
                    begins.insert(name.to_owned(), (output.shallow_clone(), gradient));
                }
                recorder.tap(&call.output(name), output)
            };
            let state = described.programs[call.program].autocast.as_ref();
            if !described.autocasts.goes_on(step, call) {
                extent = None; // which ends before the next one begins
            }
            if state.is_some() && extent.is_none() {
                extent = Some(Extent::begin());
            }
            let _state = self.enter(case, state)?;
            let mut run = || forward(call, &given, &mut hand_over);
            if described.has_gradients(step, call) {
                run()?
            } else {
                no_grad(run)?
            }
            roots.push(names.iter().filter_map(|name| begins.remove(*name)).collect());
        }
        drop(extent);
        if goes_backward {
            // A gradient of an earlier step that backward adds nothing to is none of this step.
            let left = self.model.parameters.iter().filter(|(name, _)| kept(name));
            let left = left.map(|(name, parameter)| Ok((name.clone(), written(parameter)?)));
            let left = left.collect::<Result<HashMap<_, _>>>()?;
            for (at, pass) in described.backwards(step, calls.len()).into_iter().enumerate() {
                let _state = self.enter(case, described.autocasts.of_backward(step, at))?;
                let of_pass = pass.iter().filter_map(|number| roots.get(number.checked_sub(1)?));
                let of_pass = of_pass.flatten().map(|(output, gradient)| (output, Some(gradient)));
                backward(&of_pass.collect::<Vec<_>>())?;
            }
            let mut leaves = Vec::new();
            for (name, leaf) in self.model.parameters.iter().chain(&inputs) {
                if left.get(name).is_none_or(|then| written(leaf).ok() != Some(*then)) {
                    leaves.push((name.clone(), leaf.shallow_clone()));
                }
            }
            recorder.gradients_of(None, &leaves)?;
            let factor = recorded(FACTOR).then(|| value(FACTOR)).transpose()?;
            for (name, parameter) in &self.model.parameters {
                let full = format!("taken/{name}");
                let mut gradient = parameter.f_grad()?;
                // If there is none, it is missing in the comparison.
                if !recorded(&full) || !gradient.defined() {
                    continue;
                }
                if let Some(factor) = &factor {
                    no_grad(|| gradient.f_mul_(factor).map(drop))?;
                    recorder.taken(name, &gradient)?;
                } else {
                    let taken = value(&full)?;
                    no_grad(|| gradient.f_copy_(&taken).map(drop))?;
                }
            }
            let all = self.optimizers.iter_mut().enumerate();
            for (_, (recorded, optimizer)) in all.filter(|(at, _)| described.steps_in(step, *at)) {
                recorded.begin_step(step, &mut **optimizer)?;
                optimizer.step(&mut |_| {
                    bail!("its step computes the loss again, which no program has")
                })?;
            }
        }
        let after = self.model.parameters.iter().chain(&self.model.buffers);
        let after = after.map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
        recorder.step_of(&after.collect::<Vec<_>>(), |trace, step| {
            let prefix = format!("step/{step}/state/");
            let mut optimizers = self.optimizers.iter();
            optimizers.try_for_each(|(_, optimizer)| optimizer.save_state(trace, &prefix))
        })
    }
}

/// Returns how often the gradient of a parameter was written to, if there is one.
fn written(parameter: &Tensor) -> Result<Option<i64>> {
    let gradient = parameter.f_grad()?;
    Ok(if gradient.defined() { Some(gradient.f_internal_version()?) } else { None })
}

/// Returns the initial state of an optimizer, which is that of its own parameters.
fn state_of(optimizer: &RecordedOptimizer, trace: &Trace, precision: Precision) -> Result<Trace> {
    let groups = &optimizer.groups;
    let held = groups.iter().flat_map(|group| &group.parameters).collect::<HashSet<_>>();
    let is_own = |parameter: &str| groups.is_empty() || held.iter().any(|name| *name == parameter);
    let mut states = Trace::new();
    for name in trace.names().filter(|name| name.starts_with("state/")) {
        // A name without a parameter is refused by the optimizer.
        if name.splitn(3, '/').nth(2).is_none_or(is_own) {
            states.push(name, &recorded_in(trace, name, Device::Cpu, precision)?)?;
        }
    }
    Ok(states)
}

/// Returns a recorded tensor on a device. Floats have the precision with which the program computes.
pub(super) fn recorded_in(
    trace: &Trace,
    name: &str,
    on: Device,
    precision: Precision,
) -> Result<Tensor> {
    let tensor = trace.tensor_on(name, on)?;
    let wide = precision == Precision::Double && tensor.is_floating_point();
    Ok(if wide { tensor.f_to_kind(Kind::Double)? } else { tensor })
}

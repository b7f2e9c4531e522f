//! The optimizer itself: groups of named parameters, their state, and the order in which they are stepped.

use std::borrow::Borrow;
use std::collections::{BTreeMap, HashMap, HashSet};

use anyhow::{Context, Result, ensure};
use tch::nn::VarStore;
use tch::{Kind, Tensor, no_grad, with_grad};

use super::formula::{Formula, Options};
use super::state::State;
use crate::torch::{clear_grad, ensure_dense};
use crate::trace::Trace;

/// The dtypes that the formulas can compute with.
pub(super) const FLOATS: [Kind; 4] = [Kind::Half, Kind::BFloat16, Kind::Float, Kind::Double];

/// An optimizer of `torch.optim` with its parameters. `O` holds its arguments.
///
/// Build it from the arguments: `AdamW { lr: 1e-3, ..Default::default() }.build(&vs)?`.
#[derive(Debug)]
pub struct Optimizer<O> {
    /// The groups of parameters, each with its own arguments. Changed arguments hold from the next step on.
    pub groups: Vec<Group<O>>,
}

/// A group of parameters with its own arguments.
#[derive(Debug)]
pub struct Group<O> {
    /// The arguments of the optimizer for this group.
    pub options: O,
    /// The learning rate with which the first schedule began.
    pub(super) initial_lr: Option<f64>,
    pub(super) parameters: Vec<Parameter>,
}

#[derive(Debug)]
pub(super) struct Parameter {
    pub(super) name: String,
    pub(super) tensor: Tensor,
    /// There is none before the first step in which the parameter has a gradient.
    pub(super) state: Option<State>,
}

impl<O: Options> Optimizer<O> {
    /// Returns an optimizer of one group: the trainable variables of `vs`, in the order in which they were made.
    pub(super) fn of_var_store(options: O, vs: &VarStore) -> Result<Optimizer<O>> {
        let place = |tensor: &Tensor| (tensor.data_ptr() as usize, tensor.size());
        let mut names = BTreeMap::new();
        for (name, tensor) in vs.variables() {
            names.entry(place(&tensor)).or_insert_with(Vec::new).push(name);
        }
        names.values_mut().for_each(|names| names.sort_by(|a, b| b.cmp(a)));
        // A variable that is tied to another has no name left: PyTorch lists it once, too.
        let trainable = vs.trainable_variables().into_iter();
        let named =
            trainable.filter_map(|tensor| Some((names.get_mut(&place(&tensor))?.pop()?, tensor)));
        let mut seen = HashSet::new();
        let once = named.filter(|(_, tensor)| tensor.numel() == 0 || seen.insert(place(tensor)));
        Optimizer::of(options, once)
    }

    /// Returns an optimizer of one group.
    pub(super) fn of<N: Into<String>, T: Borrow<Tensor>>(
        options: O,
        parameters: impl IntoIterator<Item = (N, T)>,
    ) -> Result<Optimizer<O>> {
        let mut optimizer = Optimizer { groups: Vec::new() };
        optimizer.add_group(options, parameters)?;
        ensure!(
            !optimizer.groups.iter().all(|group| group.parameters.is_empty()),
            "optimizer got an empty parameter list"
        );
        Ok(optimizer)
    }

    /// Adds a group of named parameters with arguments of its own, as `add_param_group` does in Python.
    ///
    /// # Errors
    /// Returns an error, and adds nothing, if PyTorch refuses the arguments or a parameter, if a parameter is in the
    /// optimizer already, or if two have one name.
    pub fn add_group<N: Into<String>, T: Borrow<Tensor>>(
        &mut self,
        options: O,
        parameters: impl IntoIterator<Item = (N, T)>,
    ) -> Result<()> {
        options.check()?;
        let mut group = Vec::new();
        let there = self.groups.iter().flat_map(|group| &group.parameters);
        let mut names = there.clone().map(|p| p.name.clone()).collect::<HashSet<_>>();
        let of_data = |tensor: &Tensor| (tensor.numel() > 0).then(|| tensor.data_ptr() as usize);
        let mut places = there.filter_map(|p| of_data(&p.tensor)).collect::<HashSet<_>>();
        for (name, tensor) in parameters {
            let (name, tensor) = (name.into(), tensor.borrow().shallow_clone());
            ensure_dense(&tensor).with_context(|| name.clone())?;
            ensure!(tensor.f_is_leaf()?, "can't optimize a non-leaf Tensor: {name}");
            ensure!(
                !tensor.f_is_complex()?,
                "the optimizer has {name}, which is complex: only real parameters are supported"
            );
            let kind = tensor.f_kind()?;
            ensure!(FLOATS.contains(&kind), "{name} is {kind:?}, which is not supported");
            options.check_parameter(&tensor).with_context(|| name.clone())?;
            ensure!(names.insert(name.clone()), "two parameters are named {name}");
            ensure!(
                of_data(&tensor).is_none_or(|place| places.insert(place)),
                "some parameters appear in more than one parameter group: {name}"
            );
            let state = if O::EARLY { Some(options.state(&tensor)?) } else { None };
            group.push(Parameter { name, tensor, state });
        }
        self.groups.push(Group { options, initial_lr: None, parameters: group });
        Ok(())
    }

    fn all(&self) -> impl Iterator<Item = &Parameter> {
        self.groups.iter().flat_map(|group| &group.parameters)
    }

    /// Returns the parameters, group by group.
    pub fn parameters(&self) -> Vec<Tensor> {
        self.all().map(|p| p.tensor.shallow_clone()).collect()
    }

    /// Returns the names of the parameters, group by group.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.all().map(|p| p.name.as_str())
    }

    /// Returns the state of a parameter, or `None` before the first step in which it had a gradient.
    pub fn state(&self, name: &str) -> Option<&State> {
        self.all().find(|p| p.name == name)?.state.as_ref()
    }

    /// Takes away all gradients, as PyTorch does by default: a parameter that the next loss does not depend on then
    /// has none, and is not stepped.
    ///
    /// # Errors
    /// Returns libtorch's errors.
    pub fn zero_grad(&self) -> Result<()> {
        Ok(self.all().try_for_each(|p| clear_grad(&p.tensor))?)
    }

    /// Appends the state of all parameters to a trace, each as `PREFIX` + `NAME/PARAMETER`, such as
    /// `state/exp_avg/fc.weight`. The state that a case has after step 2 has the prefix `step/2/state/`.
    ///
    /// # Errors
    /// Returns an error if the trace has a tensor of that name.
    pub fn save_state(&self, trace: &mut Trace, prefix: &str) -> Result<()> {
        for p in self.all() {
            let Some(state) = &p.state else { continue };
            for name in state.names() {
                let value = state.get(name).with_context(|| name.to_owned())?;
                trace.push(format!("{prefix}{name}/{}", p.name), &value)?;
            }
        }
        Ok(())
    }

    /// Sets the state of all parameters to what a trace has of it under the names of
    /// [`save_state`](Self::save_state). A parameter of which it has nothing has no state, as before its first step.
    ///
    /// # Errors
    /// Returns an error, and sets nothing, if a name belongs to no parameter, or if the state of a parameter lacks a
    /// name, has one that the optimizer does not know, or is of another shape or dtype.
    pub fn load_state(&mut self, trace: &Trace, prefix: &str) -> Result<()> {
        let mut recorded = HashMap::<&str, Vec<(String, Tensor)>>::new();
        for full in trace.names() {
            let Some(rest) = full.strip_prefix(prefix) else { continue };
            let of = rest.split_once('/').with_context(|| format!("{full} names no parameter"))?;
            recorded.entry(of.1).or_default().push((of.0.to_owned(), trace.tensor(full)?));
        }
        ensure!(!recorded.is_empty(), "no tensor's name begins with {prefix:?}");
        let mut states = Vec::new();
        for group in &self.groups {
            for p in &group.parameters {
                let state = match recorded.remove(p.name.as_str()) {
                    Some(entries) => group.options.restored(&entries, &p.tensor).map(Some),
                    None if O::EARLY => group.options.state(&p.tensor).map(Some),
                    None => Ok(None),
                };
                states.push(state.with_context(|| p.name.clone())?);
            }
        }
        let mut unknown = recorded.into_keys().collect::<Vec<_>>();
        unknown.sort_unstable();
        ensure!(unknown.is_empty(), "the optimizer has no parameter {}", unknown.join(", "));
        let parameters = self.groups.iter_mut().flat_map(|group| &mut group.parameters);
        parameters.zip(states).for_each(|(p, state)| p.state = state);
        Ok(())
    }
}

impl<O: Formula> Optimizer<O> {
    /// Steps all parameters that have a gradient.
    ///
    /// # Errors
    /// Returns PyTorch's error if the optimizer does not take a gradient, and libtorch's errors.
    pub fn step(&mut self) -> Result<()> {
        no_grad(|| self.groups.iter_mut().try_for_each(Group::step))
    }

    /// Calls `closure`, which computes the loss and its gradients, and steps all parameters that have a gradient.
    /// Returns the loss.
    ///
    /// # Errors
    /// Returns the errors of `closure` and of [`step`](Self::step).
    pub fn step_with(&mut self, mut closure: impl FnMut() -> Result<Tensor>) -> Result<Tensor> {
        let loss = with_grad(&mut closure)?;
        self.step()?;
        Ok(loss)
    }
}

impl<O: Formula> Group<O> {
    fn step(&mut self) -> Result<()> {
        let mut with_gradient = Vec::with_capacity(self.parameters.len());
        for p in &mut self.parameters {
            let grad = p.tensor.f_grad()?;
            if grad.defined() {
                self.options.check_gradient(&grad)?;
                with_gradient.push((p, grad));
            }
        }
        let Some((first, _)) = with_gradient.first() else { return Ok(()) };
        let options = self.options.in_group(&first.tensor)?;
        for (p, grad) in with_gradient {
            let grad = if options.maximize() { grad.f_neg()? } else { grad };
            let state = match &mut p.state {
                Some(state) => state,
                none => none.insert(options.state(&p.tensor)?),
            };
            options.update(&mut p.tensor, &grad, state).with_context(|| p.name.clone())?;
        }
        Ok(())
    }
}

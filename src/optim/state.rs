//! What an optimizer remembers of a parameter, by PyTorch's names.

use std::borrow::Cow;

use anyhow::{Context, Result, ensure};
use tch::{Device, Kind, Tensor};

/// The state of one parameter: what `optimizer.state[p]` is in Python.
#[derive(Debug, Default)]
pub struct State {
    entries: Vec<(Cow<'static, str>, Value)>,
}

#[derive(Debug)]
enum Value {
    Tensor(Tensor),
    /// A tensor of one element and no dimensions, or a number of Python's. It is kept as a number, since it is read
    /// in every step.
    Number(f64, Kind),
}

impl State {
    /// Returns the names, such as `exp_avg`, in PyTorch's order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|(name, _)| name.as_ref())
    }

    /// Returns the tensor of that name, which shares its memory with the optimizer. Numbers, such as `step`, are copied
    /// into a tensor without dimensions.
    pub fn get(&self, name: &str) -> Option<Tensor> {
        Some(match self.value(name)? {
            Value::Tensor(tensor) => tensor.shallow_clone(),
            Value::Number(value, kind) => {
                Tensor::f_full(&[0i64; 0][..], *value, (*kind, Device::Cpu)).ok()?
            }
        })
    }

    fn value(&self, name: &str) -> Option<&Value> {
        self.entries.iter().find(|entry| entry.0 == name).map(|entry| &entry.1)
    }

    /// Adds a tensor, or replaces it.
    pub(super) fn set(&mut self, name: impl Into<Cow<'static, str>>, tensor: Tensor) {
        self.insert(name.into(), Value::Tensor(tensor));
    }

    /// Adds a number that PyTorch keeps as a tensor of that kind, or replaces it. It is rounded to the kind.
    pub(super) fn set_number(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        value: f64,
        kind: Kind,
    ) {
        let value = if kind == Kind::Float { f64::from(value as f32) } else { value };
        self.insert(name.into(), Value::Number(value, kind));
    }

    fn insert(&mut self, name: Cow<'static, str>, value: Value) {
        match self.entries.iter_mut().find(|entry| entry.0 == name) {
            Some(entry) => entry.1 = value,
            None => self.entries.push((name, value)),
        }
    }

    /// Returns a state that counts steps from 0.
    pub(super) fn counting() -> State {
        let mut state = State::default();
        state.set_number("step", 0., Kind::Float);
        state
    }

    /// Adds a tensor of zeros that is like `p`.
    pub(super) fn zeros(mut self, name: &'static str, p: &Tensor) -> Result<State> {
        self.set(name, p.f_zeros_like()?);
        Ok(self)
    }

    /// Returns a tensor that has to be there.
    pub(super) fn tensor(&self, name: &str) -> Result<Tensor> {
        match self.value(name) {
            Some(Value::Tensor(tensor)) => Ok(tensor.shallow_clone()),
            _ => self.get(name).with_context(|| format!("no {name} in the state")),
        }
    }

    /// Returns a number that has to be there, and its kind.
    pub(super) fn number(&self, name: &str) -> Result<(f64, Kind)> {
        match self.value(name) {
            Some(Value::Number(value, kind)) => Ok((*value, *kind)),
            Some(Value::Tensor(tensor)) => Ok((tensor.f_double_value(&[])?, tensor.f_kind()?)),
            None => Err(anyhow::anyhow!("no {name} in the state")),
        }
    }

    /// Counts a step, in the precision of the state, and returns its number.
    pub(super) fn count(&mut self) -> Result<f64> {
        let (step, kind) = self.number("step")?;
        self.set_number("step", step + 1., kind);
        Ok(self.number("step")?.0)
    }

    /// Sets an entry to a value that was recorded. `like` is what the entry is in a state that has just been made.
    pub(super) fn load(&mut self, name: &str, recorded: &Tensor, like: &Tensor) -> Result<()> {
        let name = Cow::Owned(name.to_owned());
        if let Some(Value::Number(_, kind)) = self.value(&name) {
            let kind = *kind;
            ensure!(
                recorded.numel() == 1,
                "{name} is no number, but of shape {:?}",
                recorded.size()
            );
            self.set_number(name, recorded.f_reshape([1])?.f_double_value(&[0])?, kind);
            return Ok(());
        }
        let (size, kind) = (recorded.size(), recorded.f_kind()?);
        ensure!(size == like.size(), "{name} is of shape {size:?}, not {:?}", like.size());
        ensure!(kind == like.f_kind()?, "{name} is {kind:?}, not {:?}", like.f_kind()?);
        let mut tensor = like.f_empty_like()?;
        tensor.f_copy_(recorded)?;
        self.set(name, tensor);
        Ok(())
    }
}

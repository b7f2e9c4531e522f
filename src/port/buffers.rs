//! The values that buffers start with: those that a checkpoint has, and those that no checkpoint has.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result};

use super::Exported;
use super::constant::Constant;
use super::flat::{Flat, From, Variable};
use super::operator::Written;
use super::rust::is_float;

impl Flat {
    /// Leaves out the buffers that no checkpoint has and that nothing reads.
    pub(super) fn drop_unread_buffers(&mut self) {
        let arguments = self.steps.iter().flat_map(|step| &step.arguments);
        let read = arguments.flat_map(|(_, argument)| argument.ids());
        let read = read.chain(self.outputs.iter().copied()).collect::<HashSet<_>>();
        let is_read = |variable: &Variable| {
            let from = From::Variable(variable.name.clone());
            read.iter().any(|id| self.values[*id].from == from)
        };
        let kept = self.variables.iter().map(|variable| variable.persistent || is_read(variable));
        let mut kept = kept.collect::<Vec<_>>().into_iter();
        self.variables.retain(|_| kept.next().unwrap_or(true));
    }

    /// Returns whether the program keeps statistics in a buffer, or writes to it as a whole.
    fn is_written(&self, name: &str) -> bool {
        let is_own = |id: &usize| matches!(&self.values[*id].from, From::Variable(n) if n == name);
        self.steps.iter().any(|step| {
            step.arguments.iter().enumerate().any(|(at, (argument, value))| {
                let is_statistic = argument == "running_mean" || argument == "running_var";
                let is_target = at == 0 && Written::writes(step);
                (is_statistic || is_target) && value.ids().iter().any(is_own)
            })
        })
    }
}

/// Writes the values that buffers start with. Statistics of floats that a program keeps start as tch's do, and a buffer
/// of zeros is made as such. Buffers that no checkpoint has are numbered by their values, so that modules whose values
/// differ are not of one class.
///
/// # Errors
/// Returns an error if the value of a buffer that no checkpoint has is not known.
pub(super) fn values(flat: &mut Flat, program: &Exported<'_>) -> Result<HashMap<String, Constant>> {
    let mut written = HashMap::<String, Constant>::new();
    let mut known = Vec::new();
    for at in 0..flat.variables.len() {
        let variable = &flat.variables[at];
        let name = variable.name.clone();
        let starts_anew =
            variable.persistent && is_float(variable.meta.dtype) && flat.is_written(&name);
        if variable.is_parameter || starts_anew {
            continue;
        }
        let persistent = variable.persistent;
        let value = (program.buffer)(&name).and_then(|value| {
            let is_zero = value.f_count_nonzero(None)?.f_int64_value(&[])? == 0;
            let own = format!("{name}_values");
            Ok(if is_zero { None } else { Some(Constant::new(&own, &value)?) })
        });
        let value = match value {
            Ok(value) => value,
            Err(_) if persistent => continue,
            Err(err) => {
                let (module, own) = name.rsplit_once('.').unwrap_or(("", &name));
                let of = match module {
                    "" => "the model".to_owned(),
                    module => format!("the module {module}"),
                };
                let what = format!("the buffer {own} of {of}, which no checkpoint has");
                return Err(err).context(what);
            }
        };
        let Some(value) = value else { continue };
        if !persistent {
            let first = known.iter().position(|first| written.get(first) == Some(&value));
            flat.variables[at].value = Some(first.unwrap_or(known.len()));
            if first.is_none() {
                known.push(name.clone());
            }
        }
        written.insert(name, value);
    }
    Ok(written)
}

//! Which operator computes what a module returns, for the reader of a difference.

use std::collections::BTreeMap;

use anyhow::Result;
use tch::Device;

use super::ProgramReplay;
use super::described::Names;
use crate::program::{Precision, Program};
use crate::trace::in_step;

impl ProgramReplay {
    /// Returns the operators that compute the recorded outputs of modules, each with its module, the line of Python and
    /// its schema, by the names of those outputs that are `wanted`.
    ///
    /// # Errors
    /// Returns the errors of [`operators`](Self::operators).
    pub fn computed_by(&self, wanted: impl Fn(&str) -> bool) -> Result<BTreeMap<String, String>> {
        let started = self.start(Device::Cpu, Precision::Own)?;
        let programs = started.programs.iter().zip(&self.described.programs);
        let programs = programs.map(|(one, names)| operators_of(&one.program, names));
        let programs = programs.collect::<Vec<_>>();
        let mut found = BTreeMap::new();
        for step in 1..=self.described.steps {
            for call in self.described.calls(step)? {
                for (output, operator) in &programs[call.program] {
                    let name = in_step(step, &format!("forward/{}", call.output(output)));
                    if wanted(&name) {
                        found.insert(name, operator.clone());
                    }
                }
            }
        }
        Ok(found)
    }
}

/// Lists the outputs of modules that operators compute, each with the operator.
fn operators_of<'a>(program: &Program, names: &'a Names) -> Vec<(&'a str, String)> {
    let outputs = names.values.iter().filter_map(|(name, (_, value))| {
        Some((name.strip_prefix("forward/")?, program.computed(value)?.operator))
    });
    outputs.collect()
}

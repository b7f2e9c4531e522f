//! Which operator computes a recorded tensor, for the reader of a difference.

use std::collections::BTreeMap;

use anyhow::Result;
use tch::Tensor;

use super::described::{Names, recorded_name};
use super::{ProgramReplay, graph};
use crate::program::{Precision, Program};
use crate::trace::in_step;

/// The operators of a program, in words.
struct Operators<'a> {
    /// Those that compute the outputs of modules, and the gradients of these, by their names in a case.
    outputs: Vec<(&'static str, &'a str, String)>,
    /// Those that compute the gradients of parameters.
    parameters: Vec<(&'a str, String)>,
}

impl ProgramReplay {
    /// Returns the operators that compute the recorded outputs of modules and their gradients, and the gradients of
    /// parameters, each with its module, the line of Python and its schema, by the names of those that are `wanted`.
    ///
    /// # Errors
    /// Returns an error if a program is not supported.
    pub fn computed_by(&self, wanted: impl Fn(&str) -> bool) -> Result<BTreeMap<String, String>> {
        let programs = self.graphs()?;
        let programs = programs.iter().zip(&self.described.programs);
        let programs = programs.map(|(program, names)| self.operators_in(program, names));
        let programs = programs.collect::<Vec<_>>();
        let mut found = BTreeMap::new();
        let mut add = |name: String, operator: &String| {
            if wanted(&name) {
                found.entry(name).or_insert_with(|| operator.clone());
            }
        };
        for step in 1..=self.described.steps {
            for call in self.described.calls(step)? {
                let Operators { outputs, parameters } = &programs[call.program];
                for (section, output, operator) in outputs {
                    add(in_step(step, &format!("{section}{}", call.output(output))), operator);
                }
                for (parameter, operator) in parameters {
                    add(in_step(step, &format!("grad/{parameter}")), operator);
                }
            }
        }
        Ok(found)
    }

    /// Returns the programs without their tensors, which can be read and not run.
    pub(super) fn graphs(&self) -> Result<Vec<Program>> {
        let program = |number| {
            let json = self.case.trace.values(&graph(number))?;
            Program::new(json.data(), Precision::Own, |_, _| Ok(Tensor::new()))
        };
        (0..self.described.programs.len()).map(program).collect()
    }

    fn operators_in<'a>(&'a self, program: &Program, names: &'a Names) -> Operators<'a> {
        let mut outputs = Vec::new();
        for (name, (_, value)) in &names.values {
            let Some(output) = name.strip_prefix("forward/") else { continue };
            let computed = program.computed(value).map(|computed| computed.operator);
            outputs.extend(computed.map(|operator| ("forward/", output, operator)));
            let backward = program.backward_to_value(value);
            outputs.extend(backward.map(|operator| ("grad/", output, operator)));
        }
        let recorded = self.case.trace.names().filter_map(|full| full.strip_prefix("param/"));
        let parameters = recorded.filter_map(|parameter| {
            let fits = |name: &str| {
                let own = recorded_name(name);
                self.described.tied.get(&own).unwrap_or(&own) == parameter
            };
            Some((parameter, program.backward_to_parameters(fits)?))
        });
        Operators { outputs, parameters: parameters.collect() }
    }
}

//! The programs of a case and its optimizers in the middle of a run.

use std::collections::HashMap;

use anyhow::Result;
use indexmap::IndexSet;
use tch::{Device, Tensor};

use super::described::{Call, Described, is_output, recorded_name};
use super::training::{Training, Variables, recorded_in};
use super::{graph, section};
use crate::case::{Case, Recorder};
use crate::program::{Kind, Precision, Program, Tap, Taps};
use crate::trace::case_name::OPERATOR;

/// The programs of a case, with the values that they have in the middle of a run, and the optimizers.
pub(super) struct Running<'a> {
    case: &'a Case,
    described: &'a Described,
    pub(super) programs: Vec<OneProgram>,
    training: Training,
}

/// A program, and what of it is passed on.
pub(super) struct OneProgram {
    pub(super) program: Program,
    taps: Taps,
}

/// Takes what an operator returned: the call of the model, the name of the value in the graph, and the value.
pub(super) type Take<'a> = dyn FnMut(&Call, &str, &Tensor) -> Result<()> + 'a;

impl<'a> Running<'a> {
    /// Reads the programs with their initial values, and the optimizers. `of_operators` lists the names of the values
    /// of a program that [`step`](Self::step) passes on as operators return them.
    ///
    /// # Errors
    /// Returns an error if a program or an optimizer is not supported, or if the case lacks what they need.
    pub(super) fn start(
        case: &'a Case,
        described: &'a Described,
        device: Device,
        precision: Precision,
        of_operators: impl Fn(&Program) -> IndexSet<String>,
    ) -> Result<Running<'a>> {
        let mut known = HashMap::<String, Tensor>::new();
        let mut programs = Vec::new();
        for number in 0..described.programs.len() {
            let program = read(case, described, number, device, precision, &mut known)?;
            programs.push(tapped(program, &described.programs[number].values, &of_operators)?);
        }
        let of_section = |section: &str| {
            let names = case.trace.names().filter_map(|full| full.strip_prefix(section));
            let known = |name: &str| {
                Some((name.to_owned(), known.get(&format!("{section}{name}"))?.shallow_clone()))
            };
            names.filter_map(known).collect()
        };
        let model = Variables { parameters: of_section("param/"), buffers: of_section("buffer/") };
        let training = Training::new(case, described, model, device, precision)?;
        Ok(Running { case, described, programs, training })
    }

    /// Takes a step, and records it.
    ///
    /// # Errors
    /// Returns an error if the case lacks what the step needs, the errors of `take`, and PyTorch's errors.
    pub(super) fn step(&mut self, step: u32, recorder: &Recorder, take: &mut Take) -> Result<()> {
        let Running { case, described, programs, training } = self;
        training.step(case, described, step, recorder, |call, inputs, hand_over| {
            let given = inputs.iter().map(|(_, input)| input.shallow_clone()).collect::<Vec<_>>();
            let OneProgram { program, taps } = &programs[call.program];
            program.run_tapped(&given, taps, &mut |name, tensor| {
                if let Some(value) = name.strip_prefix(OPERATOR) {
                    return take(call, value, tensor);
                }
                let name = name.strip_prefix("forward/").unwrap_or(name);
                if is_output(name) {
                    hand_over(name, tensor)
                } else {
                    recorder.tap(&call.output(name), tensor)
                }
            })
        })
    }
}

/// Returns a program with the initial values, which all programs share.
fn read(
    case: &Case,
    described: &Described,
    number: usize,
    device: Device,
    precision: Precision,
    known: &mut HashMap<String, Tensor>,
) -> Result<Program> {
    let trace = &case.trace;
    let json = trace.values(&graph(number))?;
    let mut program = Program::new(json.data(), precision, |kind, name| {
        let own = recorded_name(name);
        let name = described.tied.get(&own).unwrap_or(&own);
        let full = match kind {
            Kind::Parameter(_) => format!("param/{name}"),
            Kind::Buffer => format!("buffer/{name}"),
            Kind::Constant => format!("{}constant/{name}", section(number)),
        };
        if let Some(tensor) = known.get(&full) {
            return Ok(tensor.shallow_clone());
        }
        let tensor = recorded_in(trace, &full, device, precision)?;
        let tensor = tensor.f_set_requires_grad(kind == Kind::Parameter(true))?;
        known.insert(full, tensor.shallow_clone());
        Ok(tensor)
    })?;
    program.compute_on(device)?;
    Ok(program)
}

/// Finds the places at which values of a program are passed on: those of modules by their recorded names, and those of
/// operators.
fn tapped(
    mut program: Program,
    of_modules: &indexmap::IndexMap<String, (String, String)>,
    of_operators: impl Fn(&Program) -> IndexSet<String>,
) -> Result<OneProgram> {
    // What an operator returns is passed on before a module can overwrite it.
    let operators = of_operators(&program).into_iter().map(|value| {
        let name = format!("{OPERATOR}{value}");
        Tap { name, call: None, value }
    });
    let modules = of_modules.iter().map(|(name, (call, value))| {
        let (name, call, value) = (name.clone(), Some(call.clone()), value.clone());
        Tap { name, call, value }
    });
    let taps = operators.chain(modules).collect();
    let taps = program.tap(taps)?;
    Ok(OneProgram { program, taps })
}

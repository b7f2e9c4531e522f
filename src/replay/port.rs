//! The proof of a port of a recorded run: it takes the recorded steps.

use std::cell::RefCell;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use indexmap::IndexMap;
use tch::nn::VarStore;
use tch::{Device, Tensor};

use super::described::{Call, Described, is_output, name_of_recorded, recorded_name};
use super::parting::{Seen, caught, failed_before, first_difference, or_returned, parting};
use super::training::{Training, Variables};
use super::{ProgramReplay, graph, section};
use crate::case::{Case, Recorder};
use crate::port::{Exported, Port, Proof};
use crate::program::Precision;
use crate::torch::watch;
use crate::trace::Trace;

impl ProgramReplay {
    /// Reads the program as the source of a port. `file` is the file of the case.
    ///
    /// # Errors
    /// Returns an error for what cannot be written in Rust, with the operator, the module and the line of Python, and if
    /// no port can take the recorded steps.
    pub fn port(&self, file: &Path) -> Result<(Port, Proof)> {
        let described = &self.described;
        ensure!(
            described.programs.iter().all(|program| program.autocast.is_none()),
            "the model is called within torch.autocast, which tch does not have for the CPU: record it without, and \
             port that"
        );
        let tied = |name: &str| {
            described.tied.get(&recorded_name(name)).map(|first| name_of_recorded(first))
        };
        let trace = &self.case.trace;
        let constant_of = |number: usize| {
            move |name: &str| {
                let full = format!("{}constant/{}", section(number), recorded_name(name));
                trace.tensor_of_parts(&full, Device::Cpu)
            }
        };
        ensure!(described.of_modes().is_some() || is_one_call_a_step(described), ONE_CALL_A_STEP);
        let (first, other) = described.of_modes().map_or((0, None), |(a, b)| (a, Some(b)));
        let json = trace.values(&graph(first))?;
        let training = described.programs[first].training;
        let constant = constant_of(first);
        let buffer = |name: &str| {
            trace.tensor_of_parts(&format!("buffer/{}", recorded_name(name)), Device::Cpu)
        };
        let program =
            Exported { json: json.data(), training, constant: &constant, buffer: &buffer };
        let port = match other {
            None => Port::new(&program, tied)?,
            Some(other) => {
                let json = trace.values(&graph(other))?;
                let constant = constant_of(other);
                let training = Some(false);
                let eval =
                    Exported { json: json.data(), training, constant: &constant, buffer: &buffer };
                Port::of_both(&program, &eval, tied)?
            }
        };
        let name = |full: &String| full.strip_prefix("input/").unwrap_or(full).to_owned();
        let names = &described.programs[first];
        let inputs = names.inputs.iter().map(name).collect();
        // A value that is returned twice has a name for each place.
        let mut left = names.outputs().collect::<Vec<_>>();
        let outputs = port.output_values().map(|value| {
            let is_value = |name: &&str| names.values[&format!("forward/{name}")].1 == value;
            match left.iter().position(is_value) {
                Some(at) => left.remove(at).to_owned(),
                None => String::new(),
            }
        });
        let outputs = outputs.collect();
        let checkpoint = Trace::load(file)?.checkpoint_file().map(str::to_owned);
        Ok((port, Proof::Case { file: file.to_owned(), inputs, outputs, checkpoint }))
    }
}

/// Takes the steps of a recorded run by a port, and returns what it computed, for
/// [`assert_parity`](crate::assert_parity).
///
/// Every variable of `vs` is set to the recorded one. In each step, `forward` is given the recorded inputs by their
/// names, and returns the outputs of the model by theirs, such as `output`. Backward begins at their recorded
/// gradients, and the recorded optimizers take the gradients, or the recorded ones where something changed them, such
/// as clipping. The generator of random numbers starts from its recorded state.
///
/// That is the generator of the process: a test that draws random numbers, as new parameters do, belongs into another
/// file of `tests/` than this one.
///
/// If something differs, the steps up to there are taken once more, so that the report of
/// [`assert_parity`](crate::assert_parity) can say which operator of the program the port does not compute. An output or
/// a gradient that the port lacks differs.
///
/// # Errors
/// Returns the errors of `forward` and of PyTorch, each with the step, and an error if the parameters do not fit the
/// case.
pub fn replay_port(
    case: &Case,
    vs: &VarStore,
    mut forward: impl FnMut(&IndexMap<String, Tensor>) -> Result<Vec<(&'static str, Tensor)>>,
) -> Result<Trace> {
    let described = Described::of(case)?;
    ensure!(is_one_call_a_step(&described), ONE_CALL_A_STEP);
    replayed(case, &described, vs, |_, inputs| forward(inputs))
}

/// What is said of steps that no port can take.
const ONE_CALL_A_STEP: &str = "a port takes steps of one call of the model each, in one mode, with inputs of one size: \
    record such steps, or leave the sizes open by Recorder(..., dynamic_shapes=...), where torch.export can: it fixes the \
    length that a recurrent layer takes";

/// Returns whether each step calls the model once, and all call one program.
fn is_one_call_a_step(described: &Described) -> bool {
    let is_one = |step| described.calls(step).is_ok_and(|calls| calls.len() == 1);
    described.programs.len() == 1 && (1..=described.steps).all(is_one)
}

/// Takes the steps of a recorded run by a port as [`replay_port`] does, and tells `forward` whether the model was called
/// in `train()`. The case has calls of both modes, with inputs of one size in each.
///
/// # Errors
/// Returns the errors of [`replay_port`].
pub fn replay_port_t(
    case: &Case,
    vs: &VarStore,
    mut forward: impl FnMut(&IndexMap<String, Tensor>, bool) -> Result<Vec<(&'static str, Tensor)>>,
) -> Result<Trace> {
    let described = Described::of(case)?;
    let (train, _) = described.of_modes().context(
        "a port of both modes takes calls in train() and in eval(), in each with inputs of one size: record such calls",
    )?;
    replayed(case, &described, vs, |call, inputs| forward(inputs, call.program == train))
}

fn replayed(
    case: &Case,
    described: &Described,
    vs: &VarStore,
    mut forward: impl FnMut(&Call, &IndexMap<String, Tensor>) -> Result<Returned>,
) -> Result<Trace> {
    let mut reached = 0;
    let steps = described.steps;
    let all = taken(case, described, vs, &mut forward, steps, &mut reached, None);
    let mut place = |step: u32, differs: &str| {
        let computed = RefCell::default();
        // A port that fails has computed something until then.
        let _ = taken(case, described, vs, &mut forward, step, &mut 0, Some(&computed));
        // What is wrong is reported also if its place is not found.
        parting(case, described, step, differs, vs.device(), &computed.into_inner()).ok().flatten()
    };
    let mut trace = match all {
        Ok(trace) => trace,
        Err(err) if reached > 0 => {
            return Err(match place(reached, "forward/output") {
                Some(operation) => err.context(failed_before(&operation)),
                None => err,
            });
        }
        Err(err) => return Err(err),
    };
    trace.ask_for(described.computed(case)?);
    if let Some((tensor, step)) = first_difference(&trace, &case.trace)
        && let Some(operation) = or_returned(place(step, &tensor), &tensor)
    {
        trace.note_parting(tensor, operation);
    }
    Ok(trace)
}

/// What a port returns: outputs of the model by their names.
type Returned = Vec<(&'static str, Tensor)>;

/// The `forward` of a port, which is given the recorded inputs by their names.
type Forward<'a> = dyn FnMut(&Call, &IndexMap<String, Tensor>) -> Result<Returned> + 'a;

/// Takes the first steps of a recorded run by a port. `reached` becomes the number of the latest one, and `watched` takes
/// what operators return in the last of them.
fn taken(
    case: &Case,
    described: &Described,
    vs: &VarStore,
    forward: &mut Forward<'_>,
    steps: u32,
    reached: &mut u32,
    watched: Option<&RefCell<Seen>>,
) -> Result<Trace> {
    case.load_parameters(vs)?;
    let parameters = case.named_parameters(vs);
    let is_buffer = |(name, _): &(String, Tensor)| case.trace.contains(&format!("buffer/{name}"));
    let buffers = vs.variables().into_iter().filter(is_buffer).collect();
    let model = Variables { parameters, buffers };
    let mut training = Training::new(case, described, model, vs.device(), Precision::Own)?;
    let recorder = Recorder::new();
    recorder.describe(described.not_computed(case)?, vs.device());
    for step in 1..=steps {
        *reached = step;
        let watched = watched.filter(|_| step == steps);
        let enter = |is_forward| watched.map(|seen| seen.borrow_mut().enter(is_forward));
        let mut take = || {
            training.step(case, described, step, &recorder, |call, inputs, hand_over| {
                let name = |full: &str| full.strip_prefix("input/").unwrap_or(full).to_owned();
                let inputs = inputs.iter().map(|(full, input)| (name(full), input.shallow_clone()));
                let inputs = inputs.collect();
                enter(true);
                let returned = caught(|| forward(call, &inputs));
                enter(false);
                for (name, output) in &returned? {
                    ensure!(
                        is_output(name),
                        "an output is named {name}, and not output or output[0]"
                    );
                    hand_over(name, output)?;
                }
                Ok(())
            })
        };
        let taken = match watched {
            Some(seen) => watch(&mut |tensor| seen.borrow_mut().take(tensor), take),
            None => take(),
        };
        taken.with_context(|| format!("step {step}"))?;
    }
    Ok(recorder.into_trace())
}

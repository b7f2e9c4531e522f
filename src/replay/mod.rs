//! A recorded run of any model, run again by the program that the case holds: forward, backward and optimizer.
//!
//! This room knows cases, programs and optimizers. It does not know any model, and neither compares nor reports.

mod autocast;
mod computed;
mod described;
mod parting;
mod port;
mod running;
mod same_as_program;
mod training;

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use indexmap::IndexSet;
use serde_json::{Map, Value};
use tch::{Device, Tensor};

use crate::case::{Case, Recorder};
use crate::compare::Edge;
use crate::program::{Computed, Precision, Program};
use crate::trace::case_name::{OPERATOR, PROGRAM};
use crate::trace::{Trace, in_step, operator_value, split_step};
use described::{Call, Described, recorded_name};
pub use port::{replay_port, replay_port_t};
use running::Running;
pub use same_as_program::assert_same_as_program;

const NO_PROGRAM: &str = "the case holds no program to run. Record it again with the Python package, which says why \
                          when torch.export refuses the model";

/// A case with the program of its model, which can be run again.
#[derive(Debug)]
pub struct ProgramReplay {
    /// The tensors of the run, and where it was made.
    pub case: Case,
    described: Described,
}

impl ProgramReplay {
    /// Returns whether a case holds the program of its model.
    pub fn is_of(case: &Case) -> bool {
        case.trace.contains(&graph(0))
    }

    /// Returns why a case holds no program, as its recorder said.
    pub fn why_not(case: &Case) -> String {
        let run = case.trace.run::<Map<String, Value>>().ok().flatten().unwrap_or_default();
        let lines = run.get("not_recorded").and_then(Value::as_array).into_iter().flatten();
        let mut reasons = lines.filter_map(|line| line.as_str()?.strip_prefix("program: "));
        match reasons.next() {
            Some(reason) => format!("the case holds no program to run, since {reason}"),
            None => NO_PROGRAM.to_owned(),
        }
    }

    /// Creates a replay of a case, and checks what the case says of its program's inputs. The program itself and the
    /// optimizer are read when they run.
    ///
    /// # Errors
    /// Returns an error if the case holds no program, and if it lacks an input that the program needs.
    pub fn new(case: Case) -> Result<ProgramReplay> {
        ensure!(ProgramReplay::is_of(&case), ProgramReplay::why_not(&case));
        let described = Described::of(&case)?;
        Ok(ProgramReplay { case, described })
    }

    /// Runs the case again on `device`, from the recorded inputs, initial values, states of the generators, gradients
    /// of the outputs, and gradients as the optimizer took them where something changed them.
    ///
    /// The trace says under `not_recorded` what the program does not compute, such as the loss.
    ///
    /// # Errors
    /// Returns an error if the program or the optimizer is not supported, or if the case lacks what they need, and
    /// PyTorch's errors, each with the step and the operator.
    pub fn run(&self, device: Device) -> Result<Trace> {
        self.run_in(device, Precision::Own)
    }

    /// Runs the case again as [`run`](Self::run) does, but computes in float64, where rounding is negligible: the
    /// result is what the run is compared with where no bits are promised. Random numbers are those of the recording.
    ///
    /// # Errors
    /// Returns the errors of [`run`](Self::run), and one if an operator does not compute in float64.
    pub fn run_in_float64(&self, device: Device) -> Result<Trace> {
        self.run_in(device, Precision::Double).context("in float64")
    }

    /// Returns whether a replay takes a tensor from the case, although it is none that [every run is
    /// given](crate::is_given): a gradient as the optimizer took it.
    pub fn takes(name: &str) -> bool {
        split_step(name).map_or(name, |(_, name)| name).starts_with("taken/")
    }

    fn run_in(&self, device: Device, precision: Precision) -> Result<Trace> {
        let mut running = self.start(device, precision)?;
        let recorder = Recorder::beside(&self.case.trace);
        recorder.describe(self.described.not_computed(&self.case)?, device);
        for step in 1..=self.described.steps {
            let mut take = |call: &Call, value: &str, tensor: &Tensor| {
                let name = call.name(value);
                // Another call of the program may have no digests.
                match self.case.trace.contains(&in_step(step, &format!("{OPERATOR}{name}"))) {
                    true => recorder.operator(&name, tensor),
                    false => Ok(()),
                }
            };
            running.step(step, &recorder, &mut take).with_context(|| format!("step {step}"))?;
        }
        Ok(recorder.into_trace())
    }

    /// Starts a run of the case, which passes on what is recorded of operators. In float64 that is nothing.
    fn start(&self, device: Device, precision: Precision) -> Result<Running<'_>> {
        let recorded = (1..=self.described.steps).flat_map(|step| self.operators_of(step));
        let recorded = recorded.map(|(_, value, _)| value).collect::<IndexSet<_>>();
        Running::start(&self.case, &self.described, device, precision, |program| {
            let is_tapped = |value: &&&str| precision == Precision::Own && program.computes(value);
            recorded.iter().filter(is_tapped).map(|value| (*value).to_owned()).collect()
        })
    }

    /// Lists the operators of the program, each once.
    ///
    /// # Errors
    /// Returns an error if the program is not supported, or if the case lacks what it needs.
    pub fn operators(&self) -> Result<Vec<String>> {
        let running = self.start(Device::Cpu, Precision::Own)?;
        let all = running.programs.iter().flat_map(|one| one.program.operators());
        Ok(all.collect::<BTreeSet<_>>().into_iter().collect())
    }

    /// Lists the recorded digests of what operators returned in a step: the name in the step, the value of the program,
    /// and the call of the model.
    fn operators_of(&self, step: u32) -> Vec<(String, &str, usize)> {
        let own = |full| match split_step(full) {
            None => (step == 1).then_some(full),
            Some((of_step, name)) => (of_step.parse() == Ok(step)).then_some(name),
        };
        let names = self.case.trace.names().filter_map(own);
        let names = names.filter_map(|name| Some((name, name.strip_prefix(OPERATOR)?)));
        let named = names.map(|(name, value)| match value.rsplit_once('@') {
            Some((value, call)) => (name.to_owned(), value, call.parse().unwrap_or(1)),
            None => (name.to_owned(), value, 1),
        });
        named.collect()
    }

    /// Returns from which recorded result of an operator each other one is computed, in the order of execution, and by
    /// which operator; and so for the buffers after each step. Without digests of operators there are none.
    ///
    /// # Errors
    /// Returns the errors of [`operators`](Self::operators).
    pub fn dataflow(&self) -> Result<Vec<Edge>> {
        let trace = &self.case.trace;
        let mut edges = Vec::new();
        if !trace.names().any(|name| operator_value(name).is_some()) {
            return Ok(edges);
        }
        let programs = self.graphs()?;
        let mut before = "what the program is given".to_owned();
        let mut edge = |from: Option<String>, to: String, operation: String| {
            let from = from.unwrap_or_else(|| before.clone());
            before.clone_from(&to);
            edges.push(Edge { from, to, operation });
        };
        for step in 1..=self.described.steps {
            let calls = self.described.calls(step)?;
            let program = |call: &Call| &programs[call.program];
            let values = self.operators_of(step);
            if values.is_empty() {
                break;
            }
            for (name, value, number) in values {
                let call = calls.get(number.saturating_sub(1));
                let call = call.with_context(|| format!("step {step} has no call {number}"))?;
                let missing = || Computed {
                    operator: format!("the program, in which no operator computes {value}"),
                    from: Vec::new(),
                };
                let computed = program(call).computed(value).unwrap_or_else(missing);
                let full =
                    |value: &String| in_step(step, &format!("{OPERATOR}{}", call.name(value)));
                let from = computed.from.iter().map(full).find(|from| trace.contains(from));
                edge(from, in_step(step, &name), computed.operator);
            }
            for (name, computed) in
                calls.last().map(program).map(Program::last_of_buffers).into_iter().flatten()
            {
                edge(None, format!("step/{step}/{}", recorded_name(name)), computed.operator);
            }
        }
        Ok(edges)
    }
}

/// Returns what the names of a program begin with, counted from 0.
fn section(number: usize) -> String {
    if number == 0 { PROGRAM.to_owned() } else { format!("{PROGRAM}{}/", number + 1) }
}

fn graph(number: usize) -> String {
    format!("{}graph", section(number))
}

//! A recorded run of any model, run again by the program that the case holds: forward, backward and optimizer.
//!
//! This room knows cases, programs and optimizers. It does not know any model, and neither compares nor reports.

mod described;
mod port;
mod training;

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use indexmap::IndexMap;
use tch::{Device, Tensor};

use crate::case::{Case, Recorder};
use crate::compare::Edge;
use crate::program::{Computed, Kind, Precision, Program, Tap, Taps};
use crate::trace::case_name::{OPERATOR, PROGRAM};
use crate::trace::{Trace, in_step, split_step};
use described::{Described, recorded_name};
pub use port::{assert_same_as_program, replay_port};
use training::{Training, Variables, recorded_in};

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
        case.trace.contains(&graph())
    }

    /// Creates a replay of a case, and checks what the case says of its program's inputs. The program itself and the
    /// optimizer are read when they run.
    ///
    /// # Errors
    /// Returns an error if the case holds no program, and if it lacks an input that the program needs.
    pub fn new(case: Case) -> Result<ProgramReplay> {
        ensure!(
            ProgramReplay::is_of(&case),
            "the case holds no program of its model: record it again"
        );
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
        let mut started = self.start(device, precision)?;
        let recorder = Recorder::new();
        recorder.describe(self.described.not_computed(&self.case), device);
        for step in 1..=self.described.steps {
            self.step(step, &mut started, &recorder).with_context(|| format!("step {step}"))?;
        }
        Ok(recorder.into_trace())
    }

    /// Lists the operators of the program, each once.
    ///
    /// # Errors
    /// Returns an error if the program is not supported, or if the case lacks what it needs.
    pub fn operators(&self) -> Result<Vec<String>> {
        Ok(self.start(Device::Cpu, Precision::Own)?.program.operators())
    }

    /// Lists the values of the program whose digests the case has for its first step.
    fn operator_values(&self) -> impl Iterator<Item = &str> {
        self.case.trace.names().filter_map(|name| name.strip_prefix(OPERATOR))
    }

    /// Returns from which recorded result of an operator each other one is computed, in the order of execution, and by
    /// which operator; and so for the buffers after each step. Without digests of operators there are none.
    ///
    /// # Errors
    /// Returns the errors of [`operators`](Self::operators).
    pub fn dataflow(&self) -> Result<Vec<Edge>> {
        let trace = &self.case.trace;
        let program = self.start(Device::Cpu, Precision::Own)?.program;
        let mut edges = Vec::new();
        let mut before = "what the program is given".to_owned();
        let mut edge = |step, to: String, computed: Computed| {
            let of_step = |value: &String| in_step(step, &format!("{OPERATOR}{value}"));
            let from = computed.from.iter().map(of_step).find(|from| trace.contains(from));
            let from = from.unwrap_or_else(|| before.clone());
            before.clone_from(&to);
            edges.push(Edge { from, to, operation: computed.operator });
        };
        for step in 1..=self.described.steps {
            for value in self.operator_values() {
                let missing = || Computed {
                    operator: format!("the program, in which no operator computes {value}"),
                    from: Vec::new(),
                };
                let computed = program.computed(value).unwrap_or_else(missing);
                edge(step, in_step(step, &format!("{OPERATOR}{value}")), computed);
            }
            if self.operator_values().next().is_none() {
                break;
            }
            for (name, computed) in program.last_of_buffers() {
                edge(step, format!("step/{step}/{}", recorded_name(name)), computed);
            }
        }
        Ok(edges)
    }

    /// Returns the program with its initial values, and the optimizers.
    fn start(&self, device: Device, precision: Precision) -> Result<Started> {
        let trace = &self.case.trace;
        let graph = trace.values(&graph())?;
        let mut known = HashMap::<String, Tensor>::new();
        let mut program = Program::new(graph.data(), precision, |kind, name| {
            let own = recorded_name(name);
            let name = self.described.tied.get(&own).unwrap_or(&own);
            let full = match kind {
                Kind::Parameter(_) => format!("param/{name}"),
                Kind::Buffer => format!("buffer/{name}"),
                Kind::Constant => format!("{PROGRAM}constant/{name}"),
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
        let taps = self.described.values.iter().map(|(name, (call, value))| {
            let (name, call, value) = (name.clone(), Some(call.clone()), value.clone());
            Tap { name, call, value }
        });
        // What an operator returns is passed on before a module can overwrite it.
        let is_tapped = |value: &&str| precision == Precision::Own && program.computes(value);
        let operators = self.operator_values().filter(is_tapped);
        let operators = operators.map(|value| {
            let name = format!("{OPERATOR}{value}");
            Tap { name, call: None, value: value.to_owned() }
        });
        let taps = program.tap(&operators.chain(taps).collect::<Vec<_>>())?;
        let parameters = self.of_section("param/", &known);
        let buffers = self.of_section("buffer/", &known);
        let from_others = self.described.computed_from(&program);
        let model = Variables { parameters, buffers };
        let training = Training::new(&self.case, &self.described, model, device, precision)?;
        Ok(Started { program, taps, training, from_others })
    }

    /// Lists the tensors of the program that stand in a section of the case, in its order.
    fn of_section(&self, section: &str, known: &HashMap<String, Tensor>) -> Vec<(String, Tensor)> {
        let names = self.case.trace.names().filter_map(|full| full.strip_prefix(section));
        let known = |name: &str| {
            Some((name.to_owned(), known.get(&format!("{section}{name}"))?.shallow_clone()))
        };
        names.filter_map(known).collect()
    }

    fn step(&self, step: u32, started: &mut Started, recorder: &Recorder) -> Result<()> {
        let Started { program, taps, training, from_others } = started;
        training.step(&self.case, &self.described, step, from_others, recorder, |inputs| {
            let given = inputs.iter().map(|(_, input)| input.shallow_clone()).collect::<Vec<_>>();
            let mut outputs = IndexMap::new();
            program.run_tapped(&given, taps, &mut |name, tensor| {
                if let Some(value) = name.strip_prefix(OPERATOR) {
                    return recorder.operator(value, tensor);
                }
                let name = name.strip_prefix("forward/").unwrap_or(name);
                if described::is_output(name) {
                    outputs.insert(name.to_owned(), tensor.shallow_clone());
                }
                recorder.tap(name, tensor)
            })?;
            Ok(outputs)
        })
    }
}

/// A program and its optimizers in the middle of a run.
struct Started {
    program: Program,
    taps: Taps,
    training: Training,
    /// The outputs, and whether another one is computed from them.
    from_others: Vec<(String, bool)>,
}

fn graph() -> String {
    format!("{PROGRAM}graph")
}

//! A recorded run of any model, run again by the program that the case holds: forward, backward and optimizer.
//!
//! This room knows cases, programs and optimizers. It does not know any model, and neither compares nor reports.

mod described;

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use indexmap::IndexMap;
use tch::{Device, Kind as Dtype, Tensor, no_grad};

use crate::case::{Case, Recorder};
use crate::compare::Edge;
use crate::optim::{AnyOptimizer, RecordedOptimizer};
use crate::program::{Computed, Kind, Precision, Program, Tap, Taps};
use crate::torch::{backward, clear_grad};
use crate::trace::case_name::{FACTOR, OPERATOR, PROGRAM, RNG};
use crate::trace::{Trace, in_step, split_step};
use described::{Described, recorded_name};

/// Is held by the step that draws random numbers.
static GENERATOR: Mutex<()> = Mutex::new(());

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
        program.compute_on(device);
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
        let mut optimizers = Vec::new();
        for recorded in &self.described.optimizers {
            let named = parameters.iter().map(|(name, tensor)| (name.as_str(), tensor));
            let mut built = recorded.build(named)?;
            if trace.names().any(|name| name.starts_with("state/")) {
                match precision {
                    Precision::Own => built.load_state(trace, "state/")?,
                    Precision::Double => built.load_state(&self.wide_state()?, "state/")?,
                }
            }
            optimizers.push((recorded.clone(), built));
        }
        Ok(Started { program, taps, parameters, buffers, optimizers, device, precision })
    }

    /// Returns the initial state of the optimizers in float64.
    fn wide_state(&self) -> Result<Trace> {
        let mut states = Trace::new();
        for name in self.case.trace.names().filter(|name| name.starts_with("state/")) {
            let state = recorded_in(&self.case.trace, name, Device::Cpu, Precision::Double)?;
            states.push(name, &state)?;
        }
        Ok(states)
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
        let Case { trace, .. } = &self.case;
        let recorded = |name: &str| trace.contains(&in_step(step, name));
        let (device, precision) = (started.device, started.precision);
        let value = |name: &str| recorded_in(trace, &in_step(step, name), device, precision);
        // The generator is one for all threads, and cases are replayed side by side.
        let draws = RNG.iter().any(|name| recorded(name));
        let _alone = draws.then(|| GENERATOR.lock().unwrap_or_else(PoisonError::into_inner));
        self.case.restore_rng(step)?;
        let kept = |name: &str| self.described.keeps(step, name);
        for (_, parameter) in started.parameters.iter().filter(|(name, _)| !kept(name)) {
            clear_grad(parameter)?;
        }
        self.described.ensure_same_arguments(step)?;
        let mut inputs = Vec::new();
        for name in &self.described.inputs {
            let requires_grad = recorded(&format!("grad/{name}"));
            inputs.push((name.clone(), value(name)?.f_set_requires_grad(requires_grad)?));
        }
        let given = inputs.iter().map(|(_, input)| input.shallow_clone()).collect::<Vec<_>>();
        let mut outputs = IndexMap::new();
        let mut take = |name: &str, tensor: &Tensor| {
            if let Some(value) = name.strip_prefix(OPERATOR) {
                return recorder.operator(value, tensor);
            }
            let name = name.strip_prefix("forward/").unwrap_or(name);
            if described::is_output(name) {
                outputs.insert(name.to_owned(), tensor.shallow_clone());
            }
            recorder.tap(name, tensor)
        };
        let went_backward =
            self.described.outputs().any(|output| recorded(&format!("grad/{output}")));
        if went_backward {
            started.program.run_tapped(&given, &started.taps, &mut take)?;
        } else {
            no_grad(|| started.program.run_tapped(&given, &started.taps, &mut take))?;
        }
        if went_backward {
            let mut roots = Vec::new();
            for (name, from_others) in self.described.computed_from(&started.program) {
                let full = format!("grad/{name}");
                if let Some(output) = outputs.get(&name).filter(|_| !from_others && recorded(&full))
                {
                    roots.push((output, value(&full)?));
                }
            }
            let roots = roots.iter().map(|(output, gradient)| (*output, Some(gradient)));
            backward(&roots.collect::<Vec<_>>())?;
            let leaves = started.parameters.iter().chain(&inputs);
            let leaves = leaves.map(|(name, leaf)| (name.clone(), leaf.shallow_clone()));
            recorder.gradients_of(None, &leaves.collect::<Vec<_>>())?;
            let factor = recorded(FACTOR).then(|| value(FACTOR)).transpose()?;
            for (name, parameter) in &started.parameters {
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
            let all = started.optimizers.iter_mut().enumerate();
            for (_, (recorded, optimizer)) in
                all.filter(|(at, _)| self.described.steps_in(step, *at))
            {
                recorded.begin_step(step, &mut **optimizer)?;
                optimizer.step(&mut |_| {
                    bail!("its step computes the loss again, which no program has")
                })?;
            }
        }
        let after = started.parameters.iter().chain(&started.buffers);
        let after = after.map(|(name, tensor)| (name.clone(), tensor.shallow_clone()));
        recorder.step_of(&after.collect::<Vec<_>>(), |trace, step| {
            let prefix = format!("step/{step}/state/");
            started
                .optimizers
                .iter()
                .try_for_each(|(_, optimizer)| optimizer.save_state(trace, &prefix))
        })
    }
}

/// A program and its optimizers in the middle of a run.
struct Started {
    program: Program,
    taps: Taps,
    parameters: Vec<(String, Tensor)>,
    buffers: Vec<(String, Tensor)>,
    optimizers: Vec<(RecordedOptimizer, Box<dyn AnyOptimizer>)>,
    device: Device,
    precision: Precision,
}

/// Returns a recorded tensor on a device. Floats have the precision with which the program computes.
fn recorded_in(trace: &Trace, name: &str, on: Device, precision: Precision) -> Result<Tensor> {
    let tensor = trace.tensor_on(name, on)?;
    let wide = precision == Precision::Double && tensor.is_floating_point();
    Ok(if wide { tensor.f_to_kind(Dtype::Double)? } else { tensor })
}

fn graph() -> String {
    format!("{PROGRAM}graph")
}

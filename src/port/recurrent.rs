//! `nn.LSTM` and `nn.GRU` as tch's layers, where these compute the same bits, and how a call of one is written.

use std::collections::HashSet;

use super::flat::{Argument, Flat, From, Id, Int, Step, Variable};
use super::number::{Hole, Number};
use super::rust::{FLOAT, Kind};
use super::tree::{Body, What};

/// What a layer has beside its numbers.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Recurrent {
    cell: Cell,
    has_biases: bool,
    train: bool,
    bidirectional: bool,
    batch_first: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Cell {
    Lstm,
    Gru,
}

/// What a call of a layer takes and returns.
pub(super) struct Run {
    pub(super) input: Id,
    /// The state that it begins with; none where that is zeros.
    pub(super) state: Vec<Id>,
    /// All that it returns: the output, and the parts of the last state.
    pub(super) results: Vec<Id>,
}

impl Recurrent {
    /// Returns the layer that computes what a call of a module does, and the numbers that make it. `shared` has the
    /// variables that other calls read as well.
    pub(super) fn of(
        body: &Body,
        flat: &Flat,
        shared: &HashSet<String>,
    ) -> Option<(Recurrent, Vec<Hole>)> {
        let (step, before) = steps(body)?;
        let cell = match (body.class.as_str(), step.operator.as_str()) {
            ("torch.nn.modules.rnn.LSTM", "lstm.input") => Cell::Lstm,
            ("torch.nn.modules.rnn.GRU", "gru.input") => Cell::Gru,
            _ => return None,
        };
        let is = |name: &str| match argument(step, name) {
            Some(Argument::Bool(value)) => Some(*value),
            _ => None,
        };
        let (Some(Argument::Int(num_layers)), Some(Argument::Float(dropout))) =
            (argument(step, "num_layers"), argument(step, "dropout"))
        else {
            return None;
        };
        let drops = drops(step);
        let recurrent = Recurrent {
            cell,
            has_biases: is("has_biases")?,
            train: !drops || is("train")?,
            bidirectional: is("bidirectional")?,
            batch_first: is("batch_first")?,
        };
        let own = recurrent.variables(body, flat, *num_layers)?;
        let ids = argument(step, "params")?.ids();
        let is_variable = |(id, own): (&Id, &&Variable)| {
            flat.values[*id].from == From::Variable(own.name.clone()) && !shared.contains(&own.name)
        };
        if ids.len() != own.len() || !ids.iter().zip(&own).all(is_variable) {
            return None;
        }
        let [Some(_), Some(input_size)] = own.first()?.meta.sizes[..] else { return None };
        let [Some(rows), Some(hidden_size)] = own.get(1)?.meta.sizes[..] else { return None };
        let run = Run::of(body)?;
        let parts = recurrent.cell.parts();
        if run.results.len() != parts + 1 || ![0, parts].contains(&run.state.len()) {
            return None;
        }
        let is_returned = body.outputs.iter().all(|id| run.results.contains(id));
        let is_given = body.inputs.iter().all(|(_, id)| *id == run.input || run.state.contains(id));
        let directions = if recurrent.bidirectional { 2 } else { 1 };
        let state = [num_layers * directions, hidden_size];
        let gates = recurrent.cell.gates();
        let begins = match &run.state[..] {
            [] => before.iter().all(|step| recurrent.begins_with(step, run.input, state, flat)),
            _ => before.is_empty(),
        };
        let fits = hidden_size.checked_mul(gates) == Some(rows);
        if !fits || !is_returned || !is_given || !begins {
            return None;
        }
        let holes = vec![
            Hole::int("input_size", input_size),
            Hole::int("hidden_size", hidden_size),
            Hole::int("num_layers", *num_layers),
            Hole { hint: "dropout".to_owned(), number: Number::Float(*dropout) },
        ];
        Some((recurrent, holes))
    }

    /// Lists the variables of tch's layer in its order, if they are all that the module has.
    fn variables<'a>(
        &self,
        body: &Body,
        flat: &'a Flat,
        num_layers: i64,
    ) -> Option<Vec<&'a Variable>> {
        let within = body.prefix();
        let own = flat.variables.iter().filter(|variable| variable.name.starts_with(&within));
        let own = own.collect::<Vec<_>>();
        let usual = |v: &&Variable| v.is_parameter && v.requires_grad && v.meta.dtype == FLOAT;
        let kinds: &[&str] = match self.has_biases {
            true => &["weight_ih", "weight_hh", "bias_ih", "bias_hh"],
            false => &["weight_ih", "weight_hh"],
        };
        let directions: &[&str] = if self.bidirectional { &["", "_reverse"] } else { &[""] };
        let layers = usize::try_from(num_layers).ok()?;
        // A number of layers that no module has is none to list names for.
        if layers.checked_mul(kinds.len() * directions.len()) != Some(own.len()) {
            return None;
        }
        let mut found = Vec::new();
        for layer in 0..layers {
            for direction in directions {
                for kind in kinds {
                    let name = format!("{within}{kind}_l{layer}{direction}");
                    found.push(*own.iter().find(|v| v.name == name && usual(v))?);
                }
            }
        }
        Some(found)
    }

    /// Returns whether a step only makes the state of zeros that tch's layer makes as well.
    fn begins_with(&self, step: &Step, input: Id, [first, last]: [i64; 2], flat: &Flat) -> bool {
        let Some(meta) = flat.values[input].meta.as_ref() else { return false };
        if step.operator == "sym_size.int" {
            return argument(step, "self") == Some(&Argument::Value(input));
        }
        let batch = usize::from(!self.batch_first);
        let is_batch = |int: &Int| match int {
            Int::Known(size) => meta.sizes[batch] == Some(*size),
            Int::Value(id) => {
                let symbol = &flat.values[*id].symbol;
                !symbol.is_empty() && meta.symbols[batch] == *symbol
            }
        };
        let dtypes = step.results.ids();
        let dtypes = dtypes.iter().map(|id| flat.values[*id].meta.as_ref().map(|meta| meta.dtype));
        meta.sizes.len() == 3
            && step.operator == "zeros"
            && dtypes.into_iter().all(|dtype| dtype == Some(FLOAT))
            && matches!(argument(step, "size"), Some(Argument::Ints(sizes)) if matches!(
                &sizes[..],
                [Int::Known(layers), size, Int::Known(width)]
                    if *layers == first && is_batch(size) && *width == last
            ))
    }

    /// Returns tch's type.
    pub(super) fn type_name(&self) -> &'static str {
        match self.cell {
            Cell::Lstm => "nn::LSTM",
            Cell::Gru => "nn::GRU",
        }
    }

    /// Returns the function that makes the layer, and what differs from the defaults of its configuration. `layers` and
    /// `dropout` are numbers as Rust.
    pub(super) fn made_by<'a>(
        &self,
        layers: &'a str,
        dropout: &'a str,
    ) -> (&'static str, Vec<(&'static str, &'a str, &'static str)>) {
        let function = match self.cell {
            Cell::Lstm => "lstm",
            Cell::Gru => "gru",
        };
        let word = |is: bool| if is { "true" } else { "false" };
        let config = vec![
            ("has_biases", word(self.has_biases), "true"),
            ("num_layers", layers, "1"),
            ("dropout", dropout, "0."),
            ("train", word(self.train), "true"),
            ("bidirectional", word(self.bidirectional), "false"),
            ("batch_first", word(self.batch_first), "true"),
        ];
        (function, config)
    }

    /// Returns whether a call reads its input twice: for the size of the batch, which tch takes for the first one.
    pub(super) fn reads_twice(&self, run: &Run) -> bool {
        run.state.is_empty() && !self.batch_first
    }

    /// Writes a call of the layer at a place. `input` is a `&Tensor`, and `state` has the tensors of the first state.
    pub(super) fn call(&self, place: &str, input: &str, state: &[String]) -> String {
        let batch = || format!("{}.size()[1]", input.trim_start_matches('&'));
        match (state, self.batch_first) {
            ([], true) => format!("{place}.seq({input})"),
            ([], false) => format!("{place}.seq_init({input}, &{place}.zero_state({}))", batch()),
            _ => format!("{place}.seq_init({input}, &{})", self.cell.state(&state.join(", "))),
        }
    }

    /// Writes a call that begins with a state which is a variable.
    pub(super) fn go_on(&self, place: &str, input: &str, state: &str) -> String {
        format!("{place}.seq_init({input}, &{state})")
    }

    /// Returns what a call is that returns all results.
    pub(super) fn returns(&self) -> Kind {
        match self.cell {
            Cell::Lstm => Kind::OfLstm,
            Cell::Gru => Kind::OfGru,
        }
    }
}

impl Cell {
    fn gates(self) -> i64 {
        match self {
            Cell::Lstm => 4,
            Cell::Gru => 3,
        }
    }

    /// Returns how many tensors a state is.
    fn parts(self) -> usize {
        match self {
            Cell::Lstm => 2,
            Cell::Gru => 1,
        }
    }

    fn state(self, parts: &str) -> String {
        match self {
            Cell::Lstm => format!("nn::LSTMState(({parts}))"),
            Cell::Gru => format!("nn::GRUState({parts})"),
        }
    }
}

impl Run {
    /// Reads the call that a body of such a layer is.
    pub(super) fn of(body: &Body) -> Option<Run> {
        let (step, before) = steps(body)?;
        let Some(Argument::Value(input)) = argument(step, "input") else { return None };
        let state = argument(step, "hx")?.ids();
        let made = before.iter().flat_map(|step| step.results.ids()).collect::<Vec<_>>();
        let is_made = |id: &Id| made.contains(id);
        let state = match state.iter().any(is_made) {
            // One part of zeros and one that is given are no state of tch's.
            true if !state.iter().all(is_made) => return None,
            true => Vec::new(),
            false => state,
        };
        Some(Run { input: *input, state, results: step.results.ids() })
    }

    /// Returns which of the results the one is that is read behind the call.
    pub(super) fn part(&self, body: &Body) -> Option<usize> {
        let [read] = body.outputs[..] else { return None };
        self.results.iter().position(|id| *id == read)
    }
}

/// Returns the part of what such a call returns that is the n-th result.
pub(super) fn part(kind: Kind, at: usize) -> &'static str {
    match (kind, at) {
        (_, 0) => ".0",
        (Kind::OfLstm, 1) => ".1.h()",
        (Kind::OfLstm, _) => ".1.c()",
        _ => ".1.value()",
    }
}

/// Writes the pattern that takes apart what such a call returns. A part that is not read has the name `_`.
pub(super) fn pattern(kind: Kind, names: &[String]) -> String {
    let (output, state) = names.split_first().map_or(("_", names), |(first, rest)| (first, rest));
    let is_read = state.iter().any(|name| name != "_");
    let cell = if kind == Kind::OfLstm { Cell::Lstm } else { Cell::Gru };
    let state = if is_read { cell.state(&state.join(", ")) } else { "_".to_owned() };
    format!("({output}, {state})")
}

/// Returns whether the layer drops something in `train()`, which it does between its layers.
fn drops(step: &Step) -> bool {
    argument(step, "dropout") != Some(&Argument::Float(0.))
        && argument(step, "num_layers") != Some(&Argument::Int(1))
}

impl Flat {
    /// Lets recurrent layers that drop nothing be the same in both modes.
    pub(super) fn settle_recurrent_modes(&mut self) {
        let is_recurrent = |step: &&mut Step| {
            ["lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input"]
                .contains(&step.operator.as_str())
                && !drops(step)
        };
        for step in self.steps.iter_mut().filter(is_recurrent) {
            for (name, argument) in &mut step.arguments {
                if name == "train" && matches!(argument, Argument::ByMode(_)) {
                    *argument = Argument::Bool(true);
                }
            }
        }
    }
}

/// Returns the last operator of a body that calls no module, and those before it.
fn steps(body: &Body) -> Option<(&Step, Vec<&Step>)> {
    let steps = body.items.iter().map(|item| match &item.what {
        What::Step(step) if !step.depends_on_mode() => Some(step),
        _ => None,
    });
    let mut steps = steps.collect::<Option<Vec<_>>>()?;
    Some((steps.pop()?, steps))
}

fn argument<'a>(step: &'a Step, name: &str) -> Option<&'a Argument> {
    step.arguments.iter().find(|(known, _)| known == name).map(|(_, argument)| argument)
}

//! Calls of modules: of a struct's `forward`, of a function, and of tch's layers.

use anyhow::{Context, Result};

use super::class::Class;
use super::fields;
use super::flat::{Id, Results};
use super::forward::Writer;
use super::identifier::snake;
use super::names::with_word;
use super::operator::Scope;
use super::python;
use super::recurrent::{self, Recurrent, Run};
use super::rust::{Expression, Kind};
use super::targets::Target;
use super::tree::{Body, What};

impl Writer<'_> {
    pub(super) fn class_of(&self, call: usize) -> &Class {
        &self.port.classes.classes[self.port.classes.of_body[call]]
    }

    /// Writes a call, and returns what its expression is as well.
    pub(super) fn call(&mut self, call: usize) -> Result<(Results, Expression)> {
        let port = self.port;
        let body = &port.tree.bodies[call];
        let class = &port.classes.classes[port.classes.of_body[call]];
        let (results, kind) = match &body.outputs[..] {
            [one] => (Results::One(*one), Kind::New),
            several => (Results::Tuple(several.to_vec()), Kind::Several),
        };
        if class.is_function() {
            let text = format!("{}({})", snake(&class.name), self.given(body).join(", "));
            return Ok((results, Expression::new(text, kind, true)));
        }
        let place = self.place(self.relative(&body.module))?;
        if self.is_optional(call) {
            let given = self.given(body);
            let name = place.trim_start_matches("self.");
            let text = self.called(call, name, &given);
            let mark = if class.layer.is_none() { "?" } else { "" };
            let given = self.read_again(body.inputs[0].1).owned();
            let text =
                format!("match &{place} {{\nSome({name}) => {text}{mark},\nNone => {given},\n}}");
            return Ok((results, Expression::new(text, Kind::New, false)));
        }
        if let Some((recurrent, run)) = class.layer.as_ref().and_then(|layer| layer.run(body)) {
            let input = self.read(run.input).reference();
            let text = match self.whole_state(&run) {
                Some(state) => recurrent.go_on(&place, &input, &state),
                None => recurrent.call(&place, &input, &self.state(&run, &input)),
            };
            let whole = Expression::new(text, recurrent.returns(), false);
            return Ok((Results::Tuple(run.results), whole));
        }
        let given = self.given(body);
        let text = self.called(call, &place, &given);
        Ok((results, Expression::new(text, kind, class.layer.is_none())))
    }

    /// Returns where a module is, such as `self.h[0]`.
    fn place(&self, path: &str) -> Result<String> {
        let place = fields::place(self.class, path);
        let place = place.with_context(|| format!("{} has no module {path}", self.class.name))?;
        Ok(self.of_self(&place))
    }

    /// Writes what a call is given.
    fn given(&mut self, body: &Body) -> Vec<String> {
        let mut given = match &body.list {
            Some(list) => {
                let parts = list.ids.iter().map(|id| self.read(*id).owned());
                vec![format!("&[{}]", parts.collect::<Vec<_>>().join(", "))]
            }
            None => body.inputs.iter().map(|(_, id)| self.read(*id).reference()).collect(),
        };
        given.extend(body.depends_on_mode.then(|| "train".to_owned()));
        given
    }

    /// Writes a call of a module that is a field, and returns one tensor or what its `forward` does. `given` is what it
    /// takes.
    pub(super) fn called(&self, call: usize, place: &str, given: &[String]) -> String {
        let class = self.class_of(call);
        let body = &self.bodies()[call];
        if let ([input, state @ ..], Some((recurrent, run))) = (given, self.run(call)) {
            let whole = recurrent.call(place, input, state);
            let part = run.part(body).map_or("", |at| recurrent::part(recurrent.returns(), at));
            return whole + part;
        }
        format!("{place}.{}({})", class.forward(self.port), given.join(", "))
    }

    /// Returns the variable that is the whole state which a recurrent layer begins with.
    fn whole_state(&mut self, run: &Run) -> Option<String> {
        let (_, name) = self.states.iter().find(|(ids, _)| *ids == run.state)?;
        let name = name.clone();
        for id in &run.state {
            self.count_read(*id);
        }
        Some(name)
    }

    /// Writes the tensors of the state that a recurrent layer begins with. `input` is what it is given beside them.
    fn state(&mut self, run: &Run, input: &str) -> Vec<String> {
        let parts = run.state.iter().map(|id| (*id, self.read(*id))).collect::<Vec<_>>();
        let written = |(id, part): &(Id, Expression)| {
            let name = &part.text;
            let is_name = part.kind == Kind::Place && !name.contains(['.', '[']);
            let reads = |text: &str| with_word(text, name, "") != text;
            let of_others = parts.iter().filter(|(_, other)| reads(&other.text)).count();
            let is_last = self.reads.get(id) == Some(&0) && !self.is_read_later(name);
            match is_name && is_last && of_others == 1 && !reads(input) {
                true => part.value(),
                false => part.owned(),
            }
        };
        parts.iter().map(written).collect()
    }

    /// Returns the name for the state that a recurrent layer ends with, if only such layers begin with it, all of it.
    pub(super) fn name_of_state(&self, kind: Kind, parts: &[Id]) -> Option<String> {
        if !matches!(kind, Kind::OfLstm | Kind::OfGru) || self.branch.is_some() {
            return None;
        }
        let later = self.body.items[self.item + 1..].iter().filter(|item| match item.what {
            What::Call(call) => self.run(call).is_some_and(|(recurrent, run)| {
                run.state == parts && !parts.contains(&run.input) && recurrent.returns() == kind
            }),
            What::Step(_) => false,
        });
        let count = later.count();
        let is_only = |id: &Id| self.reads.get(id) == Some(&count);
        if count == 0 || !parts.iter().all(is_only) {
            return None;
        }
        let name = match python::assigned(self.body.items[self.item].source()) {
            Some(Target::Several(targets)) => match targets.get(1) {
                Some(Target::Name(name)) => snake(name),
                _ => "state".to_owned(),
            },
            _ => "state".to_owned(),
        };
        Some(self.unused(&name))
    }

    /// Returns the one tensor that is read of what an expression returns, and the expression that is this tensor.
    pub(super) fn only(
        &self,
        results: &Results,
        expression: &Expression,
    ) -> Option<(Id, Expression)> {
        let ids = match results {
            Results::One(id) => return Some((*id, expression.clone())),
            Results::Tuple(ids) => ids,
            Results::List(_) => return None,
        };
        if !matches!(expression.kind, Kind::OfLstm | Kind::OfGru) {
            return None;
        }
        let is_read = |id: &Id| self.reads.get(id).is_some_and(|reads| *reads > 0);
        let mut read = ids.iter().enumerate().filter(|(_, id)| is_read(id));
        let (Some((at, id)), None) = (read.next(), read.next()) else { return None };
        let text = format!("{}{}", expression.value(), recurrent::part(expression.kind, at));
        Some((*id, Expression::new(text, Kind::New, false)))
    }

    /// Returns what a call of tch's recurrent layers takes and returns.
    pub(super) fn run(&self, call: usize) -> Option<(&Recurrent, Run)> {
        self.class_of(call).layer.as_ref()?.run(&self.bodies()[call])
    }

    /// Returns whether what a call is given is written twice.
    pub(super) fn is_given_twice(&self, call: usize) -> bool {
        let reads_twice = |(recurrent, run): (&Recurrent, Run)| recurrent.reads_twice(&run);
        self.run(call).is_some_and(reads_twice) || self.is_optional(call)
    }
}

//! What the arguments of operators are in the `forward` that is being written.

use super::fields;
use super::flat::{From, Id};
use super::forward::Writer;
use super::identifier::snake;
use super::number::Place;
use super::operator::Scope;
use super::rust::{Expression, Kind};

impl Scope for Writer<'_> {
    fn read(&mut self, id: Id) -> Expression {
        self.count_read(id);
        if let Some(at) = self.pending.iter().position(|(pending, _)| *pending == id) {
            return self.pending.remove(at).1;
        }
        if let Some(local) = self.locals.get(&id) {
            return local.clone();
        }
        match &self.port.flat.values[id].from {
            From::Variable(name) => {
                let path = self.relative(name);
                let place = fields::variable(self.class, &self.port.classes, path);
                let place = place.unwrap_or_else(|| snake(path));
                let text = self.of_self(&place);
                let is_opened = self.opened.iter().any(|(_, name)| *name == text);
                let kind = if is_opened { Kind::Reference } else { Kind::Place };
                Expression::new(text, kind, false)
            }
            From::Constant(name) => match self.port.constants.get(name) {
                Some(constant) => Expression::new(constant.expression.clone(), Kind::New, true),
                None => Expression::new(snake(name), Kind::Place, false),
            },
            From::Computed => {
                let name = snake(&self.port.flat.values[id].name);
                Expression::new(name, Kind::Place, false)
            }
        }
    }

    fn receiver_to_write(&mut self, id: Id) -> String {
        let is_local = self
            .locals
            .get(&id)
            .is_some_and(|local| local.kind == Kind::Place && !local.text.contains(['.', '[']));
        let is_new = self.pending.iter().any(|(pending, _)| *pending == id);
        let read = self.read(id);
        if is_local || is_new { read.value() } else { format!("{}.shallow_clone()", read.value()) }
    }

    fn list(&mut self, list: &[Id]) -> Option<String> {
        let (_, whole) = self.lists.iter().find(|(ids, _)| ids == list)?;
        let whole = whole.clone();
        for id in list {
            self.count_read(*id);
        }
        Some(whole)
    }

    fn number(&self, argument: &str, at: usize, literal: String) -> String {
        let place = Place::Forward { item: self.item, argument: argument.to_owned(), at };
        match self.class.argument_at.get(&place) {
            Some(argument) => {
                self.numbers.borrow_mut().insert(*argument);
                format!("self.{}", self.class.arguments[*argument].hint)
            }
            None => literal,
        }
    }

    fn device(&self) -> String {
        match &self.device {
            Some(tensor) => format!("{tensor}.device()"),
            None => "Device::Cpu".to_owned(),
        }
    }

    fn needs_call(&mut self) {
        self.needs_call = true;
    }
}

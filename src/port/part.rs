//! What some calls of a class leave out, as an `if` whose value is that of the items or what stands in its place.

use std::ops::Range;

use anyhow::Result;

use super::flat::{Id, Results};
use super::forward::Writer;
use super::names::read_by;
use super::optional::Optional;
use super::rust::{Expression, Kind};
use super::tree::What;

impl Writer<'_> {
    /// Writes items that some calls of the class leave out.
    pub(super) fn write_part(&mut self, part: usize) -> Result<()> {
        self.flush();
        let Optional { items, result, fields, .. } = &self.class.parts[part];
        let mut behind = self.reads_behind(items);
        let reads_of_result = result.map(|(value, _)| (value, self.reads.get(&value).copied()));
        if let Some((value, _)) = result {
            // What the side returns is read once behind its items, and by nothing else within it.
            let within = self.reads_within(items, *value);
            self.reads.insert(*value, within + 1);
            behind.insert(*value, 0);
        }
        let names = self
            .class
            .rust_fields
            .iter()
            .filter(|field| fields.iter().any(|path| field.parts[0].path == *path));
        let names = names.map(|field| field.name.clone()).collect::<Vec<_>>();
        let opened = names.iter().map(|name| (name.clone(), self.unused(name)));
        let opened = opened.collect::<Vec<_>>();
        let condition = match &opened[..] {
            [] => match self.class.has_part(part) {
                Some(has) => {
                    self.numbers.borrow_mut().insert(has);
                    format!("self.{}", self.class.arguments[has].hint)
                }
                None => "true".to_owned(),
            },
            [(field, name)] => format!("let Some({name}) = &self.{field}"),
            _ => {
                let some = opened.iter().map(|(_, name)| format!("Some({name})"));
                let fields = opened.iter().map(|(field, _)| format!("&self.{field}"));
                let (some, fields) = (some.collect::<Vec<_>>(), fields.collect::<Vec<_>>());
                format!("let ({}) = ({})", some.join(", "), fields.join(", "))
            }
        };
        let before = self.opened.len();
        self.opened.extend(opened);
        self.open_parts.push(part);
        let values = result.iter().map(|(value, _)| *value).collect::<Vec<_>>();
        let side = self.side(items.clone(), &values, &behind, false)?;
        self.open_parts.pop();
        self.opened.truncate(before);
        if let Some((value, reads)) = reads_of_result {
            let within = self.reads_within(items, value);
            self.reads.insert(value, reads.unwrap_or(0).saturating_sub(within));
        }
        self.item = items.end - 1;
        match result {
            None => self.lines += &format!("if {condition} {{\n{side}\n}}\n"),
            Some((value, instead)) => {
                let instead = self.read_again(*instead).owned();
                let text = format!("if {condition} {{\n{side}\n}} else {{\n{instead}\n}}");
                self.bind(Results::One(*value), &Expression::new(text, Kind::New, false));
            }
        }
        Ok(())
    }

    fn reads_within(&self, items: &Range<usize>, value: Id) -> usize {
        let items = self.body.items[items.clone()].iter();
        items.flat_map(|item| read_by(item, self.bodies())).filter(|id| *id == value).count()
    }

    /// Returns what a field is, or a part of it: an `Option` has a name of its own where it is known to be `Some`.
    pub(super) fn of_self(&self, place: &str) -> String {
        let end = place.find(['.', '[']).unwrap_or(place.len());
        let opened = self.opened.iter().find(|(field, _)| *field == place[..end]);
        match opened {
            Some((_, name)) => format!("{name}{}", &place[end..]),
            None => format!("self.{place}"),
        }
    }

    /// Returns the part that begins with an item, some calls leave out and is more than the call of one module.
    pub(super) fn part_at(&self, at: usize) -> Option<usize> {
        let begins = |(number, part): &(usize, &Optional)| {
            part.items.start == at && !self.open_parts.contains(number)
        };
        let (number, part) = self.class.parts.iter().enumerate().find(begins)?;
        let is_module = part.items.len() == 1
            && match self.body.items[at].what {
                What::Call(call) => {
                    let called = &self.bodies()[call];
                    let given = part.result.map(|(_, given)| given);
                    let path = self.relative(&called.module);
                    called.inputs.len() == 1
                        && called.list.is_none()
                        && given == Some(called.inputs[0].1)
                        && part.fields.iter().any(|field| field == path)
                }
                What::Step(_) => false,
            };
        (!is_module).then_some(number)
    }

    /// Returns whether a call is of a module that the class does not always have.
    pub(super) fn is_optional(&self, call: usize) -> bool {
        let path = self.relative(&self.bodies()[call].module);
        let is_open =
            |part: &usize| self.class.parts[*part].fields.iter().any(|field| field == path);
        self.class.has(path).is_some() && !self.open_parts.iter().any(is_open)
    }
}

//! The names that Python has for the values of a body.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::flat::{Flat, From, Id};
use super::identifier::snake;
use super::python;
use super::tree::{Body, Item, Tree, What};

/// Lists the values that an item reads.
pub(super) fn read_by(item: &Item, bodies: &[Body]) -> Vec<Id> {
    match &item.what {
        What::Step(step) => {
            step.arguments.iter().flat_map(|(_, argument)| argument.ids()).collect()
        }
        What::Call(call) => bodies[*call].inputs.iter().map(|(_, id)| *id).collect(),
    }
}

/// Lists the values that an item computes.
pub(super) fn computed_by(item: &Item, bodies: &[Body]) -> Vec<Id> {
    match &item.what {
        What::Step(step) => step.results.ids(),
        What::Call(call) => bodies[*call].outputs.clone(),
    }
}

/// Splits items by the line of Python that they come from.
pub(super) fn lines(body: &Body, range: Range<usize>) -> Vec<Range<usize>> {
    let mut lines = Vec::<Range<usize>>::new();
    for at in range {
        let place = |at: usize| {
            let frame = &body.items[at].frame;
            (&frame.file, frame.line)
        };
        match lines.last_mut() {
            Some(line) if place(line.start) == place(at) && place(at).1 != 0 => line.end = at + 1,
            _ => lines.push(at..at + 1),
        }
    }
    lines
}

/// Finds the names that the assignments of a body have for what its lines compute.
pub(super) fn assigned(tree: &Tree, body: &Body) -> HashMap<Id, String> {
    let mut wanted = HashMap::new();
    for line in lines(body, 0..body.items.len()) {
        let mut names = python::assigned(&body.items[line.start].frame.source);
        let items = &body.items[line.clone()];
        let later = body.items[line.end..].iter();
        let read_later = later.flat_map(|item| read_by(item, &tree.bodies));
        let read_later = read_later.chain(body.outputs.iter().copied()).collect::<HashSet<_>>();
        let computed = items.iter().flat_map(|item| computed_by(item, &tree.bodies));
        let live = computed.filter(|id| read_later.contains(id)).collect::<Vec<_>>();
        let last = items.last().map(|item| computed_by(item, &tree.bodies)).unwrap_or_default();
        if names.len() != last.len() {
            names.retain(|name| name != "_");
        }
        let named = match (&names[..], &live[..]) {
            ([], _) => continue,
            _ if names.len() == live.len() => live,
            _ if names.len() == last.len() => last,
            // One name for a tuple, whose parts have names where they are computed.
            ([_], _) if last.len() > 1 => continue,
            ([_], [.., last]) => vec![*last],
            // The others are none, such as weights that are not asked for.
            _ if live.len() < names.len() => live,
            _ => continue,
        };
        wanted.extend(named.into_iter().zip(names.iter().map(|name| snake(name))));
    }
    wanted
}

/// Returns the name that a line of the body has for a value that it is given.
pub(super) fn in_body(tree: &Tree, body: &Body, flat: &Flat, id: Id) -> Option<String> {
    body.items.iter().find_map(|item| {
        let mut read = read_by(item, &tree.bodies);
        read.retain(|id| !matches!(flat.values[*id].from, From::Variable(_)));
        read.dedup();
        let source = &item.frame.source;
        match read[..] {
            [one] if one == id => python::only_operand(source).map(str::to_owned),
            [a, b] if a == id || b == id => {
                let [first, second] = python::operands(source)?;
                Some(if a == id { first } else { second }.to_owned())
            }
            _ => None,
        }
    })
}

/// Replaces a variable in an expression of Rust.
pub(super) fn with_word(expression: &str, word: &str, by: &str) -> String {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let mut text = String::new();
    let mut rest = expression;
    while let Some(at) = rest.find(word) {
        let (before, after) = (&rest[..at], &rest[at + word.len()..]);
        // Neither a part of another name nor a field or a method.
        let begins = !before.ends_with(|c: char| is_part(c) || c == '.');
        let ends = !after.starts_with(is_part);
        text += before;
        text += if begins && ends { by } else { word };
        rest = after;
    }
    text + rest
}

//! Sizes where they are read: each call of a module takes them from its own tensors, and computes with them itself. A
//! number goes from one module to another only where no tensor has it.

use std::collections::{HashMap, HashSet};

use super::arithmetic::is_arithmetic;
use super::flat::{Argument, Flat, Id, Kind, Results, Step};
use super::names::{computed_by, read_by};
use super::python::Frame;
use super::tree::{Body, Item, What};

impl Flat {
    /// Lets numbers of which the program says the same be one value: the first of them.
    pub(super) fn unite_sizes(&mut self) {
        let mut first = HashMap::<String, Id>::new();
        let mut same = HashMap::<Id, Id>::new();
        let sizes = Sizes::new(self);
        for id in self.steps.iter().flat_map(|step| step.results.ids()) {
            let symbol = &self.values[id].symbol;
            if !symbol.is_empty() && sizes.is_known(id) {
                let known = *first.entry(symbol.clone()).or_insert(id);
                same.insert(id, known);
            }
        }
        self.replace_values(|id| same.get(&id).copied().unwrap_or(id));
    }
}

/// What computes each number of a program.
pub(super) struct Sizes<'a> {
    flat: &'a Flat,
    defined: HashMap<Id, &'a Step>,
}

/// Where a number of a body comes from: sizes of its inputs, and arithmetic in the order in which it is computed.
#[derive(Default)]
struct Found {
    sizes: Vec<(Id, i64, Id)>,
    arithmetic: Vec<Id>,
}

impl<'a> Sizes<'a> {
    pub(super) fn new(flat: &'a Flat) -> Sizes<'a> {
        let numbers = flat.steps.iter().filter_map(|step| match step.results {
            Results::One(id) if flat.values[id].kind != Kind::Tensor => Some((id, step)),
            _ => None,
        });
        Sizes { flat, defined: numbers.collect() }
    }

    fn is_number(&self, id: Id) -> bool {
        self.flat.values[id].kind != Kind::Tensor
    }

    /// Returns whether a number is computed from the sizes of what the program takes.
    pub(super) fn is_known(&self, id: Id) -> bool {
        self.is_number(id) && self.find(&self.flat.inputs, id, &mut Found::default())
    }

    /// Finds a number in the sizes of tensors, or what it is computed from.
    fn find(&self, tensors: &[Id], id: Id, found: &mut Found) -> bool {
        if found.arithmetic.contains(&id) || found.sizes.iter().any(|(_, _, known)| *known == id) {
            return true;
        }
        let symbol = &self.flat.values[id].symbol;
        let size_of = |tensor: &Id| {
            let symbols = &self.flat.values[*tensor].meta.as_ref()?.symbols;
            let at = symbols.iter().position(|size| size == symbol && !size.is_empty())?;
            Some((*tensor, at as i64, id))
        };
        if let Some(size) = tensors.iter().find_map(size_of) {
            found.sizes.push(size);
            return true;
        }
        let Some(step) = self.defined.get(&id).filter(|step| is_arithmetic(step)) else {
            return false;
        };
        let mut operands = step.arguments.iter().flat_map(|(_, argument)| argument.ids());
        let is_found = operands.all(|operand| self.find(tensors, operand, found));
        if is_found {
            found.arithmetic.push(id);
        }
        is_found
    }

    /// Lets the items of a body compute the numbers that they read from the sizes of `inputs`. Returns those that it has
    /// to be given.
    pub(super) fn within(
        &self,
        inputs: &[Id],
        outputs: &[Id],
        items: &mut Vec<Item>,
        bodies: &[Body],
    ) -> Vec<Id> {
        let is_other = |item: &&Item| !matches!(&item.what, What::Step(step) if is_size(step));
        let others = items.iter().filter(is_other);
        let read = others.flat_map(|item| read_by(item, bodies)).chain(outputs.iter().copied());
        let read = read.collect::<HashSet<_>>();
        // What it needs anyway comes before what it would be given for a size alone.
        let mut tensors = inputs.to_vec();
        tensors.sort_by_key(|id| !read.contains(id));
        let mut found = Found::default();
        let mut given = Vec::new();
        let mut computed = HashSet::new();
        let mut written = Vec::new();
        for item in std::mem::take(items) {
            if let What::Step(step) = &item.what
                && is_size(step)
                && step.results.ids().iter().all(|id| self.find(&tensors, *id, &mut found))
            {
                continue;
            }
            let reads = read_by(&item, bodies).into_iter().filter(|id| self.is_number(*id));
            for id in reads {
                if computed.contains(&id) || given.contains(&id) {
                    continue;
                }
                let before = found.arithmetic.len();
                if !self.find(&tensors, id, &mut found) {
                    given.push(id);
                }
                for id in found.arithmetic.split_off(before) {
                    if computed.insert(id) {
                        let step = Step { mode: None, ..self.defined[&id].clone() };
                        let (what, frames) = (What::Step(step), item.frames.clone());
                        written.push(Item { what, frames, grad: item.grad, mode: item.mode });
                    }
                }
            }
            computed.extend(computed_by(&item, bodies));
            written.push(item);
        }
        let mut sizes = found.sizes;
        let place = |id: Id| tensors.iter().position(|tensor| *tensor == id);
        sizes.sort_by_key(|(tensor, at, _)| (place(*tensor), *at));
        items.extend(sizes.into_iter().map(|(tensor, at, id)| size(tensor, at, id)));
        items.extend(written);
        self.drop_unread(outputs, items, bodies);
        given
    }

    /// Drops the numbers that nothing reads.
    fn drop_unread(&self, outputs: &[Id], items: &mut Vec<Item>, bodies: &[Body]) {
        let mut read = outputs.iter().copied().collect::<HashSet<_>>();
        let mut kept = Vec::new();
        for item in std::mem::take(items).into_iter().rev() {
            let is_unread = match &item.what {
                What::Step(step) => {
                    step.results.ids().iter().all(|id| self.is_number(*id) && !read.contains(id))
                }
                What::Call(_) => false,
            };
            if !is_unread {
                read.extend(read_by(&item, bodies));
                kept.push(item);
            }
        }
        items.extend(kept.into_iter().rev());
    }
}

fn is_size(step: &Step) -> bool {
    step.operator == "sym_size.int"
}

/// Returns the item that reads a size of a tensor.
fn size(tensor: Id, at: i64, id: Id) -> Item {
    let of = |name: &str, argument| (name.to_owned(), argument);
    let step = Step {
        operator: "sym_size.int".to_owned(),
        arguments: vec![of("self", Argument::Value(tensor)), of("dim", Argument::Int(at))],
        results: Results::One(id),
        modules: Vec::new(),
        frames: Vec::new(),
        grad: true,
        mode: None,
    };
    // All of them stand in one line, which is none of Python's.
    let line = Frame { line: 1, ..Frame::default() };
    Item { what: What::Step(step), frames: vec![line], grad: true, mode: None }
}

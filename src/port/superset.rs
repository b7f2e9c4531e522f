//! A body that does all that two calls of a class do, where neither call does what both do.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::ops::Range;

use super::flat::{Id, Step};
use super::outline::{Shape, Unit};
use super::tree::{Body, Item, Tree, What};
use super::without::{can_be_one, common};

/// The calls have at least one of so many units in common.
const MIN_SHARE: usize = 2;

impl Tree {
    /// Adds a body that does what either of two calls does, and the calls in it that are given something else. Whether
    /// each of the two is that body without some parts is for others to find out. Returns its place, and those of the
    /// calls that the added ones stand for.
    pub(super) fn add_superset(
        &mut self,
        (one, of_one): (usize, &Shape),
        (two, of_two): (usize, &Shape),
    ) -> Option<(usize, Vec<usize>)> {
        let (body, other) = (&self.bodies[one], &self.bodies[two]);
        if !can_be_one((body, of_one), (other, of_two)) {
            return None;
        }
        let pairs = common(&of_one.units, &of_two.units);
        let most = of_one.units.len().max(of_two.units.len());
        if MIN_SHARE * pairs.iter().flatten().count() < most {
            return None;
        }
        let mut union = Union {
            tree: self,
            known: of_two.inputs.iter().copied().zip(of_one.inputs.iter().copied()).collect(),
            renamed: HashMap::new(),
            items: Vec::new(),
            calls: Vec::new(),
        };
        let (mut own, mut next) = (0, 0);
        for (at, pair) in pairs.iter().enumerate().chain([(pairs.len(), &Some(of_two.units.len()))])
        {
            let Some(pair) = *pair else { continue };
            // What each has alone between the units that both have, one after the other.
            let (alone, of_other) = (&of_one.units[own..at], &of_two.units[next..pair]);
            alone.iter().for_each(|unit| union.add(body, &unit.items, false));
            let calls = |units: &[Unit]| units.iter().any(|unit| unit.is_call);
            if calls(alone) && calls(of_other) {
                // They are other modules in the same place.
                return None;
            }
            let both = union.given_to_both(alone, of_other);
            let of_other_alone = of_other.iter().map(|unit| &unit.items);
            match both {
                Some((given, result)) => {
                    let before = union.renamed.insert(given, result);
                    of_other_alone.for_each(|items| union.add(other, items, true));
                    union.renamed.remove(&given);
                    union.renamed.extend(before.map(|before| (given, before)));
                }
                None => of_other_alone.for_each(|items| union.add(other, items, true)),
            }
            (own, next) = (at + 1, pair + 1);
            if let (Some(unit), Some(of_other)) = (of_one.units.get(at), of_two.units.get(pair)) {
                union.rename(&unit.reads, &of_other.reads);
                let results = of_other.results.iter().copied();
                union.known.extend(results.zip(unit.results.iter().copied()));
                union.add(body, &unit.items, false);
            }
        }
        union.rename(&of_one.outputs, &of_two.outputs);
        let outputs = of_one.outputs.iter().map(|id| union.of_one(*id)).collect();
        let Union { items, calls, .. } = union;
        let also = body.also.iter().chain([&other.module]).chain(&other.also).cloned().collect();
        let added = Body {
            module: body.module.clone(),
            class: body.class.clone(),
            inputs: body.inputs.clone(),
            list: None,
            items,
            outputs,
            returned: body.returned.clone(),
            depends_on_mode: body.depends_on_mode || other.depends_on_mode,
            also,
        };
        let (stand_for, calls) = calls.into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
        self.bodies.extend(calls);
        self.bodies.push(added);
        Some((self.bodies.len() - 1, stand_for))
    }
}

struct Union<'a> {
    tree: &'a Tree,
    /// What the values of the second call are in the first one.
    known: HashMap<Id, Id>,
    /// The values of the second call that stand in the place of those of the first one.
    renamed: HashMap<Id, Id>,
    items: Vec<Item>,
    /// The calls that are given something else, with those that they stand for.
    calls: Vec<(usize, Body)>,
}

impl Union<'_> {
    fn of_one(&self, id: Id) -> Id {
        self.renamed.get(&id).copied().unwrap_or(id)
    }

    /// Lets what the second call computes alone stand where it reads that, and the first call something else.
    fn rename(&mut self, one: &[Id], two: &[Id]) {
        for (id, other) in one.iter().zip(two) {
            if !self.known.contains_key(other) {
                self.renamed.insert(*id, *other);
            }
        }
    }

    /// Returns the value that is given to what each of the calls has alone, and what the first one makes of it: the second
    /// one is given that.
    fn given_to_both(&self, one: &[Unit], two: &[Unit]) -> Option<(Id, Id)> {
        let result = *one.last()?.results.last()?;
        let read = one.iter().flat_map(|unit| &unit.reads).collect::<HashSet<_>>();
        let of_two = two.iter().flat_map(|unit| &unit.reads).filter_map(|id| self.known.get(id));
        let both = of_two.filter(|id| read.contains(id)).copied().collect::<HashSet<_>>();
        let mut both = both.into_iter();
        let given = both.next().filter(|_| both.next().is_none())?;
        Some((given, result))
    }

    /// Adds items of a call.
    fn add(&mut self, body: &Body, items: &Range<usize>, is_second: bool) {
        for item in &body.items[items.clone()] {
            let of = |id: Id| match self.known.get(&id).filter(|_| is_second) {
                Some(known) => self.of_one(*known),
                None => self.of_one(id),
            };
            let what = match &item.what {
                What::Step(_) => given(item, &of).what,
                What::Call(call) => {
                    let called = &self.tree.bodies[*call];
                    let inputs = called.inputs.iter().map(|(name, id)| (name.clone(), of(*id)));
                    let inputs = inputs.collect::<Vec<_>>();
                    if inputs == called.inputs {
                        What::Call(*call)
                    } else {
                        let added = Body {
                            module: called.module.clone(),
                            class: called.class.clone(),
                            inputs,
                            list: None,
                            items: called.items.iter().map(|item| given(item, &of)).collect(),
                            outputs: called.outputs.clone(),
                            returned: called.returned.clone(),
                            depends_on_mode: called.depends_on_mode,
                            also: called.also.clone(),
                        };
                        self.calls.push((*call, added));
                        What::Call(self.tree.bodies.len() + self.calls.len() - 1)
                    }
                }
            };
            self.items.push(Item { what, ..item.clone() });
        }
    }
}

/// Returns an item with other values, if it is an operator.
fn given(item: &Item, of: &impl Fn(Id) -> Id) -> Item {
    let What::Step(step) = &item.what else { return item.clone() };
    let arguments = step.arguments.iter().map(|(name, argument)| {
        let given = argument.with(&mut |id| Ok::<_, Infallible>(of(id)));
        (name.clone(), given.unwrap_or_else(|never| match never {}))
    });
    let what = What::Step(Step { arguments: arguments.collect(), ..step.clone() });
    Item { what, ..item.clone() }
}

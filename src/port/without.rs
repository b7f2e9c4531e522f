//! A call that computes less than others of its class: which of their units it has.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::flat::Id;
use super::number::{Hole, Number, Place};
use super::outline::{Shape, Unit};
use super::tree::Body;
use super::units::LoopKind;

/// A call that leaves out units of its class.
pub(super) struct Without {
    /// For each unit of the class, which of the call's it is.
    pub(super) units: Vec<Option<usize>>,
    /// The values that the class reads in what the call has, with those that the call reads there, as the class has them.
    pub(super) reads: Vec<(Id, Id)>,
    /// The paths of its fields.
    pub(super) fields: HashSet<String>,
    /// The items of the class's units, and of the call's.
    items: Vec<Range<usize>>,
    own_items: Vec<Range<usize>>,
    dropouts: HashSet<usize>,
}

/// A call has at least one of so many units of its class.
const MIN_SHARE: usize = 3;
/// The most units of a call that is compared with others.
const MAX_UNITS: usize = 300;

impl Without {
    /// Compares a call with one of the class. Returns `None` unless the class does all that the call does.
    pub(super) fn new(
        (body, shape): (&Body, &Shape),
        (own_body, own): (&Body, &Shape),
    ) -> Option<Without> {
        let count = shape.units.len();
        let can_be = can_be_one((body, shape), (own_body, own))
            && own.units.len() < count
            && MIN_SHARE * own.units.len() >= count;
        if !can_be {
            return None;
        }
        let units = common(&shape.units, &own.units);
        if units.iter().flatten().count() < own.units.len() {
            return None;
        }
        let mut known = own.inputs.iter().zip(&shape.inputs).map(|(own, id)| (*own, *id));
        let mut known = known.by_ref().collect::<HashMap<_, _>>();
        let mut reads = Vec::new();
        for (unit, own_unit) in shape.units.iter().zip(&units) {
            let Some(own_unit) = own_unit.map(|at| &own.units[at]) else { continue };
            for (class, own) in unit.reads.iter().zip(&own_unit.reads) {
                reads.push((*class, *known.get(own)?));
            }
            known.extend(own_unit.results.iter().copied().zip(unit.results.iter().copied()));
        }
        for (class, own) in shape.outputs.iter().zip(&own.outputs) {
            reads.push((*class, known.get(own).copied().unwrap_or(*own)));
        }
        let declared = shape.declared.iter().collect::<HashSet<_>>();
        if !own.declared.iter().all(|own| declared.contains(own)) {
            return None;
        }
        let items = |shape: &Shape| shape.units.iter().map(|unit| unit.items.clone()).collect();
        let dropouts = (0..count).filter(|at| shape.units[*at].is_dropout()).collect();
        let fields = own.fields.iter().map(|field| field.path.clone()).collect();
        let (items, own_items) = (items(shape), items(own));
        Some(Without { units, reads, fields, items, own_items, dropouts })
    }

    /// Returns whether it has the unit that begins with an item of the class.
    pub(super) fn has(&self, item: usize) -> bool {
        let unit = self.items.iter().position(|items| items.start == item);
        unit.is_none_or(|unit| self.units[unit].is_some())
    }

    /// Returns the numbers of a call at the places of the class. `own` is the code of the call.
    pub(super) fn holes(&self, class: &Shape, own: &Shape) -> Vec<(Place, Hole)> {
        let numbers = own.holes.iter().map(|(place, hole)| (place, &hole.number));
        let numbers = numbers.collect::<HashMap<_, _>>();
        let of = |place: &Place| numbers.get(place).map(|number| (*number).clone());
        let places = class.holes.iter().filter(|(place, _)| !matches!(place, Place::Has { .. }));
        let holes = places.map(|(place, hole)| {
            let number = match place {
                Place::Forward { item, argument, at } => {
                    let unit = self.items.iter().position(|items| items.contains(item));
                    match unit.map(|unit| (unit, self.units[unit])) {
                        Some((_, Some(own))) => {
                            let item = self.own_items[own].start;
                            of(&Place::Forward { item, argument: argument.clone(), at: *at })
                        }
                        // It drops nothing then, and draws no random number.
                        Some((unit, None)) if argument == "p" && self.dropouts.contains(&unit) => {
                            Some(Number::Float(0.))
                        }
                        _ => None,
                    }
                }
                Place::Count { .. } => of(place).or(Some(Number::Int(0))),
                place => of(place),
            };
            let none = match hole.number {
                Number::Series(_) => Number::Series(Vec::new()),
                _ => Number::Any,
            };
            let number = number.unwrap_or(none);
            (place.clone(), Hole { hint: hole.hint.clone(), number })
        });
        holes.collect()
    }
}

/// Returns whether calls take and return the same, and are of a kind that is compared.
pub(super) fn can_be_one(
    (body, shape): (&Body, &Shape),
    (other, of_other): (&Body, &Shape),
) -> bool {
    let names = |body: &Body| body.inputs.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let is_list = |body: &Body, shape: &Shape| {
        let mut loops = shape.units.iter().filter_map(|unit| unit.of_loop.as_ref());
        body.list.is_some() || loops.any(|one| one.kind == LoopKind::Growing)
    };
    shape.layer.is_none()
        && of_other.layer.is_none()
        && shape.units.len().max(of_other.units.len()) <= MAX_UNITS
        && names(body) == names(other)
        && shape.outputs.len() == of_other.outputs.len()
        && !is_list(body, shape)
        && !is_list(other, of_other)
}

/// Finds for each unit of a call the one of another call that it is, in their order.
pub(super) fn common(class: &[Unit], own: &[Unit]) -> Vec<Option<usize>> {
    let mut longest = vec![vec![0_usize; own.len() + 1]; class.len() + 1];
    for a in (0..class.len()).rev() {
        for b in (0..own.len()).rev() {
            longest[a][b] = if class[a].text == own[b].text {
                longest[a + 1][b + 1] + 1
            } else {
                longest[a + 1][b].max(longest[a][b + 1])
            };
        }
    }
    let (mut a, mut b) = (0, 0);
    let mut units = vec![None; class.len()];
    while a < class.len() && b < own.len() {
        if class[a].text == own[b].text {
            units[a] = Some(b);
            (a, b) = (a + 1, b + 1);
        } else if longest[a + 1][b] >= longest[a][b + 1] {
            a += 1;
        } else {
            b += 1;
        }
    }
    units
}

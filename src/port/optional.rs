//! What some calls of a class do and others leave out, such as the `downsample` of a residual block: one class, with a
//! condition or an `Option`. A dropout that is left out is one of probability 0, and a loop is one of no modules.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::ops::Range;

use indexmap::IndexMap;

use super::class::{Classes, FieldOf};
use super::flat::{Flat, Id};
use super::number::{Hole, Number, Place};
use super::outline::Shape;
use super::tree::{Tree, What};
use super::units::LoopKind;
use super::without::Without;

/// The calls of a level by their class in Python and their code.
pub(super) type Groups = IndexMap<(String, String), Vec<(usize, Shape)>>;

/// Items of a class that some calls leave out.
#[derive(Clone, Debug)]
pub(super) struct Optional {
    pub(super) items: Range<usize>,
    /// The value that it computes for the items behind it, and the one that stands in its place where it is left out.
    pub(super) result: Option<(Id, Id)>,
    /// The modules and variables that only calls with the part have, by their paths.
    pub(super) fields: Vec<String>,
    hint: String,
}

/// The most parts that a class can leave out.
const MAX_PARTS: usize = 5;

/// Unites groups of one class in Python, of which one computes what others do and more, or of which none does and a body
/// that is added does. A module of which others read a variable, which are listed in `shared`, is none that can be left
/// out. `kind` says of a call what has to be the same.
pub(super) fn unite(
    found: &mut Classes,
    (tree, flat): (&mut Tree, &Flat),
    shared: &HashSet<String>,
    groups: Groups,
    kind: impl Fn(&Tree, usize) -> String,
) -> Vec<Vec<(usize, Shape)>> {
    let mut groups = groups.into_values().map(Some).collect::<Vec<_>>();
    let kinds = groups.iter().flatten().map(|group| kind(tree, group[0].0)).collect::<Vec<_>>();
    let units = |at: &usize| groups[*at].as_ref().map_or(0, |group| group[0].1.units.len());
    let mut largest = (0..groups.len()).collect::<Vec<_>>();
    largest.sort_by_key(|at| Reverse(units(at)));
    for at in largest.clone() {
        let others =
            largest.iter().copied().filter(|other| *other != at && kinds[*other] == kinds[at]);
        let others = others.collect::<Vec<_>>();
        let mut search = Search { found, tree, flat, shared, groups: &groups, at };
        let Some(Union { added, members, without, parts }) = search.largest(&others) else {
            continue;
        };
        let whole = match added {
            Some(added) => vec![added],
            None => groups[at].take().unwrap_or_default(),
        };
        let mut whole = whole;
        for (_, shape) in &mut whole {
            shape.holes.extend(presence(&parts, |_| true));
        }
        for (other, without) in members.into_iter().zip(&without) {
            for (body, shape) in groups[other].take().unwrap_or_default() {
                let mut holes = without.holes(&whole[0].1, &shape);
                holes.extend(presence(&parts, |part| without.has(part.items.start)));
                whole.push((body, Shape { holes, ..shape }));
            }
        }
        whole[0].1.parts = parts;
        groups[at] = Some(whole);
    }
    groups.into_iter().flatten().collect()
}

/// Groups that are one class.
struct Union {
    /// The body that was added for them.
    added: Option<(usize, Shape)>,
    /// The groups that leave something out, and what.
    members: Vec<usize>,
    without: Vec<Without>,
    parts: Vec<Optional>,
}

/// The search for groups that are one class with a first one.
struct Search<'a> {
    found: &'a mut Classes,
    tree: &'a mut Tree,
    flat: &'a Flat,
    shared: &'a HashSet<String>,
    groups: &'a [Option<Vec<(usize, Shape)>>],
    at: usize,
}

impl Search<'_> {
    /// Finds as many groups as can be one class.
    fn largest(&mut self, others: &[usize]) -> Option<Union> {
        let groups = self.groups;
        let group = groups[self.at].as_deref()?;
        let first = |at: &usize| groups[*at].as_ref().and_then(|group| group.first());
        let mut union = None::<Union>;
        for other in others.iter().copied() {
            let Some(of_other) = first(&other) else { continue };
            let added = union.as_ref().and_then(|union| union.added.as_ref());
            let base = added.unwrap_or(&group[0]);
            let members = union.as_ref().map(|union| &union.members[..]).unwrap_or_default();
            let tried = [members, &[other]].concat();
            let calls = tried.iter().filter_map(first).collect::<Vec<_>>();
            if let Some((without, parts)) = parts_of(self.tree, self.shared, group, base, &calls) {
                let added = union.and_then(|union| union.added);
                union = Some(Union { added, members: tried, without, parts });
                continue;
            }
            let members = if added.is_some() { tried } else { [&[self.at], &tried[..]].concat() };
            let calls = members.iter().filter_map(first).collect::<Vec<_>>();
            let before = self.tree.bodies.len();
            let superset = self.tree.add_superset((base.0, &base.1), (of_other.0, &of_other.1));
            let Some((superset, copied)) = superset else { continue };
            self.found.add_calls(&copied);
            let larger = (superset, self.found.shape(self.tree, self.flat, superset, self.shared));
            match parts_of(self.tree, self.shared, group, &larger, &calls) {
                Some((without, parts)) => {
                    union = Some(Union { added: Some(larger), members, without, parts });
                }
                None => {
                    self.tree.bodies.truncate(before);
                    self.found.drop_calls(before);
                }
            }
        }
        union
    }
}

/// Returns the numbers that say which parts a call has.
fn presence(parts: &[Optional], has: impl Fn(&Optional) -> bool) -> Vec<(Place, Hole)> {
    let holes = parts.iter().enumerate().map(|(at, part)| {
        let hole = Hole { hint: part.hint.clone(), number: Number::Bool(has(part)) };
        (Place::Has { part: at }, hole)
    });
    holes.collect()
}

/// Works out what calls leave out of what the body of a group computes, or `None` if they compute something else.
fn parts_of(
    tree: &Tree,
    shared: &HashSet<String>,
    group: &[(usize, Shape)],
    (at, shape): &(usize, Shape),
    others: &[&(usize, Shape)],
) -> Option<(Vec<Without>, Vec<Optional>)> {
    let body = &tree.bodies[*at];
    let without = others
        .iter()
        .map(|(other, of_other)| Without::new((body, shape), (&tree.bodies[*other], of_other)));
    let without = without.collect::<Option<Vec<_>>>()?;
    let runs = runs(shape, &without);
    let passed = passed(shape, &runs, &without)?;
    let mut parts = Vec::new();
    let mut part_of_run = Vec::new();
    for (run, result) in runs.iter().zip(&passed) {
        let first = &shape.units[run.start];
        let given = result.map(|(_, instead)| instead);
        let is_plain = run.len() == 1
            && match &first.of_loop {
                Some(one) => match (one.kind, &body.items[run_items(shape, run).start].what) {
                    (LoopKind::Chain(at), What::Call(call)) => {
                        given == Some(tree.bodies[*call].inputs[at].1)
                    }
                    _ => false,
                },
                None => first.is_dropout() && given == Some(first.reads[0]),
            };
        part_of_run.push((!is_plain).then_some(parts.len()));
        if !is_plain {
            let items = run_items(shape, run);
            let hint = first.operator();
            parts.push(Optional { items, result: *result, fields: Vec::new(), hint });
        }
    }
    for (at, field) in shape.fields.iter().enumerate() {
        let has = without.iter().map(|one| one.fields.contains(&field.path)).collect::<Vec<_>>();
        if has.iter().all(|has| *has) {
            continue;
        }
        let is_of_others = |(of_group, _): &(usize, Shape)| {
            let path = format!("{}{}", tree.bodies[*of_group].prefix(), field.path);
            shared.iter().any(|name| name.starts_with(&path))
        };
        if group.iter().chain(others.iter().copied()).any(is_of_others) {
            return None;
        }
        let mut is_used = false;
        for (unit, _) in
            shape.units.iter().enumerate().filter(|(_, u)| u.uses.contains(&field.path))
        {
            is_used = true;
            let run = runs.iter().position(|run| run.contains(&unit))?;
            if without.iter().zip(&has).any(|(one, has)| one.units[unit].is_some() != *has) {
                return None;
            }
            let is_list = matches!(shape.fields[at].what, FieldOf::List { .. });
            match part_of_run[run] {
                Some(part) if !parts[part].fields.contains(&field.path) => {
                    parts[part].fields.push(field.path.clone());
                }
                None if !is_list => return None,
                _ => {}
            }
        }
        if !is_used {
            return None;
        }
    }
    for part in &mut parts {
        let named = part.fields.first().and_then(|path| path.rsplit('.').next());
        let named = named.filter(|name| name.parse::<u32>().is_err());
        part.hint = format!("has_{}", named.unwrap_or(&part.hint));
    }
    (parts.len() <= MAX_PARTS).then_some((without, parts))
}

fn run_items(shape: &Shape, run: &Range<usize>) -> Range<usize> {
    shape.units[run.start].items.start..shape.units[run.end - 1].items.end
}

/// Lists the units that some of the calls leave out, those together that the same calls leave out.
fn runs(shape: &Shape, without: &[Without]) -> Vec<Range<usize>> {
    let mut runs = Vec::<Range<usize>>::new();
    let has = |unit: usize| without.iter().map(move |one| one.units[unit].is_some());
    for unit in 0..shape.units.len() {
        if has(unit).all(|has| has) {
            continue;
        }
        match runs.last_mut() {
            Some(run) if run.end == unit && has(run.start).eq(has(unit)) => run.end = unit + 1,
            _ => runs.push(unit..unit + 1),
        }
    }
    runs
}

/// Finds for each run the value that it computes for the units behind it, with the one that calls without the run read
/// in its place; `None` if they read something else.
fn passed(
    shape: &Shape,
    runs: &[Range<usize>],
    without: &[Without],
) -> Option<Vec<Option<(Id, Id)>>> {
    let mut defined = shape.inputs.iter().map(|id| (*id, 0)).collect::<HashMap<_, _>>();
    for (at, unit) in shape.units.iter().enumerate() {
        defined.extend(unit.results.iter().map(|id| (*id, at + 1)));
    }
    let run_of = |id: Id| {
        let unit = defined.get(&id)?.checked_sub(1)?;
        runs.iter().position(|run| run.contains(&unit))
    };
    let splits = |at: usize| {
        let of_mode = |at: usize| shape.units.get(at).is_some_and(|unit| unit.is_of_mode);
        at > 0 && of_mode(at - 1) && of_mode(at)
    };
    let mut results = Vec::new();
    for run in runs {
        // The branch of a mode is one statement.
        if splits(run.start) || splits(run.end) {
            return None;
        }
        let outside = shape.units.iter().enumerate().filter(|(at, _)| !run.contains(at));
        let read = outside.flat_map(|(_, unit)| unit.reads.clone());
        let read = read.chain(shape.outputs.clone()).collect::<HashSet<_>>();
        let computed = shape.units[run.clone()].iter().flat_map(|unit| &unit.results);
        let mut live = computed.filter(|id| read.contains(id));
        results.push(live.next().copied());
        if live.next().is_some() {
            return None;
        }
    }
    let of_result = |id: Id| results.iter().position(|result| *result == Some(id));
    // What each call reads in the place of the results, the last of the runs first.
    let mut instead = vec![HashMap::<usize, Id>::new(); runs.len()];
    for (at, one) in without.iter().enumerate() {
        for (class, own) in &one.reads {
            let run = of_result(*class).filter(|run| one.units[runs[*run].start].is_none());
            if let Some(run) = run {
                instead[run].insert(at, *own);
            }
        }
    }
    let mut passed = vec![None; runs.len()];
    for run in (0..runs.len()).rev() {
        let Some(result) = results[run] else { continue };
        let last = instead[run].values().copied().max_by_key(|id| defined.get(id))?;
        let is_before = defined.get(&last).is_some_and(|at| *at <= runs[run].start);
        let is_inner = run_of(last).is_some_and(|of| results[of] != Some(last));
        if !is_before || is_inner {
            return None;
        }
        passed[run] = Some((result, last));
        let earlier = of_result(last);
        for (at, id) in instead[run].clone() {
            if let Some(earlier) = earlier.filter(|_| id != last) {
                instead[earlier].insert(at, id);
            }
        }
    }
    let is_same = |one: &Without| {
        one.reads.iter().all(|(class, own)| {
            let mut id = *class;
            while let Some(run) = of_result(id).filter(|run| one.units[runs[*run].start].is_none())
            {
                let Some((_, instead)) = passed[run] else { return false };
                id = instead;
            }
            id == *own
        })
    };
    without.iter().all(is_same).then_some(passed)
}

//! The names that Python has for the values of a body.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::flat::{Argument, Flat, From, Id, Int, Results, Step};
use super::identifier::snake;
use super::python::{self, Frame};
use super::targets::Target;
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

/// The items of a line of Python, and what stands above them.
pub(super) struct Line<'a> {
    pub(super) items: Range<usize>,
    /// The line. Before it stand the assignments whose right sides call the function that the line is the first of.
    pub(super) sources: Vec<&'a str>,
}

/// The largest number of operators of a function that are written as one line: the one that calls it.
const MAX_OF_FUNCTION: usize = 3;

/// Splits items by the line of Python that they come from. The operators of a longer function are split by its lines.
pub(super) fn lines(body: &Body, range: Range<usize>) -> Vec<Line<'_>> {
    let mut lines = Vec::new();
    split(body, range, 0, &mut Vec::new(), &mut lines);
    lines
}

fn split<'a>(
    body: &'a Body,
    range: Range<usize>,
    depth: usize,
    above: &mut Vec<&'a str>,
    lines: &mut Vec<Line<'a>>,
) {
    for run in runs(body, range, depth) {
        let items = &body.items[run.clone()];
        let source = items[0].frames.get(depth).map_or("", |frame| &frame.source);
        let in_function = items.iter().all(|item| item.frames.len() > depth + 1);
        if in_function && items.len() > MAX_OF_FUNCTION {
            if python::assigns(source) {
                above.push(source);
            }
            split(body, run, depth + 1, above, lines);
            above.clear();
        } else {
            let sources = above.drain(..).chain([source]).filter(|source| !source.is_empty());
            let mut sources = sources.collect::<Vec<_>>();
            // What a line computes for each part of a list can be a function that stands in it.
            sources.dedup();
            lines.push(Line { items: run, sources });
        }
    }
}

/// Splits items by their lines down to a depth of functions; an item without a line stands alone. A line that goes on
/// with the call of a method, such as `.relu()`, is a part of the one before it.
fn runs(body: &Body, range: Range<usize>, depth: usize) -> Vec<Range<usize>> {
    let place = |at: usize| body.items[at].frames.get(..=depth).filter(|f| f[depth].line != 0);
    let is_one = |first: &[Frame], next: &[Frame]| {
        let goes_on = next[depth].source.starts_with('.') && next[depth].file == first[depth].file;
        next == first || goes_on && next[..depth] == first[..depth]
    };
    let mut runs = Vec::<Range<usize>>::new();
    for at in range {
        match runs.last_mut() {
            Some(run) if place(run.start).zip(place(at)).is_some_and(|(a, b)| is_one(a, b)) => {
                run.end = at + 1;
            }
            _ => runs.push(at..at + 1),
        }
    }
    runs
}

/// Finds the names that the assignments of a body have for what its lines compute: those of `forward`, and where these
/// have none, those of the functions that it calls.
pub(super) fn assigned(tree: &Tree, body: &Body) -> HashMap<Id, String> {
    let mut wanted = HashMap::new();
    let depth = body.items.iter().map(|item| item.frames.len()).max().unwrap_or(0);
    for depth in 0..depth {
        for run in runs(body, 0..body.items.len(), depth) {
            let Some(frame) = body.items[run.start].frames.get(depth) else { continue };
            for (id, name) in assigned_by(tree, body, run, &frame.source) {
                wanted.entry(id).or_insert(name);
            }
        }
    }
    for item in &body.items {
        let What::Step(step) = &item.what else { continue };
        for (id, name) in sizes_of(step, item) {
            wanted.entry(id).or_insert(name);
        }
    }
    for item in &body.items {
        if let What::Step(step) = &item.what
            && is_choice(item)
        {
            // A choice between values has the name of either.
            let sides = step.arguments.iter().flat_map(|(_, side)| side.ids());
            let name = sides.filter_map(|side| wanted.get(&side).cloned()).next();
            for (id, name) in step.results.ids().into_iter().zip(name) {
                wanted.entry(id).or_insert(name);
            }
        }
    }
    wanted
}

/// Finds the names that a line has for sizes, such as `b` and `t` in `x.view(b, t, 4)`.
fn sizes_of(step: &Step, item: &Item) -> Vec<(Id, String)> {
    let base = step.operator.split('.').next().unwrap_or_default();
    let ints = step.arguments.iter().find_map(|(_, argument)| match argument {
        Argument::Ints(ints) => Some(ints),
        _ => None,
    });
    let (Some(ints), Some(given)) = (ints, python::given_to(item.source(), base)) else {
        return Vec::new();
    };
    let pairs = ints.iter().zip(&given).filter_map(|(int, text)| match int {
        Int::Value(id) if python::is_identifier(text) => Some((*id, snake(text))),
        _ => None,
    });
    if ints.len() <= given.len() { pairs.collect() } else { Vec::new() }
}

fn is_choice(item: &Item) -> bool {
    matches!(&item.what, What::Step(step) if step.is_choice())
}

/// Finds the names that a line of several statements has for what its items compute: only the item that is the outermost
/// call of a statement has its name.
fn assigned_by_statements(
    tree: &Tree,
    body: &Body,
    line: Range<usize>,
    statements: &[&str],
) -> Vec<(Id, String)> {
    let mut found = Vec::new();
    let mut rest = line;
    for statement in statements {
        let Some(called) = python::outermost(statement) else { continue };
        let Some(at) = rest.clone().find(|at| is_called(tree, &body.items[*at], called)) else {
            continue;
        };
        rest.start = at + 1;
        let Some(target) = python::assigned(statement) else { continue };
        let computed = computed_by(&body.items[at], &tree.bodies);
        found.extend(match (&target, &computed[..]) {
            (Target::Name(name), [one]) => vec![(*one, snake(name))],
            _ => of_parts(tree, &body.items[at], &target).unwrap_or_default(),
        });
    }
    found
}

/// Finds the names that a target has for the parts of what an item computes, if it is known where they stand in tuples.
fn of_parts(tree: &Tree, item: &Item, target: &Target) -> Option<Vec<(Id, String)>> {
    let places = match &item.what {
        What::Step(step) => match &step.results {
            Results::One(_) => return None,
            Results::Tuple(ids) | Results::List(ids) => {
                ids.iter().enumerate().map(|(at, id)| (at.to_string(), *id)).collect()
            }
        },
        What::Call(call) => tree.bodies[*call].returned.clone(),
    };
    let places = places.iter().map(|(place, id)| (place.as_str(), *id)).collect::<Vec<_>>();
    let is_known = !places.is_empty() && places.iter().all(|(place, _)| !place.is_empty());
    let names = is_known.then(|| target.of_parts(&places))?;
    Some(names.into_iter().map(|(id, name)| (id, snake(&name))).collect())
}

/// Returns whether Python calls what an item computes by a name, such as `fc1` or `relu`.
fn is_called(tree: &Tree, item: &Item, name: &str) -> bool {
    match &item.what {
        What::Step(step) => step.operator.split('.').next() == Some(name),
        What::Call(call) => tree.bodies[*call].module.rsplit('.').next() == Some(name),
    }
}

/// Finds the names that a line has for what its items compute.
fn assigned_by(tree: &Tree, body: &Body, line: Range<usize>, source: &str) -> Vec<(Id, String)> {
    let statements = python::statements(source);
    if statements.len() > 1 {
        return assigned_by_statements(tree, body, line, &statements);
    }
    let Some(target) = python::assigned(source) else { return Vec::new() };
    let mut names = target.names();
    let items = &body.items[line.clone()];
    let later = body.items[line.end..].iter();
    let of_branch = body.items.iter().filter(|item| item.mode.is_some());
    let of_branch = of_branch.flat_map(|item| computed_by(item, &tree.bodies));
    let of_branch = of_branch.collect::<HashSet<_>>();
    let read_later = later.flat_map(|item| {
        let mut read = read_by(item, &tree.bodies);
        // Of a choice, the side that a branch computes is what the line is about.
        read.retain(|id| !is_choice(item) || of_branch.contains(id));
        read
    });
    let read_later = read_later.chain(body.outputs.iter().copied()).collect::<HashSet<_>>();
    let computed = items.iter().flat_map(|item| computed_by(item, &tree.bodies));
    let live = computed.filter(|id| read_later.contains(id)).collect::<Vec<_>>();
    if let (Target::Several(_), Some(last)) = (&target, items.last()) {
        let computed = computed_by(last, &tree.bodies);
        // An operator can stand in a module or a function that the line calls.
        let is_outermost = match &last.what {
            What::Step(_) => {
                python::outermost(source).is_some_and(|name| is_called(tree, last, name))
            }
            What::Call(_) => true,
        };
        let parts = of_parts(tree, last, &target).filter(|_| is_outermost);
        if let Some(parts) = parts.filter(|_| live.iter().all(|id| computed.contains(id))) {
            return parts;
        }
    }
    let last = items.last().map(|item| computed_by(item, &tree.bodies)).unwrap_or_default();
    if names.len() != last.len() {
        names.retain(|name| name != "_");
    }
    let named = match (&names[..], &live[..]) {
        ([], _) => return Vec::new(),
        _ if names.len() == live.len() => live,
        _ if names.len() == last.len() => last,
        // One name for a tuple, whose parts have names where they are computed.
        ([_], _) if last.len() > 1 => return Vec::new(),
        ([_], [.., last]) => vec![*last],
        // The others are none, such as weights that are not asked for.
        _ if live.len() < names.len() => live,
        _ => return Vec::new(),
    };
    let named = named.into_iter().zip(names);
    named.filter(|(_, name)| name != "_").map(|(id, name)| (id, snake(&name))).collect()
}

/// Returns the name that a line of the body has for a value that it is given.
pub(super) fn in_body(tree: &Tree, body: &Body, flat: &Flat, id: Id) -> Option<String> {
    body.items.iter().find_map(|item| {
        let mut read = read_by(item, &tree.bodies);
        read.retain(|id| !matches!(flat.values[*id].from, From::Variable(_)));
        read.dedup();
        if let What::Step(step) = &item.what
            && let Some(name) = in_list(step, item, id)
        {
            return Some(name);
        }
        item.frames.iter().find_map(|frame| match read[..] {
            [one] if one == id => python::only_operand(&frame.source).map(str::to_owned),
            [a, b] if a == id || b == id => {
                let [first, second] = python::operands(&frame.source)?;
                Some(if a == id { first } else { second }.to_owned())
            }
            _ => None,
        })
    })
}

/// Returns the name that a line has for a part of a list, such as `b` in `torch.cat([a, b], 1)`.
fn in_list(step: &Step, item: &Item, id: Id) -> Option<String> {
    let (_, list) = step.arguments.iter().find(|(_, list)| matches!(list, Argument::List(_)))?;
    let at = list.ids().iter().position(|part| *part == id)?;
    let base = step.operator.split('.').next().unwrap_or_default();
    let given = python::given_to(item.source(), base)?;
    let name =
        given.get(at).filter(|name| given.len() == list.ids().len() && python::is_identifier(name));
    name.map(|name| (*name).to_owned())
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

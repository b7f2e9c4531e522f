//! Modules that some calls of a class have and others do not, such as the `downsample` of a residual block: one class
//! with an `Option`.

use std::collections::HashSet;

use indexmap::IndexMap;

use super::class::{Hole, Number, Place};
use super::flat::Id;
use super::outline::Shape;
use super::tree::{Body, Tree, What};

/// The calls of a level by their class in Python and their code.
pub(super) type Groups = IndexMap<(String, String), Vec<(usize, Shape)>>;

/// Unites groups of one class in Python, of which one calls a module in addition and passes on its result in the place of
/// what it is given. `shape` works out the code of a body without one of its items. A module of which others read a
/// variable, which are listed in `shared`, is none that can lack.
pub(super) fn unite(
    tree: &Tree,
    shared: &HashSet<String>,
    groups: &mut Groups,
    shape: impl Fn(usize, usize) -> Shape,
) {
    let keys = groups.keys().cloned().collect::<Vec<_>>();
    for key in keys {
        let Some(group) = groups.get(&key) else { continue };
        let Some((first, _)) = group.first() else { continue };
        let body = &tree.bodies[*first];
        let is_shared = |path: &str| {
            group.iter().any(|(at, _)| {
                let within = format!("{}{path}.", tree.bodies[*at].prefix());
                shared.iter().any(|variable| variable.starts_with(&within))
            })
        };
        let without = |at: usize| {
            let (path, ..) = optional(tree, body, at).filter(|(path, ..)| !is_shared(path))?;
            let without = (key.0.clone(), shape(*first, at).skeleton);
            let others = groups.get(&without).filter(|_| without != key)?;
            // A class says of one module that it may lack it, and those have said so of another.
            let united = |(_, shape): &(usize, Shape)| {
                shape.holes.iter().any(|(place, _)| matches!(place, Place::Has { .. }))
            };
            (!others.iter().any(united)).then_some((path, without))
        };
        let found = (0..body.items.len()).find_map(without);
        let Some((path, without)) = found else { continue };
        let others = groups.shift_remove(&without).unwrap_or_default();
        let Some(group) = groups.get_mut(&key) else { continue };
        let model = group[0].1.holes.clone();
        for (_, shape) in group.iter_mut() {
            shape.holes.push(presence(&path, true));
        }
        group.extend(others.into_iter().map(|(body, shape)| {
            let mut own = shape.holes.iter();
            let holes = model.iter().map(|(place, hole)| {
                let is_of_optional = matches!(place, Place::New { field, .. } if *field == path);
                let number = if is_of_optional {
                    Number::Any
                } else {
                    own.next().map_or(Number::Any, |(_, hole)| hole.number)
                };
                (place.clone(), Hole { hint: hole.hint.clone(), number })
            });
            let holes = holes.chain([presence(&path, false)]).collect();
            (body, Shape { holes, ..shape })
        }));
    }
}

/// Returns the place that says whether a call has a module.
fn presence(path: &str, has: bool) -> (Place, Hole) {
    let hint = format!("has_{path}");
    (Place::Has { field: path.to_owned() }, Hole { hint, number: Number::Bool(has) })
}

/// Returns the path of the module that an item calls, with the value that it takes and the one that it returns, if each is
/// one.
pub(super) fn optional(tree: &Tree, body: &Body, at: usize) -> Option<(String, Id, Id)> {
    let What::Call(call) = body.items[at].what else { return None };
    let called = &tree.bodies[call];
    if called.list.is_some() {
        return None;
    }
    let ([(_, given)], [returned]) = (&called.inputs[..], &called.outputs[..]) else { return None };
    let path = called.module.strip_prefix(&body.prefix())?;
    (!path.contains('.')).then(|| (path.to_owned(), *given, *returned))
}

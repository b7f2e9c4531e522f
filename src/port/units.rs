//! The units of a body: its items one by one, and calls of the modules of a list one after the other, which are a loop.

use std::collections::HashSet;
use std::ops::Range;

use super::flat::Id;
use super::names::{computed_by, read_by};
use super::tree::{Body, Tree, What};

/// Calls of the modules of a list, one after the other.
#[derive(Clone, Debug)]
pub(super) struct Loop {
    pub(super) items: Range<usize>,
    /// The modules, by their paths from the body's module on.
    pub(super) modules: Sequence,
    pub(super) kind: LoopKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LoopKind {
    /// Each call takes what the one before it returned, as its n-th argument.
    Chain(usize),
    /// Each call takes the list of what all before it returned.
    Growing,
}

/// Paths that differ in the number at their end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sequence {
    /// What stands before the number, such as `layers.` or `denselayer`.
    pub(super) stem: String,
    pub(super) start: usize,
}

impl Sequence {
    pub(super) fn path(&self, at: usize) -> String {
        format!("{}{}", self.stem, self.start + at)
    }

    /// Splits a path that ends with a number.
    fn of(path: &str) -> Option<Sequence> {
        let stem = path.trim_end_matches(|c: char| c.is_ascii_digit());
        let start = path[stem.len()..].parse().ok()?;
        let sequence = Sequence { stem: stem.to_owned(), start };
        (sequence.path(0) == path).then_some(sequence)
    }

    /// Returns whether the number is all of the last name, as in a `ModuleList`.
    fn is_of_container(&self) -> bool {
        self.stem.is_empty() || self.stem.ends_with('.')
    }
}

/// The least number of modules of one class among others in an `nn.Sequential` that are a list.
const MIN_AMONG_OTHERS: usize = 3;

/// Finds the loops of a body. `class_of` returns the class of a call and which part of its results it is, if it is a
/// struct or a layer that can be called in a loop.
pub(super) fn loops<C: PartialEq>(
    tree: &Tree,
    body: &Body,
    class_of: impl Fn(usize) -> Option<C>,
) -> Vec<Loop> {
    let finder = Finder { tree, body, class_of };
    let mut loops = Vec::<Loop>::new();
    let mut at = 0;
    while at < body.items.len() {
        let found = finder.longest(at);
        at = found.as_ref().map_or(at + 1, |found| found.items.end);
        loops.extend(found);
    }
    // Modules that are several loops have one length in all of them.
    let lengths = loops.iter().map(|one| (one.modules.clone(), one.items.len()));
    let lengths = lengths.collect::<Vec<_>>();
    loops.retain(|one| {
        let same = lengths.iter().filter(|(modules, _)| modules.stem == one.modules.stem);
        same.clone().all(|(modules, length)| {
            *modules == one.modules && *length == one.items.len()
                || modules.start + length <= one.modules.start
                || one.modules.start + one.items.len() <= modules.start
        })
    });
    loops
}

struct Finder<'a, F> {
    tree: &'a Tree,
    body: &'a Body,
    class_of: F,
}

impl<C: PartialEq, F: Fn(usize) -> Option<C>> Finder<'_, F> {
    /// Returns the body that an item calls.
    fn called(&self, at: usize) -> Option<(usize, &Body)> {
        match self.body.items.get(at)?.what {
            What::Call(call) => Some((call, &self.tree.bodies[call])),
            What::Step(_) => None,
        }
    }

    fn path(&self, called: &Body) -> Option<String> {
        self.body.relative(&called.module).map(str::to_owned)
    }

    /// Returns the longest loop that begins with an item.
    fn longest(&self, start: usize) -> Option<Loop> {
        let (call, first) = self.called(start)?;
        let class = (self.class_of)(call)?;
        let modules = Sequence::of(&self.path(first)?)?;
        let [_] = first.outputs[..] else { return None };
        let one = &self.body.items[start];
        let mut kind = first.list.as_ref().map(|_| LoopKind::Growing);
        let mut end = start + 1;
        while let Some((call, next)) = self.called(end) {
            let item = &self.body.items[end];
            let (_, before) = self.called(end - 1)?;
            let is_next = self.path(next) == Some(modules.path(end - start))
                && (self.class_of)(call).is_some_and(|other| other == class)
                && item.frames == one.frames
                && (item.grad, item.mode) == (one.grad, one.mode);
            if !is_next || next.outputs.len() != 1 {
                break;
            }
            match (kind, self.link(before, next)) {
                (Some(known), Some(link)) if known == link => {}
                (None, Some(link)) => kind = Some(link),
                _ => break,
            }
            end += 1;
        }
        let found = Loop { items: start..end, modules, kind: kind.unwrap_or(LoopKind::Chain(0)) };
        (self.is_list(&found) && !first.inputs.is_empty()).then_some(found)
    }

    /// Returns how a call takes what the one before it returned, if nothing else reads that.
    fn link(&self, before: &Body, next: &Body) -> Option<LoopKind> {
        let output = before.outputs[0];
        match (&before.list, &next.list) {
            (Some(one), Some(two)) => {
                let grown = [&one.ids[..], &[output]].concat();
                return (two.ids == grown).then_some(LoopKind::Growing);
            }
            (None, None) => {}
            _ => return None,
        }
        if before.inputs.len() != next.inputs.len() {
            return None;
        }
        let pairs = before.inputs.iter().zip(&next.inputs).enumerate();
        let mut changed = pairs.filter(|(_, ((_, a), (_, b)))| a != b);
        let (at, (_, (_, given))) = changed.next()?;
        let is_chain = *given == output && changed.next().is_none();
        (is_chain && self.reads(output) == 1).then_some(LoopKind::Chain(at))
    }

    fn reads(&self, id: Id) -> usize {
        let items = self.body.items.iter().flat_map(|item| read_by(item, &self.tree.bodies));
        items.chain(self.body.outputs.iter().copied()).filter(|read| *read == id).count()
    }

    /// Returns whether a person would have the modules as a list.
    fn is_list(&self, found: &Loop) -> bool {
        let count = found.items.len();
        let Sequence { stem, .. } = &found.modules;
        if !found.modules.is_of_container() {
            // Python has no loop where a line names them.
            let line = self.body.items[found.items.start].source();
            let names = (0..count).map(|at| found.modules.path(at));
            let mut names = names.map(|path| path.rsplit('.').next().unwrap_or(&path).to_owned());
            return count > 1 && names.all(|name| !line.contains(&name));
        }
        if found.kind == LoopKind::Growing && count < 2 {
            return false;
        }
        let paths = (0..self.body.items.len()).filter_map(|at| self.path(self.called(at)?.1));
        let inside = |path: &String| {
            let last = path.strip_prefix(stem.as_str());
            last.is_some_and(|last| !stem.is_empty() || !last.contains('.'))
        };
        let all = paths.filter(inside).collect::<HashSet<_>>();
        match stem.is_empty() {
            true => count >= MIN_AMONG_OTHERS || count > 1 && all.len() == count,
            false => all.len() == count,
        }
    }
}

/// Lists the values that the items of a unit compute for others.
pub(super) fn results(tree: &Tree, body: &Body, items: &Range<usize>) -> Vec<Id> {
    items.clone().flat_map(|at| computed_by(&body.items[at], &tree.bodies)).collect()
}

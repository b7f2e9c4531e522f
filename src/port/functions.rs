//! Functions that a `forward` calls, as functions of Rust: where a function computes by its arguments alone, its operators
//! are those of a call, like those of a module without parameters.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::flat::{Flat, From, Id, ModuleOf, Step};
use super::python::{Frame, is_identifier};

/// The least number of operators of a function that is written as one.
const MIN_OPERATORS: usize = 3;

impl Flat {
    /// Makes calls of what functions compute, the outermost first, and then of what is in them.
    pub(super) fn find_functions(&mut self) {
        let mut counts = HashMap::<String, usize>::new();
        while self.find_outermost(&mut counts) {}
    }

    /// Returns whether there was a function.
    fn find_outermost(&mut self, counts: &mut HashMap<String, usize>) -> bool {
        let mut found = false;
        let mut at = 0;
        while at < self.steps.len() {
            let depths = self.steps[at].frames.last().map_or(0, Vec::len);
            let called = (1..depths).find_map(|depth| Some((depth, self.call(at, depth)?)));
            let Some((depth, range)) = called else {
                at += 1;
                continue;
            };
            found = true;
            if self.only_calls(range.clone(), depth) {
                for step in &mut self.steps[range] {
                    step.frames.last_mut().map(|frames| frames.remove(depth));
                }
                continue;
            }
            at = range.end;
            self.enter(range, depth, counts);
        }
        found
    }

    /// Returns the steps of the function whose line stands at a depth in the frames of a step, if they are a call that
    /// begins there and can be written as a function.
    fn call(&self, at: usize, depth: usize) -> Option<Range<usize>> {
        let first = &self.steps[at];
        let function = &frame(first, depth)?.function;
        let is_same = |step: &Step| {
            step.modules == first.modules
                && step.grad == first.grad
                && step.frames.len() == first.frames.len()
                && frame(step, depth).is_some_and(|frame| frame.function == *function)
                && (0..depth).all(|outer| frame(step, outer) == frame(first, outer))
        };
        let count = self.steps[at..].iter().take_while(|step| is_same(step)).count();
        let range = at..at + count;
        let is_whole = at == 0 || !is_same(&self.steps[at - 1]);
        // A line that comes again is that of a loop, or of another call in one line.
        let lines = self.steps[range.clone()].iter().filter_map(|step| frame(step, depth));
        let is_in_order = lines.map(|frame| frame.line).is_sorted();
        // A module that does nothing but to call a function is that function.
        let is_within = |step: &Step| step.modules.starts_with(&first.modules);
        let before = at.checked_sub(1).and_then(|before| self.steps.get(before));
        let is_part =
            before.is_some_and(is_within) || self.steps.get(range.end).is_some_and(is_within);
        let is_function = is_identifier(function) && is_whole && is_in_order && is_part;
        let is_written = is_function && count >= MIN_OPERATORS && self.takes_values(range.clone());
        is_written.then_some(range)
    }

    /// Returns whether steps read something that others compute, and no parameter or buffer of their module: a person
    /// would not hand these to a function.
    fn takes_values(&self, range: Range<usize>) -> bool {
        let steps = &self.steps[range];
        let module = steps.first().and_then(|step| step.modules.last());
        let own = module.filter(|module| !module.name.is_empty());
        let own = own.map_or(String::new(), |module| format!("{}.", module.name));
        let computed = steps.iter().flat_map(|step| step.results.ids()).collect::<HashSet<_>>();
        let read = steps.iter().flat_map(|step| step.arguments.iter().flat_map(|(_, a)| a.ids()));
        let mut read = read.filter(|id| !computed.contains(id)).peekable();
        let is_own = |id: Id| matches!(&self.values[id].from, From::Variable(name) if name.starts_with(&own));
        read.peek().is_some() && !read.any(is_own)
    }

    /// Returns whether a function does nothing but to call another one, as a decorator does.
    fn only_calls(&self, range: Range<usize>, depth: usize) -> bool {
        let first = &self.steps[range.start];
        let called = |step: &Step| frame(step, depth + 1).map(|frame| frame.function.clone());
        let mut steps = self.steps[range].iter();
        called(first).is_some()
            && steps.all(|step| {
                called(step) == called(first) && frame(step, depth) == frame(first, depth)
            })
    }

    /// Lets steps be those of a call.
    fn enter(&mut self, range: Range<usize>, depth: usize, counts: &mut HashMap<String, usize>) {
        let first = &self.steps[range.start];
        let Some(called) = frame(first, depth) else { return };
        let (function, file) = (&called.function, called.file.trim_end_matches(".py"));
        let file = file.rsplit(['/', '\\']).next().unwrap_or(file);
        let of = first.modules.last();
        let (key, name) = of.map_or(("", ""), |of| (of.key.as_str(), of.name.as_str()));
        let key = format!("{key}.{function}()");
        let count = counts.entry(key.clone()).or_default();
        *count += 1;
        let name = format!("{name}.{function}()").trim_start_matches('.').to_owned();
        let key = format!("{key}@{count}");
        let call = ModuleOf { key, name, class: format!("{file}.{function}") };
        for step in &mut self.steps[range] {
            step.modules.push(call.clone());
            if let Some(frames) = step.frames.last_mut() {
                let inner = frames.split_off(depth);
                step.frames.push(inner);
            }
        }
    }
}

/// Returns the line at a depth below the `forward` that a step stands in.
fn frame(step: &Step, depth: usize) -> Option<&Frame> {
    step.frames.last()?.get(depth)
}

//! Items that are one statement together: a loop over the modules of a list, and the sizes of one tensor.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::{Context, Result};

use super::fields;
use super::flat;
use super::forward::Writer;
use super::identifier::snake;
use super::operator::Scope;
use super::python;
use super::rust::{Expression, Kind};
use super::series::plural;
use super::tree::What;
use super::units::{Loop, LoopKind};

impl Writer<'_> {
    /// Returns the loop that begins with the first of the items, with those of the other lists of a list of lists behind
    /// it, if they are one chain.
    pub(super) fn loops_at(&self, range: Range<usize>) -> Vec<Loop> {
        let loops = &self.class.loops;
        let Some(at) = loops.iter().position(|one| one.items.start == range.start) else {
            return Vec::new();
        };
        let first = &loops[at];
        if first.items.end > range.end {
            return Vec::new();
        }
        let path = first.modules.path(0);
        let lists = self.class.rust_fields.iter().find(|field| field.parts[0].path == path);
        let count = lists.map_or(1, |lists| if lists.is_list { lists.parts.len() } else { 1 });
        let of_lists = loops[at..].iter().take(count).collect::<Vec<_>>();
        let is_chain = of_lists.len() == count
            && of_lists.windows(2).all(|pair| self.is_chain(pair[0], pair[1]))
            && of_lists.iter().all(|one| one.items.end <= range.end);
        let count = if is_chain { count } else { 1 };
        loops[at..at + count].to_vec()
    }

    /// Returns whether a loop goes on with what another one returned.
    fn is_chain(&self, one: &Loop, next: &Loop) -> bool {
        let call = |at: usize| match self.body.items[at].what {
            What::Call(call) => Some(&self.bodies()[call]),
            What::Step(_) => None,
        };
        let (Some(last), Some(first)) = (call(one.items.end - 1), call(next.items.start)) else {
            return false;
        };
        let LoopKind::Chain(argument) = one.kind else { return false };
        let inputs = last.inputs.iter().zip(&first.inputs).enumerate();
        let mut given = inputs.filter(|(at, ((_, a), (_, b)))| *at != argument && a != b);
        // How a single call goes on is not known.
        let is_next = one.kind == next.kind || next.items.len() == 1 || one.items.len() == 1;
        let output = last.outputs[0];
        is_next
            && one.items.end == next.items.start
            && first.inputs[argument].1 == output
            && given.next().is_none()
            && self.reads.get(&output) == Some(&1)
    }

    /// Writes the calls of the modules of lists as a loop. Each takes what the one before it returned as an argument,
    /// the place of which is given.
    pub(super) fn write_loop(&mut self, loops: &[Loop], at: usize) -> Result<()> {
        let port = self.port;
        let range = loops[0].items.start..loops[loops.len() - 1].items.end;
        let calls = self.body.items[range].iter().filter_map(|item| match item.what {
            What::Call(call) => Some(call),
            What::Step(_) => None,
        });
        let calls = calls.collect::<Vec<_>>();
        let first = &port.tree.bodies[calls[0]];
        let last = &port.tree.bodies[calls[calls.len() - 1]];
        let start = first.inputs[at].1;
        let output = last.outputs[0];
        let wanted = self.wanted.get(&output).cloned();
        let start_expression = match self.pending.last() {
            Some((id, _)) if *id == start && self.pending.len() == 1 => {
                let text = self.read(start);
                text.value()
            }
            _ => {
                self.flush();
                let local = self.read(start);
                let is_last = self.reads.get(&start) == Some(&0);
                if local.kind == Kind::Place && is_last && !local.text.contains(['.', '[']) {
                    local.text
                } else {
                    local.owned()
                }
            }
        };
        // The values between are read by the next call alone.
        for call in &calls[1..] {
            let before = port.tree.bodies[*call].inputs[at].1;
            self.reads.insert(before, 0);
            for (n, (_, id)) in port.tree.bodies[*call].inputs.iter().enumerate() {
                if n != at {
                    self.reads.entry(*id).and_modify(|reads| *reads = reads.saturating_sub(1));
                }
            }
        }
        let mut others = HashMap::new();
        for (n, (_, id)) in first.inputs.iter().enumerate() {
            if n != at {
                others.insert(n, self.read(*id).reference());
            }
        }
        let name = wanted.unwrap_or_else(|| "x".to_owned());
        // The other arguments are read in the loop.
        let name = if others.values().any(|other| other.trim_start_matches('&') == name) {
            format!("{name}_2")
        } else {
            self.unused(&name)
        };
        let arguments = (0..first.inputs.len()).map(|n| match others.get(&n) {
            Some(other) => other.clone(),
            None => format!("&{name}"),
        });
        let arguments = arguments.chain(first.depends_on_mode.then(|| "train".to_owned()));
        let arguments = arguments.collect::<Vec<_>>();
        let class = self.class_of(calls[0]);
        let element = match &class.layer {
            Some(_) => "layer".to_owned(),
            None => snake(&class.base).rsplit('_').next().unwrap_or("module").to_owned(),
        };
        let element = if element == name { "module".to_owned() } else { element };
        let mark = if class.layer.is_none() { "?" } else { "" };
        let called = self.called(calls[0], &element, &arguments);
        let made = format!("let {name} = ");
        let made_mutable = self.lines.rfind(&format!("let mut {name} = "));
        match self.lines.rfind(&made).max(made_mutable) {
            // It was made for the loop alone.
            Some(at) if start_expression == name => {
                if made_mutable != Some(at) {
                    self.insert_mut(at);
                }
            }
            _ => self.lines += &format!("let mut {name} = {start_expression};\n"),
        }
        let list = self.list_of(loops)?;
        let call = format!("{name} = {called}{mark};");
        let elements = plural(&element);
        let elements = if elements == element { "modules".to_owned() } else { elements };
        self.lines += &match loops.len() {
            1 => format!("for {element} in &{list} {{\n{call}\n}}\n"),
            _ => format!(
                "for {elements} in &{list} {{\nfor {element} in {elements} {{\n{call}\n}}\n}}\n"
            ),
        };
        self.locals.insert(output, Expression::new(name, Kind::Place, false));
        Ok(())
    }

    /// Returns where the modules of a loop are, or those of several loops.
    fn list_of(&self, loops: &[Loop]) -> Result<String> {
        let path = loops[0].modules.path(0);
        let place = fields::place(self.class, &path);
        let place = place.with_context(|| format!("{} has no module {path}", self.class.name))?;
        let mut list = &*place;
        for _ in 0..loops.len().min(2) {
            list = list.rsplit_once('[').map_or(list, |(list, _)| list);
        }
        Ok(self.of_self(list))
    }

    /// Writes calls that each take a list of what the ones before returned as a loop.
    pub(super) fn write_growing(&mut self, one: &Loop) -> Result<()> {
        self.flush();
        let port = self.port;
        let range = one.items.clone();
        let calls = self.body.items[range.clone()].iter().filter_map(|item| match item.what {
            What::Call(call) => Some(&port.tree.bodies[call]),
            What::Step(_) => None,
        });
        let calls = calls.collect::<Vec<_>>();
        let mut whole = calls[0].list.as_ref().map(|list| list.ids.clone()).unwrap_or_default();
        let start = whole.iter().map(|id| self.read(*id).owned()).collect::<Vec<_>>().join(", ");
        for called in &calls[1..] {
            for (_, id) in &called.inputs {
                self.count_read(*id);
            }
        }
        whole.extend(calls.iter().flat_map(|called| called.outputs.iter().copied()));
        let source = self.body.items[range.start].source();
        let name = python::only_operand(source).map_or("values".to_owned(), snake);
        let name = self.unused(&name);
        let result = python::assigned(source).and_then(|t| t.names().pop());
        let result = result.map_or("value".to_owned(), |name| snake(&name));
        let result = if result == name { "value".to_owned() } else { result };
        let mode = if calls[0].depends_on_mode { ", train" } else { "" };
        let forward = if calls[0].depends_on_mode { "forward_t" } else { "forward" };
        let list = self.list_of(std::slice::from_ref(one))?;
        self.lines += &format!(
            "let mut {name} = vec![{start}];\nfor module in &{list} {{\n\
             let {result} = module.{forward}(&{name}{mode})?;\n{name}.push({result});\n}}\n"
        );
        for (at, id) in whole.iter().enumerate() {
            let part = format!("{name}[{at}]");
            self.locals.entry(*id).or_insert(Expression::new(part, Kind::Place, false));
        }
        self.lists.push((whole, format!("&{name}")));
        Ok(())
    }

    /// Lets the variable of a `let` that is written already change.
    fn insert_mut(&mut self, at: usize) {
        self.lines.insert_str(at + "let ".len(), "mut ");
        self.inserted += "mut ".len();
    }

    /// Returns how many of the items read sizes of one tensor.
    pub(super) fn sizes_of_one(&self, range: Range<usize>) -> usize {
        let of = |at: usize| match &self.body.items[at].what {
            What::Step(step) if step.operator == "sym_size.int" => {
                step.arguments[0].1.ids().first().copied()
            }
            _ => None,
        };
        let Some(tensor) = of(range.start) else { return 0 };
        range.take_while(|at| of(*at) == Some(tensor)).count()
    }

    pub(super) fn write_sizes(&mut self, range: Range<usize>) {
        let mut sizes = Vec::new();
        let mut tensor = 0;
        for at in range {
            let What::Step(step) = &self.body.items[at].what else { continue };
            tensor = step.arguments[0].1.ids()[0];
            if let flat::Argument::Int(dimension) = step.arguments[1].1 {
                sizes.push((dimension, step.results.ids()[0]));
            }
        }
        if self.pending.iter().any(|(id, _)| *id == tensor) {
            self.flush();
        }
        let mut text = String::new();
        for _ in &sizes {
            text = self.read(tensor).value();
        }
        let rank = self.port.flat.values[tensor].meta.as_ref().map_or(0, |meta| meta.sizes.len());
        if (1..=6).contains(&rank) && sizes.len() > 1 {
            let mut names = vec!["_".to_owned(); rank];
            for (dimension, id) in sizes {
                let name = self.name(id, &mut text);
                let at = if dimension < 0 { dimension + rank as i64 } else { dimension };
                if let Some(place) = names.get_mut(at as usize) {
                    name.clone_into(place);
                }
                self.locals.insert(id, Expression::new(name, Kind::Int, false));
            }
            self.lines += &format!("let ({}) = {text}.size{rank}()?;\n", names.join(", "));
            return;
        }
        for (dimension, id) in sizes {
            let name = self.name(id, &mut text);
            self.lines += &format!("let {name} = {text}.size()[{dimension}];\n");
            self.locals.insert(id, Expression::new(name, Kind::Int, false));
        }
    }
}

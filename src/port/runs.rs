//! Items that are one statement together: a loop over the modules of a list, and the sizes of one tensor.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::{Context, Result};

use super::fields;
use super::flat;
use super::flat::Id;
use super::forward::Writer;
use super::identifier::snake;
use super::operator::Scope;
use super::python;
use super::rust::{Expression, Kind};
use super::tree::What;

impl Writer<'_> {
    /// Returns how many of the items are one chain of calls of the modules of a list.
    pub(super) fn looped(&self, range: Range<usize>) -> usize {
        let call = |at: usize| match self.body.items[at].what {
            What::Call(call) => Some(call),
            What::Step(_) => None,
        };
        let Some(first) = call(range.start) else { return 0 };
        let is_given = self.run(first).is_some_and(|(_, run)| !run.state.is_empty());
        if self.bodies()[first].list.is_some() || is_given {
            return 0;
        }
        let index = |call: usize| {
            let (base, index) = self.bodies()[call].module.rsplit_once('.')?;
            Some((base, index.parse::<usize>().ok()?))
        };
        let Some((base, 0)) = index(first) else { return 0 };
        let path = self.relative(&self.bodies()[first].module);
        let list = self
            .class
            .rust_fields
            .iter()
            .find(|field| field.is_list && field.parts[0].path == path);
        let Some(list) = list else { return 0 };
        let mut count = 1;
        let mut before = first;
        for at in range.start + 1..range.end {
            let Some(next) = call(at) else { break };
            let (one, two) = (&self.bodies()[before], &self.bodies()[next]);
            let [output] = one.outputs[..] else { break };
            let chained = one.inputs.iter().zip(&two.inputs);
            let mut changed = chained.filter(|((_, a), (_, b))| a != b);
            let is_chain = changed.next().is_some_and(|(_, (_, given))| *given == output)
                && changed.next().is_none();
            let only_read = self.reads.get(&output) == Some(&1);
            let part = |call: usize| self.run(call)?.1.part(&self.bodies()[call]);
            let is_same = index(next) == Some((base, count)) && part(next) == part(first);
            if !is_same || !is_chain || !only_read {
                break;
            }
            count += 1;
            before = next;
        }
        if count == list.parts.len() { count } else { 0 }
    }

    /// Writes the calls of the modules of a list as a loop.
    pub(super) fn write_loop(&mut self, range: Range<usize>) -> Result<()> {
        let port = self.port;
        let calls = self.body.items[range].iter().filter_map(|item| match item.what {
            What::Call(call) => Some(call),
            What::Step(_) => None,
        });
        let calls = calls.collect::<Vec<_>>();
        let (first, second) = (&port.tree.bodies[calls[0]], &port.tree.bodies[calls[1]]);
        let last = &port.tree.bodies[calls[calls.len() - 1]];
        let inputs = first.inputs.iter().zip(&second.inputs);
        let at = inputs.clone().position(|((_, a), (_, b))| a != b).unwrap_or(0);
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
        let path = self.relative(&first.module);
        let place = fields::place(self.class, path);
        let place = place.with_context(|| format!("{} has no module {path}", self.class.name))?;
        let list = place.split('[').next().unwrap_or(&place).to_owned();
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
        self.lines += &format!("for {element} in &self.{list} {{\n{name} = {called}{mark};\n}}\n");
        self.locals.insert(output, Expression::new(name, Kind::Place, false));
        Ok(())
    }

    /// Returns how many of the items are calls of modules of one class, of which each takes a list of what the ones
    /// before it returned; the whole list is read behind them.
    pub(super) fn grown(&self, range: Range<usize>) -> usize {
        let classes = &self.port.classes;
        let mut list = Vec::<Id>::new();
        let mut first = None;
        let mut count = 0;
        for at in range {
            let What::Call(call) = self.body.items[at].what else { break };
            let called = &self.bodies()[call];
            let (Some(taken), [output]) = (&called.list, &called.outputs[..]) else { break };
            let class = classes.of_body[call];
            if classes.classes[class].is_function()
                || *first.get_or_insert(class) != class
                || count > 0 && taken.ids != list
            {
                break;
            }
            list = [&taken.ids[..], &[*output]].concat();
            count += 1;
        }
        count
    }

    /// Writes calls that each take a list of what the ones before returned as a loop.
    pub(super) fn write_growing(&mut self, range: Range<usize>) -> Result<()> {
        self.flush();
        let port = self.port;
        let calls = self.body.items[range.clone()].iter().filter_map(|item| match item.what {
            What::Call(call) => Some(&port.tree.bodies[call]),
            What::Step(_) => None,
        });
        let calls = calls.collect::<Vec<_>>();
        let mut whole = calls[0].list.as_ref().map(|list| list.ids.clone()).unwrap_or_default();
        let start = whole.iter().map(|id| self.read(*id).owned()).collect::<Vec<_>>().join(", ");
        let mut modules = Vec::new();
        for called in &calls {
            let path = self.relative(&called.module);
            let place = fields::place(self.class, path);
            let place =
                place.with_context(|| format!("{} has no module {path}", self.class.name))?;
            modules.push(format!("&self.{place}"));
        }
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
        self.lines += &format!(
            "let mut {name} = vec![{start}];\nfor module in [{}] {{\nlet {result} = module.{forward}(&{name}{mode})?;\n\
             {name}.push({result});\n}}\n",
            modules.join(", ")
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

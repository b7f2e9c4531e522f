//! The statements of a `forward`: the operators and calls of a body in their order, under Python's names.
//!
//! A value that is read once, within its own line of Python, is written where it is read, as Python has it. Nothing is
//! computed in another order than in the program.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use anyhow::{Context, Result};

use super::Port;
use super::arithmetic::is_arithmetic;
use super::branch::Branch;
use super::class::Class;
use super::flat::{self, Id, Results};
use super::names::{self, read_by};
use super::operator::{Scope, Written};
use super::python;
use super::rust::{Expression, Kind};
use super::tree::{Body, What};
use super::units::LoopKind;

/// The longest expression that is written within another one.
const MAX_NESTED: usize = 100;

/// The source of a `forward`.
pub(super) struct Forward {
    /// The arguments with their types, such as `x: &Tensor`.
    pub(super) arguments: Vec<String>,
    pub(super) body: String,
    /// The arguments of `new` that it reads.
    pub(super) numbers: HashSet<usize>,
    pub(super) needs_call: bool,
}

pub(super) fn forward(port: &Port, class: &Class) -> Result<Forward> {
    let body = &port.tree.bodies[class.body];
    let mut writer = Writer {
        port,
        class,
        body,
        locals: HashMap::new(),
        lists: Vec::new(),
        states: Vec::new(),
        reads: HashMap::new(),
        written: HashSet::new(),
        wanted: &port.names[class.body],
        pending: Vec::new(),
        unwritten: String::new(),
        lines: String::new(),
        comments: String::new(),
        inserted: 0,
        begins: (0, 0),
        item: 0,
        device: None,
        branch: None,
        open_parts: Vec::new(),
        opened: Vec::new(),
        numbers: std::cell::RefCell::new(HashSet::new()),
        needs_call: false,
    };
    writer.count_reads();
    let mut arguments = writer.arguments();
    arguments.extend(body.depends_on_mode.then(|| "train: bool".to_owned()));
    writer.items(0..body.items.len())?;
    writer.result();
    let numbers = writer.numbers.into_inner();
    Ok(Forward { arguments, body: writer.lines, numbers, needs_call: writer.needs_call })
}

pub(super) struct Writer<'a> {
    pub(super) port: &'a Port,
    pub(super) class: &'a Class,
    pub(super) body: &'a Body,
    /// What each value is that has a name.
    pub(super) locals: HashMap<Id, Expression>,
    /// The lists of values that are variables.
    pub(super) lists: Vec<(Vec<Id>, String)>,
    /// The states of recurrent layers that are variables, by their parts.
    pub(super) states: Vec<(Vec<Id>, String)>,
    /// How often each value is still read.
    pub(super) reads: HashMap<Id, usize>,
    /// The values that an operator writes to.
    pub(super) written: HashSet<Id>,
    /// The names that Python has for values.
    pub(super) wanted: &'a HashMap<Id, String>,
    /// The values that are not written yet, in the order in which they are computed.
    pub(super) pending: Vec<(Id, Expression)>,
    /// An expression that is written after the values that are kept.
    pub(super) unwritten: String,
    pub(super) lines: String,
    /// The comments that were written last.
    comments: String,
    /// How much was written into lines that were there already.
    pub(super) inserted: usize,
    /// How long the lines were where the present one begins, and how much was inserted until then.
    pub(super) begins: (usize, usize),
    /// The item that is being written.
    pub(super) item: usize,
    /// An argument that is a tensor.
    pub(super) device: Option<String>,
    /// The branch of a mode that is being written.
    pub(super) branch: Option<Branch>,
    /// The parts that are being written and that some calls leave out.
    pub(super) open_parts: Vec<usize>,
    /// The fields that are an `Option`, and what their values are within these parts.
    pub(super) opened: Vec<(String, String)>,
    pub(super) numbers: std::cell::RefCell<HashSet<usize>>,
    pub(super) needs_call: bool,
}

impl Writer<'_> {
    pub(super) fn bodies(&self) -> &[Body] {
        &self.port.tree.bodies
    }

    fn count_reads(&mut self) {
        for item in &self.body.items {
            for id in read_by(item, &self.port.tree.bodies) {
                *self.reads.entry(id).or_default() += 1;
            }
            if let What::Step(step) = &item.what {
                let receiver = step.arguments.first().and_then(|(_, a)| a.ids().first().copied());
                let by_method = || {
                    let written = Written::new(step, &self.port.flat, &self.port.methods);
                    written.is_ok_and(|written| written.is_method())
                };
                self.written.extend(receiver.filter(|_| Written::writes(step) && by_method()));
            }
        }
        for id in &self.body.outputs {
            *self.reads.entry(*id).or_default() += 1;
        }
    }

    pub(super) fn items(&mut self, range: Range<usize>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            if let Some(part) = self.part_at(at) {
                self.write_part(part)?;
                at = self.class.parts[part].items.end;
                continue;
            }
            let branch = self.items_of_branch(at..range.end);
            if branch > 0 {
                self.write_branch(at..at + branch)?;
                at += branch;
                continue;
            }
            let grad = self.body.items[at].grad;
            let is_same = |other: &usize| {
                self.body.items[*other].grad == grad
                    && self.items_of_branch(*other..range.end) == 0
                    && self.part_at(*other).is_none()
            };
            let end = at + (at..range.end).take_while(is_same).count();
            if grad || self.is_called_without_grad() {
                self.lines(at..end)?;
            } else {
                self.without_grad(at..end)?;
            }
            at = end;
        }
        Ok(())
    }

    /// Returns whether the whole call is a part of what its caller does without autograd.
    fn is_called_without_grad(&self) -> bool {
        !self.body.module.is_empty() && self.body.items.iter().all(|item| !item.grad)
    }

    pub(super) fn lines(&mut self, range: Range<usize>) -> Result<()> {
        for names::Line { items: group, sources } in names::lines(self.body, range) {
            let (before, inserted) = (self.lines.len(), self.inserted);
            self.begins = (before, inserted);
            let mut at = group.start;
            while at < group.end {
                let loops = self.loops_at(at..group.end);
                if let (Some(first), Some(last)) = (loops.first(), loops.last()) {
                    self.item = at;
                    at = last.items.end;
                    match first.kind {
                        LoopKind::Chain(argument) => self.write_loop(&loops, argument)?,
                        LoopKind::Growing => self.write_growing(first)?,
                    }
                    continue;
                }
                let sizes = self.sizes_of_one(at..group.end);
                if sizes > 0 {
                    self.write_sizes(at..at + sizes);
                    at += sizes;
                    continue;
                }
                self.item = at;
                self.item(at, group.end)?;
                at += 1;
            }
            let is_result = matches!(self.pending[..], [(id, _)] if self.is_result(group.end, id));
            if !is_result {
                self.flush();
            }
            let before = before + self.inserted - inserted;
            let is_own = !self.body.class.starts_with("torch.");
            if is_own && (self.lines.len() > before || is_result) {
                let comment = |source: &&str| format!("// {}\n", python::shown(source));
                let statements = sources.iter().filter(|source| python::is_statement(source));
                let comments = statements.map(comment).collect::<String>();
                // The lines of one statement can have several parts of it between them.
                if !comments.is_empty() && comments != self.comments {
                    self.lines.insert_str(before, &comments);
                    self.comments = comments;
                }
            }
        }
        Ok(())
    }

    /// Writes an item, or keeps it until it is read in its own line.
    fn item(&mut self, at: usize, end_of_line: usize) -> Result<()> {
        let item = &self.body.items[at];
        let order;
        let written;
        match &item.what {
            What::Step(step) => {
                let new = Written::new(step, &self.port.flat, &self.port.methods)?;
                order = new.order();
                written = Some(new);
            }
            What::Call(call) => {
                order = self.bodies()[*call].inputs.iter().map(|(_, id)| *id).collect();
                written = None;
            }
        }
        if let What::Call(call) = item.what
            && self.is_given_twice(call)
        {
            self.flush();
        }
        let is_pending = |id: &&Id| self.pending.iter().any(|(pending, _)| pending == *id);
        let nested = order.iter().filter(is_pending).copied().collect::<Vec<_>>();
        let ids = self.pending.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        if !ids.ends_with(&nested) {
            self.flush();
        }
        let (results, expression) = match (&item.what, written) {
            (What::Step(step), _) if is_arithmetic(step) => {
                (step.results.clone(), self.arithmetic(step))
            }
            (What::Step(step), Some(written)) => {
                let port = self.port;
                let expression = written.expression(&port.flat, self);
                let module = match &*self.body.module {
                    "" => "the model".to_owned(),
                    name => format!("the module {name:?}"),
                };
                let expression = expression.with_context(|| {
                    let operator = written.operator();
                    let line = item.source();
                    format!("the operator {operator} of {module}, in the line `{line}`")
                })?;
                (step.results.clone(), expression)
            }
            (What::Call(call), _) => self.call(*call)?,
            (What::Step(_), None) => return Ok(()),
        };
        if let Some((id, expression)) = self.only(&results, &expression) {
            let line = &self.body.items[at + 1..end_of_line];
            let in_line = line.iter().any(|item| read_by(item, self.bodies()).contains(&id));
            let is_result = self.is_result(at + 1, id);
            let reads = self.reads.get(&id).copied().unwrap_or(0);
            let is_expression = !expression.text.starts_with("match ");
            let short = is_expression && expression.text.len() <= MAX_NESTED || is_result;
            let is_arithmetic = matches!(&item.what, What::Step(step) if is_arithmetic(step));
            let can_nest = expression.kind == Kind::New || is_arithmetic;
            if reads == 1 && (in_line || is_result) && short && can_nest {
                self.pending.push((id, expression));
                return Ok(());
            }
        }
        self.unwritten.clone_from(&expression.text);
        self.flush();
        self.unwritten.clear();
        self.bind(results, &expression);
        Ok(())
    }

    /// Returns whether a value is all that the body or its present branch returns, which ends there.
    fn is_result(&self, end: usize, id: Id) -> bool {
        match &self.branch {
            Some(branch) => branch.end == end && branch.returns == Some(id),
            None => end == self.body.items.len() && self.body.outputs == [id],
        }
    }

    /// Writes the values that are kept, each with a name.
    pub(super) fn flush(&mut self) {
        while !self.pending.is_empty() {
            let (id, expression) = self.pending.remove(0);
            self.bind(Results::One(id), &expression);
        }
    }

    /// Counts that a value is read.
    pub(super) fn count_read(&mut self, id: Id) {
        if let Some(reads) = self.reads.get_mut(&id) {
            *reads = reads.saturating_sub(1);
        }
    }

    /// Returns what a value is that was read already.
    pub(super) fn read_again(&mut self, id: Id) -> Expression {
        *self.reads.entry(id).or_default() += 1;
        self.read(id)
    }

    pub(super) fn relative<'b>(&self, name: &'b str) -> &'b str {
        self.body.relative(name).unwrap_or(name)
    }

    /// Writes what `forward` returns.
    fn result(&mut self) {
        let port = self.port;
        if let ([one], [(id, _)]) = (&self.body.outputs[..], &self.pending[..])
            && one == id
        {
            let expression = self.read(*one);
            self.lines += &expression.result();
            return;
        }
        self.flush();
        let mut values = Vec::new();
        for id in &self.body.outputs {
            let local = self.read(*id);
            let is_last = self.reads.get(id) == Some(&0);
            let own = local.kind == Kind::Place && is_last && !local.text.contains(['.', '[']);
            let is_number = port.flat.values[*id].kind != flat::Kind::Tensor;
            values.push(if own || is_number { local.value() } else { local.owned() });
        }
        match &values[..] {
            [one] => self.lines += &format!("Ok({one})"),
            _ => self.lines += &format!("Ok(({}))", values.join(", ")),
        }
    }
}

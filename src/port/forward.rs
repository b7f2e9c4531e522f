//! The statements of a `forward`: the operators and calls of a body in their order, under Python's names.
//!
//! A value that is read once, within its own line of Python, is written where it is read, as Python has it. Nothing is
//! computed in another order than in the program.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use anyhow::{Context, Result};

use super::Port;
use super::class::{Class, Place};
use super::fields;
use super::flat::{self, From, Id, Results, Step};
use super::identifier::snake;
use super::names::{self, computed_by, read_by, with_word};
use super::operator::{Scope, Written};
use super::python;
use super::rust::{Expression, Kind};
use super::tree::{Body, What};

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
        reads: HashMap::new(),
        written: HashSet::new(),
        wanted: &port.names[class.body],
        pending: Vec::new(),
        unwritten: String::new(),
        lines: String::new(),
        inserted: 0,
        item: 0,
        device: None,
        numbers: std::cell::RefCell::new(HashSet::new()),
        needs_call: false,
    };
    writer.count_reads();
    let arguments = writer.arguments();
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
    /// How much was written into lines that were there already.
    pub(super) inserted: usize,
    /// The item that is being written.
    pub(super) item: usize,
    /// An argument that is a tensor.
    pub(super) device: Option<String>,
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
                let written = Written::new(step, &self.port.methods);
                let by_method = written.is_ok_and(|written| written.is_method());
                self.written.extend(receiver.filter(|_| Written::writes(step) && by_method));
            }
        }
        for id in &self.body.outputs {
            *self.reads.entry(*id).or_default() += 1;
        }
    }

    /// Names the arguments, and returns them with their types.
    fn arguments(&mut self) -> Vec<String> {
        let mut arguments = Vec::new();
        for (name, id) in &self.body.inputs {
            let is_int = self.port.flat.values[*id].kind == flat::Kind::Int;
            let name = match &self.port.flat.values[*id].from {
                _ if !name.is_empty() && !name.ends_with(|c: char| c.is_ascii_digit()) => {
                    snake(name)
                }
                From::Computed if self.port.name_anywhere(*id).is_some() => {
                    self.port.name_anywhere(*id).unwrap_or_default()
                }
                _ if !name.is_empty() => snake(name),
                From::Variable(name) => snake(name.rsplit('.').next().unwrap_or(name)),
                _ if is_int => self.port.int_name(*id),
                _ => {
                    let name = names::in_body(&self.port.tree, self.body, &self.port.flat, *id);
                    name.map_or_else(|| self.usual_name(), |name| snake(&name))
                }
            };
            let name = self.unused(&name);
            let (kind, of) = if is_int { (Kind::Int, "i64") } else { (Kind::Reference, "&Tensor") };
            arguments.push(format!("{name}: {of}"));
            if !is_int && self.device.is_none() {
                self.device = Some(name.clone());
            }
            self.locals.insert(*id, Expression::new(name, kind, false));
        }
        arguments
    }

    fn usual_name(&self) -> String {
        if self.body.class.starts_with("torch.nn.") { "input" } else { "x" }.to_owned()
    }

    fn items(&mut self, range: Range<usize>) -> Result<()> {
        let mut at = range.start;
        while at < range.end {
            let grad = self.body.items[at].grad;
            let run = self.body.items[at..range.end].iter().take_while(|item| item.grad == grad);
            let end = at + run.count();
            if grad {
                self.lines(at..end)?;
            } else {
                self.without_grad(at..end)?;
            }
            at = end;
        }
        Ok(())
    }

    /// Writes items that autograd does not record as a block.
    fn without_grad(&mut self, range: Range<usize>) -> Result<()> {
        self.flush();
        let before = std::mem::take(&mut self.lines);
        self.lines(range.clone())?;
        self.flush();
        let inner = std::mem::replace(&mut self.lines, before);
        let items = &self.body.items[range];
        let computed = items.iter().flat_map(|item| computed_by(item, self.bodies()));
        let returned = computed.filter(|id| self.reads.get(id).is_some_and(|reads| *reads > 0));
        let returned = returned.collect::<Vec<_>>();
        let mut values = Vec::new();
        for id in &returned {
            values.push(self.locals.get(id).map_or_else(String::new, |local| match local.kind {
                Kind::Place if !local.text.contains(['[', '.']) => local.text.clone(),
                _ => local.owned(),
            }));
        }
        let mut names = Vec::new();
        for id in returned {
            let inner = self.locals.remove(&id).map(|local| local.text).unwrap_or_default();
            let name = self.wanted.get(&id).cloned().unwrap_or(inner);
            let name = self.unused(&name);
            let mutable = if self.written.contains(&id) { "mut " } else { "" };
            names.push(format!("{mutable}{name}"));
            self.locals.insert(id, Expression::new(name, Kind::Place, false));
        }
        let tuple = |parts: &[String]| match parts {
            [one] => one.clone(),
            _ => format!("({})", parts.join(", ")),
        };
        let (names, values) = (tuple(&names), tuple(&values));
        // The last value needs no name.
        let last = format!("let {values} = ");
        let inner = match inner.rfind(&last).filter(|at| inner[*at..].matches(";\n").count() == 1) {
            Some(at) => inner[..at].to_owned() + inner[at + last.len()..].trim_end_matches(";\n"),
            None => inner + &values,
        };
        self.lines +=
            &format!("let {names} = {{\nlet _guard = tch::no_grad_guard();\n{inner}\n}};\n");
        Ok(())
    }

    fn lines(&mut self, range: Range<usize>) -> Result<()> {
        for names::Line { items: group, sources } in names::lines(self.body, range) {
            let (before, inserted) = (self.lines.len(), self.inserted);
            let mut at = group.start;
            while at < group.end {
                let looped = self.looped(at..group.end);
                if looped > 1 {
                    self.write_loop(at..at + looped)?;
                    at += looped;
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
            let is_last = group.end == self.body.items.len();
            let is_result =
                is_last && self.pending.len() == 1 && self.body.outputs == [self.pending[0].0];
            if !is_result {
                self.flush();
            }
            let before = before + self.inserted - inserted;
            let is_own = !self.body.class.starts_with("torch.");
            if is_own && (self.lines.len() > before || is_result) {
                let comment = |source: &&str| format!("// {}\n", python::shown(source));
                let comments = sources.iter().map(comment).collect::<String>();
                self.lines.insert_str(before, &comments);
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
                let new = Written::new(step, &self.port.methods)?;
                order = new.order();
                written = Some(new);
            }
            What::Call(call) => {
                order = self.bodies()[*call].inputs.iter().map(|(_, id)| *id).collect();
                written = None;
            }
        }
        let is_pending = |id: &&Id| self.pending.iter().any(|(pending, _)| pending == *id);
        let nested = order.iter().filter(is_pending).copied().collect::<Vec<_>>();
        let ids = self.pending.iter().map(|(id, _)| *id).collect::<Vec<_>>();
        if !ids.ends_with(&nested) {
            self.flush();
        }
        let expression = match (&item.what, written) {
            (What::Step(step), _) if is_arithmetic(step) => self.arithmetic(step),
            (_, Some(written)) => {
                let port = self.port;
                let expression = written.expression(&port.flat, self);
                let module = &self.body.module;
                expression.with_context(|| {
                    let line = item.source();
                    format!("in the module {module:?}, in the line `{line}`")
                })?
            }
            (What::Call(call), None) => self.call(*call)?,
            (What::Step(_), None) => return Ok(()),
        };
        let results = match &item.what {
            What::Step(step) => step.results.clone(),
            What::Call(call) => match &self.bodies()[*call].outputs[..] {
                [one] => Results::One(*one),
                several => Results::Tuple(several.to_vec()),
            },
        };
        if let Results::One(id) = results {
            let line = &self.body.items[at + 1..end_of_line];
            let in_line = line.iter().any(|item| read_by(item, self.bodies()).contains(&id));
            let is_result = at + 1 == self.body.items.len() && self.body.outputs == [id];
            let reads = self.reads.get(&id).copied().unwrap_or(0);
            let short = expression.text.len() <= MAX_NESTED || is_result;
            let is_tensor = expression.kind == Kind::New;
            if reads == 1 && (in_line || is_result) && short && is_tensor {
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

    /// Writes the values that are kept, each with a name.
    pub(super) fn flush(&mut self) {
        while !self.pending.is_empty() {
            let (id, expression) = self.pending.remove(0);
            self.bind(Results::One(id), &expression);
        }
    }

    /// Writes a `let`.
    fn bind(&mut self, results: Results, expression: &Expression) {
        let mut value = expression.value();
        let is_read = |writer: &Self, id: Id| writer.reads.get(&id).is_some_and(|reads| *reads > 0);
        match results {
            Results::One(id) if !is_read(self, id) => self.lines += &format!("let _ = {value};\n"),
            Results::One(id) => {
                let name = self.name(id, &mut value);
                let mutable = if self.written.contains(&id) { "mut " } else { "" };
                self.lines += &format!("let {mutable}{name} = {value};\n");
                let kind = if expression.kind == Kind::Int { Kind::Int } else { Kind::Place };
                self.locals.insert(id, Expression::new(name, kind, false));
            }
            Results::Tuple(ids) => {
                let mut names = Vec::new();
                for id in ids {
                    if is_read(self, id) {
                        let name = self.name(id, &mut value);
                        let mutable = if self.written.contains(&id) { "mut " } else { "" };
                        names.push(format!("{mutable}{name}"));
                        self.locals.insert(id, Expression::new(name, Kind::Place, false));
                    } else {
                        names.push("_".to_owned());
                    }
                }
                if names.iter().all(|name| name == "_") {
                    self.lines += &format!("let _ = {value};\n");
                } else {
                    self.lines += &format!("let ({}) = {value};\n", names.join(", "));
                }
            }
            Results::List(ids) => {
                let name = self.operator_name();
                let name = self.unused(&name);
                self.lines += &format!("let {name} = {value};\n");
                let read = ids.iter().enumerate().filter(|(_, id)| is_read(self, **id));
                let read = read.map(|(at, id)| (at, *id)).collect::<Vec<_>>();
                let named = read.iter().all(|(_, id)| self.wanted.contains_key(id));
                let mut names = Vec::new();
                for (at, id) in &read {
                    let part = format!("{name}[{at}]");
                    if named {
                        let name = self.name(*id, &mut String::new());
                        names.push((name.clone(), format!("&{part}")));
                        self.locals.insert(*id, Expression::new(name, Kind::Reference, false));
                    } else {
                        self.locals.insert(*id, Expression::new(part, Kind::Place, false));
                    }
                }
                if let [(one, part)] = &names[..] {
                    self.lines += &format!("let {one} = {part};\n");
                } else if !names.is_empty() {
                    let (names, parts) = names.into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
                    self.lines +=
                        &format!("let ({}) = ({});\n", names.join(", "), parts.join(", "));
                }
            }
        }
    }

    /// Lets a value have the other name that a later line has for it, as in `residual = x`, where a new value takes its
    /// name. `expression` is that of the new value.
    fn rename(&mut self, name: &str, expression: &mut String) {
        let is_read = |id: &Id| self.reads.get(id).is_some_and(|reads| *reads > 0);
        if self.is_read_later(name) {
            return;
        }
        let old = self.locals.iter().find(|(id, local)| local.text == name && is_read(id));
        let Some((&id, local)) = old else { return };
        let is_value = |id: &Id| !matches!(self.port.flat.values[*id].from, From::Variable(_));
        let alias = self.body.items[self.item..].iter().find_map(|item| {
            let mut read = read_by(item, self.bodies());
            read.retain(is_value);
            let [first, second] = python::operands(item.source())?;
            let alias = match read[..] {
                [a, _] if a == id => first,
                [_, b] if b == id => second,
                _ => return None,
            };
            (alias != name).then(|| snake(alias))
        });
        let Some(alias) = alias.filter(|alias| self.unused(alias) == *alias) else { return };
        let mutable =
            if self.written.contains(&id) && local.kind == Kind::Place { "mut " } else { "" };
        self.lines += &format!("let {mutable}{alias} = {name};\n");
        *expression = with_word(expression, name, &alias);
        let local = Expression { text: alias, ..local.clone() };
        self.locals.insert(id, local);
    }

    /// Returns the name for a new value: Python's, or that of its operator or module.
    pub(super) fn name(&mut self, id: Id, expression: &mut String) -> String {
        let value = &self.port.flat.values[id];
        let name = match (self.wanted.get(&id), value.kind) {
            (Some(name), _) => name.clone(),
            (None, flat::Kind::Int) => self.port.int_name(id),
            (None, flat::Kind::Tensor) => self.port.name_anywhere(id).unwrap_or_else(|| {
                let counted = |c: char| c.is_ascii_digit() || c == '_';
                snake(value.name.trim_end_matches(counted))
            }),
        };
        self.rename(&name, expression);
        self.unused(&name)
    }

    fn operator_name(&self) -> String {
        match &self.body.items[self.item].what {
            What::Step(step) => snake(step.operator.split('.').next().unwrap_or("parts")),
            What::Call(_) => "parts".to_owned(),
        }
    }

    /// Returns whether a variable is read in what is written later.
    fn is_read_later(&self, name: &str) -> bool {
        let kept = self.pending.iter().map(|(_, expression)| &expression.text);
        kept.chain([&self.unwritten]).any(|text| with_word(text, name, "") != *text)
    }

    /// Returns a name that no value has which is still read.
    pub(super) fn unused(&self, name: &str) -> String {
        let is_read = |name: &str| {
            self.is_read_later(name)
                || self.locals.iter().any(|(id, local)| {
                    let base = local.text.split('[').next().unwrap_or(&local.text);
                    base == name && self.reads.get(id).is_some_and(|reads| *reads > 0)
                })
        };
        let mut unused = name.to_owned();
        let mut number = 2;
        while is_read(&unused) {
            unused = format!("{name}_{number}");
            number += 1;
        }
        unused
    }

    fn call(&mut self, call: usize) -> Result<Expression> {
        let port = self.port;
        let body = &port.tree.bodies[call];
        let class = &port.classes.classes[port.classes.of_body[call]];
        let inputs = body.inputs.iter().map(|(_, id)| self.read(*id).reference());
        let inputs = inputs.collect::<Vec<_>>().join(", ");
        let kind = if body.outputs.len() == 1 { Kind::New } else { Kind::Several };
        if class.is_function() {
            return Ok(Expression::new(format!("{}({inputs})", snake(&class.name)), kind, true));
        }
        let path = self.relative(&body.module);
        let place = fields::place(self.class, &port.classes, path);
        let place = place.with_context(|| format!("{} has no module {path}", self.class.name))?;
        let text = format!("self.{place}.forward({inputs})");
        Ok(Expression::new(text, kind, class.layer.is_none()))
    }

    pub(super) fn relative<'b>(&self, name: &'b str) -> &'b str {
        if self.body.module.is_empty() {
            return name;
        }
        let within = name.strip_prefix(&*self.body.module);
        within.and_then(|rest| rest.strip_prefix('.')).unwrap_or(name)
    }

    fn arithmetic(&mut self, step: &Step) -> Expression {
        let mut operands = Vec::new();
        for (_, argument) in &step.arguments {
            operands.push(match argument {
                flat::Argument::Value(id) => self.read(*id).value(),
                flat::Argument::Int(int) => int.to_string(),
                _ => String::new(),
            });
        }
        let sign = match step.operator.trim_start_matches("_operator.") {
            "add" => "+",
            "sub" => "-",
            "mul" => "*",
            // Sizes are not negative.
            "floordiv" => "/",
            "mod" => "%",
            "torch.sym_max" => {
                return Expression::new(
                    format!("{}.max({})", operands[0], operands[1]),
                    Kind::Int,
                    false,
                );
            }
            "torch.sym_min" => {
                return Expression::new(
                    format!("{}.min({})", operands[0], operands[1]),
                    Kind::Int,
                    false,
                );
            }
            _ => return Expression::new(format!("-{}", operands[0]), Kind::Int, false),
        };
        Expression::new(operands.join(&format!(" {sign} ")), Kind::Int, false)
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
            let is_int = port.flat.values[*id].kind == flat::Kind::Int;
            values.push(if own || is_int { local.value() } else { local.owned() });
        }
        match &values[..] {
            [one] => self.lines += &format!("Ok({one})"),
            _ => self.lines += &format!("Ok(({}))", values.join(", ")),
        }
    }
}

impl Scope for Writer<'_> {
    fn read(&mut self, id: Id) -> Expression {
        if let Some(reads) = self.reads.get_mut(&id) {
            *reads = reads.saturating_sub(1);
        }
        if let Some(at) = self.pending.iter().position(|(pending, _)| *pending == id) {
            return self.pending.remove(at).1;
        }
        if let Some(local) = self.locals.get(&id) {
            return local.clone();
        }
        match &self.port.flat.values[id].from {
            From::Variable(name) => {
                let path = self.relative(name);
                let place = fields::variable(self.class, &self.port.classes, path);
                let place = place.unwrap_or_else(|| snake(path));
                Expression::new(format!("self.{place}"), Kind::Place, false)
            }
            From::Constant(name) => match self.port.constants.get(name) {
                Some(text) => Expression::new(text.clone(), Kind::New, true),
                None => Expression::new(snake(name), Kind::Place, false),
            },
            From::Computed => {
                let name = snake(&self.port.flat.values[id].name);
                Expression::new(name, Kind::Place, false)
            }
        }
    }

    fn receiver_to_write(&mut self, id: Id) -> String {
        let is_local = self
            .locals
            .get(&id)
            .is_some_and(|local| local.kind == Kind::Place && !local.text.contains(['.', '[']));
        let is_new = self.pending.iter().any(|(pending, _)| *pending == id);
        let read = self.read(id);
        if is_local || is_new { read.value() } else { format!("{}.shallow_clone()", read.value()) }
    }

    fn number(&self, argument: &str, at: usize, literal: String) -> String {
        let place = Place::Forward { item: self.item, argument: argument.to_owned(), at };
        match self.class.argument_at.get(&place) {
            Some(argument) => {
                self.numbers.borrow_mut().insert(*argument);
                format!("self.{}", self.class.arguments[*argument].hint)
            }
            None => literal,
        }
    }

    fn device(&self) -> String {
        match &self.device {
            Some(tensor) => format!("{tensor}.device()"),
            None => "Device::Cpu".to_owned(),
        }
    }

    fn needs_call(&mut self) {
        self.needs_call = true;
    }
}

fn is_arithmetic(step: &Step) -> bool {
    step.operator.starts_with("_operator.") || step.operator.starts_with("torch.sym_")
}

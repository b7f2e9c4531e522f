//! The variables of a `forward`: the names of its arguments and values, and the `let` of each.

use super::defaults::Defaults;
use super::flat::{self, From, Id, Results};
use super::forward::Writer;
use super::identifier::{snake, unique};
use super::names::{self, read_by, with_word};
use super::python;
use super::recurrent;
use super::rust::{Expression, Kind};
use super::tree::What;

impl Writer<'_> {
    /// Names the arguments, and returns them with their types.
    pub(super) fn arguments(&mut self) -> Vec<String> {
        let mut arguments = Vec::new();
        if let Some(list) = &self.body.list {
            let name = snake(&list.name);
            self.device = Some(format!("{name}[0]"));
            self.lists.push((list.ids.clone(), name.clone()));
            return vec![format!("{name}: &[Tensor]")];
        }
        for (name, id) in &self.body.inputs {
            let of_value = self.port.flat.values[*id].kind;
            let is_number = of_value != flat::Kind::Tensor;
            let name = match &self.port.flat.values[*id].from {
                // A part of a list or a tuple has the name of the value, if that has one.
                _ if !name.is_empty() && !name.contains('.') => snake(name),
                From::Variable(name) => snake(name.rsplit('.').next().unwrap_or(name)),
                _ if is_number => self.port.number_name(*id),
                _ => {
                    let own = names::in_body(&self.port.tree, self.body, &self.port.flat, *id);
                    let own = own.filter(|_| name.is_empty()).map(|name| snake(&name));
                    let of_model = || {
                        let is_input = self.port.flat.inputs.contains(id);
                        let name = is_input.then(|| self.port.flat.input_name(*id))?;
                        Some(snake(name)).filter(|name| !name.is_empty())
                    };
                    let known = own.or_else(|| self.port.name_anywhere(*id)).or_else(of_model);
                    let part = || (!name.is_empty()).then(|| snake(name));
                    known.or_else(part).unwrap_or_else(|| self.usual_name())
                }
            };
            let name = self.unused(&name);
            let (kind, of) = match of_value {
                flat::Kind::Tensor => (Kind::Reference, "&Tensor"),
                flat::Kind::Int => (Kind::Int, "i64"),
                flat::Kind::Float => (Kind::Float, "f64"),
            };
            arguments.push(format!("{name}: {of}"));
            if !is_number && self.device.is_none() {
                self.device = Some(name.clone());
            }
            self.locals.insert(*id, Expression::new(name, kind, false));
        }
        arguments
    }

    fn usual_name(&self) -> String {
        if self.body.class.starts_with("torch.nn.") { "input" } else { "x" }.to_owned()
    }

    /// Writes a `let`.
    pub(super) fn bind(&mut self, results: Results, expression: &Expression) {
        let mut value = expression.value();
        let is_read = |writer: &Self, id: Id| writer.reads.get(&id).is_some_and(|reads| *reads > 0);
        match results {
            Results::One(id) if expression.kind == Kind::Nothing => self.bind_changed(id, &value),
            Results::One(id) if !is_read(self, id) => {
                if value.starts_with("self.") && value.contains(".shallow_clone().f_") {
                    self.lines += "// The clone is of the same storage.\n";
                }
                self.lines += &format!("let _ = {value};\n");
            }
            Results::One(id) => {
                let name = self.name(id, &mut value);
                let mutable = if self.written.contains(&id) { "mut " } else { "" };
                self.lines += &format!("let {mutable}{name} = {value};\n");
                self.locals.insert(id, Expression::new(name, self.kind_of_local(id), false));
            }
            Results::Tuple(mut ids) => {
                let mut names = Vec::new();
                let state = self.name_of_state(expression.kind, ids.get(1..).unwrap_or_default());
                let parts = if state.is_some() { ids.split_off(1) } else { Vec::new() };
                for id in ids {
                    if is_read(self, id) {
                        let name = self.name(id, &mut value);
                        let mutable = if self.written.contains(&id) { "mut " } else { "" };
                        names.push(format!("{mutable}{name}"));
                        let kind = self.kind_of_local(id);
                        self.locals.insert(id, Expression::new(name, kind, false));
                    } else {
                        names.push("_".to_owned());
                    }
                }
                if let Some(state) = state {
                    for id in &parts {
                        let part = Expression::new(state.clone(), Kind::Place, false);
                        self.locals.insert(*id, part);
                    }
                    self.lines += &format!("let ({}, {state}) = {value};\n", names.join(", "));
                    self.states.push((parts, state));
                } else if names.iter().all(|name| name == "_") {
                    self.lines += &format!("let _ = {value};\n");
                } else if let Kind::OfLstm | Kind::OfGru = expression.kind {
                    let pattern = recurrent::pattern(expression.kind, &names);
                    self.lines += &format!("let {pattern} = {value};\n");
                } else if expression.kind == Kind::Array {
                    self.lines += &format!("let [{}] = {value};\n", names.join(", "));
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

    /// Writes a method that changes a tensor and returns nothing: the value is that tensor.
    fn bind_changed(&mut self, id: Id, value: &str) {
        let is_read = self.reads.get(&id).is_some_and(|reads| *reads > 0);
        match value.split_once(".f_copy_(") {
            Some((tensor, call)) if is_read => {
                let own = if tensor.ends_with(')') { "" } else { ".shallow_clone()" };
                let name = self.name(id, &mut String::new());
                self.lines += &format!("let mut {name} = {tensor}{own};\n{name}.f_copy_({call};\n");
                self.locals.insert(id, Expression::new(name, Kind::Place, false));
            }
            _ => self.lines += &format!("{value};\n"),
        }
    }

    /// Lets a value have the other name that a later line has for it, as in `residual = x`, where a new value takes its
    /// name. `expression` is that of the new value.
    fn rename(&mut self, name: &str, expression: &mut String) {
        let is_read = |id: &Id| self.reads.get(id).is_some_and(|reads| *reads > 0);
        // Behind a branch, what it named anew is not there.
        if self.is_read_later(name) || self.branch.is_some() {
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
        let line = format!("let {mutable}{alias} = {name};\n");
        let (before, inserted) = self.begins;
        if self.lines.len() == before + self.inserted - inserted {
            // The comment stands below it.
            self.inserted += line.len();
        }
        self.lines += &line;
        *expression = with_word(expression, name, &alias);
        let local = Expression { text: alias, ..local.clone() };
        self.locals.insert(id, local);
    }

    /// Returns the name for a new value: Python's, or that of its operator or module.
    pub(super) fn name(&mut self, id: Id, expression: &mut String) -> String {
        let value = &self.port.flat.values[id];
        let name = match (self.wanted.get(&id), value.kind) {
            (Some(name), _) => name.clone(),
            (None, flat::Kind::Int | flat::Kind::Float) => self.port.number_name(id),
            (None, flat::Kind::Tensor) => self.port.name_anywhere(id).unwrap_or_else(|| {
                if let Some(part) = self.part_name(id) {
                    return part;
                }
                let counted = |c: char| c.is_ascii_digit() || c == '_';
                snake(value.name.trim_end_matches(counted))
            }),
        };
        self.rename(&name, expression);
        self.unused(&name)
    }

    /// Returns PyTorch's name for one of an operator's several results.
    fn part_name(&self, id: Id) -> Option<String> {
        let mut steps = self.port.flat.steps.iter();
        let (step, at) = steps.find_map(|step| match &step.results {
            Results::Tuple(ids) => Some((step, ids.iter().position(|part| *part == id)?)),
            _ => None,
        })?;
        let names = match step.operator.as_str() {
            "lstm.input" | "gru.input" | "rnn_tanh.input" | "rnn_relu.input" => {
                ["output", "h_n", "c_n"].map(str::to_owned).to_vec()
            }
            operator => Defaults::of(operator).ok()?.results(),
        };
        let operator = || step.operator.split('.').next().map(str::to_owned);
        names.get(at).cloned().or_else(operator).map(|name| snake(&name))
    }

    /// Returns what a variable is that has a value.
    fn kind_of_local(&self, id: Id) -> Kind {
        match self.port.flat.values[id].kind {
            flat::Kind::Tensor => Kind::Place,
            flat::Kind::Int => Kind::Int,
            flat::Kind::Float => Kind::Float,
        }
    }

    fn operator_name(&self) -> String {
        match &self.body.items[self.item].what {
            What::Step(step) => snake(step.operator.split('.').next().unwrap_or("parts")),
            What::Call(_) => "parts".to_owned(),
        }
    }

    /// Returns whether a variable is read in what is written later.
    pub(super) fn is_read_later(&self, name: &str) -> bool {
        let kept = self.pending.iter().map(|(_, expression)| &expression.text);
        kept.chain([&self.unwritten]).any(|text| with_word(text, name, "") != *text)
    }

    /// Returns a name that no value has which is still read.
    pub(super) fn unused(&self, name: &str) -> String {
        let is_read = |name: &str| {
            self.body.depends_on_mode && name == "train"
                || self.is_read_later(name)
                || self.locals.iter().any(|(id, local)| {
                    let base = local.text.split('[').next().unwrap_or(&local.text);
                    base == name && self.reads.get(id).is_some_and(|reads| *reads > 0)
                })
        };
        unique(name, is_read)
    }
}

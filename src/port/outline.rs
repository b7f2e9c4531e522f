//! The code of a call with its numbers taken out: calls of the same outline are one class.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use super::class::{Classes, Field, FieldOf, Hole, Number, Place};
use super::flat::{Argument, Flat, From, Id, Int, Results};
use super::layers::Layer;
use super::optional;
use super::tree::{Tree, What};

/// The code of a call with its numbers taken out.
pub(super) struct Shape {
    pub(super) skeleton: String,
    pub(super) holes: Vec<(Place, Hole)>,
    pub(super) fields: Vec<Field>,
    pub(super) layer: Option<Layer>,
}

impl Classes {
    /// Works out the code of a body. A module that is called in the item `without` is left out, as if it returned what
    /// it is given.
    pub(super) fn shape(
        &self,
        tree: &Tree,
        flat: &Flat,
        at: usize,
        shared: &HashSet<String>,
        without: Option<usize>,
    ) -> Shape {
        let body = &tree.bodies[at];
        let left_out = without.and_then(|item| optional::optional(tree, body, item));
        if let Some((layer, holes)) = Layer::of(body, flat, shared) {
            let place = |at| Place::New { field: String::new(), at };
            let holes = holes.into_iter().enumerate();
            let holes = holes.map(|(at, hole)| (place(at), hole)).collect();
            let skeleton = format!("{layer:?}");
            return Shape { skeleton, holes, fields: Vec::new(), layer: Some(layer) };
        }
        let mut outline = Outline {
            flat,
            within: body.prefix(),
            local: HashMap::new(),
            list: None,
            defined: 0,
            text: String::new(),
            holes: Vec::new(),
        };
        // Lists of several lengths are the same code.
        outline.list = body.list.as_ref().map(|list| &list.ids[..]);
        for (_, id) in body.inputs.iter().filter(|_| body.list.is_none()) {
            outline.define(*id);
        }
        for (n, item) in body.items.iter().enumerate() {
            if let (Some((_, given, returned)), true) = (&left_out, without == Some(n)) {
                if let Some(local) = outline.local.get(given).copied() {
                    outline.local.insert(*returned, local);
                }
                continue;
            }
            let _ = write!(outline.text, "\n{} {:?} ", item.grad, item.mode);
            match &item.what {
                What::Step(step) => {
                    outline.text += &step.operator;
                    for (name, argument) in &step.arguments {
                        outline.argument(n, name, argument);
                    }
                    for id in step.results.ids() {
                        outline.define(id);
                    }
                    let _ = write!(outline.text, " -> {}", kind_of(&step.results));
                }
                What::Call(call) => {
                    let called = &tree.bodies[*call];
                    let path = called.module.strip_prefix(&outline.within).unwrap_or("");
                    let _ = write!(outline.text, "{path}: {}", self.of_body[*call]);
                    for (_, id) in &called.inputs {
                        outline.value(*id);
                    }
                    for id in &called.outputs {
                        outline.define(*id);
                    }
                }
            }
        }
        outline.text += "\nreturns";
        for id in &body.outputs {
            outline.value(*id);
        }
        let mut fields = parts(tree, flat, at);
        if let Some((path, ..)) = &left_out {
            fields.retain(|field| field.path != *path);
        }
        for Field { path, what } in &fields {
            match what {
                FieldOf::Module(body) => {
                    let class = &self.classes[self.of_body[*body]];
                    let _ = write!(outline.text, "\n{path}: {}", self.of_body[*body]);
                    for (at, (hole, number)) in
                        class.arguments.iter().zip(&self.numbers[*body]).enumerate()
                    {
                        let place = Place::New { field: path.clone(), at };
                        outline
                            .holes
                            .push((place, Hole { hint: hole.hint.clone(), number: *number }));
                    }
                }
                FieldOf::Variable(variable) => {
                    let variable = &flat.variables[*variable];
                    let meta = &variable.meta;
                    let _ = write!(
                        outline.text,
                        "\n{path}: {} {} {} {} {} {:?}",
                        meta.dtype,
                        meta.sizes.len(),
                        variable.is_parameter,
                        variable.requires_grad,
                        variable.persistent,
                        variable.value
                    );
                    for (at, size) in meta.sizes.iter().enumerate() {
                        let place = Place::New { field: path.clone(), at };
                        let hint = match (meta.sizes.len(), at) {
                            (1, _) => "features",
                            (2, 0) => "rows",
                            (2, _) => "columns",
                            _ => "size",
                        };
                        let hole = Hole::int(hint, size.unwrap_or(0));
                        outline.holes.push((place, hole));
                    }
                }
            }
        }
        Shape { skeleton: outline.text, holes: outline.holes, fields, layer: None }
    }
}

fn kind_of(results: &Results) -> &'static str {
    match results {
        Results::One(_) => "one",
        Results::Tuple(_) => "tuple",
        Results::List(_) => "list",
    }
}

/// The text of a body, in which values have local names and numbers are holes.
struct Outline<'a> {
    flat: &'a Flat,
    within: String,
    local: HashMap<Id, usize>,
    /// The parts of the argument that is a list.
    list: Option<&'a [Id]>,
    defined: usize,
    text: String,
    holes: Vec<(Place, Hole)>,
}

impl Outline<'_> {
    fn define(&mut self, id: Id) {
        if !self.local.contains_key(&id) {
            self.local.insert(id, self.defined);
            self.defined += 1;
        }
    }

    fn value(&mut self, id: Id) {
        let _ = match (self.local.get(&id), &self.flat.values[id].from) {
            (Some(local), _) => write!(self.text, " v{local}"),
            (None, From::Variable(name)) => {
                write!(self.text, " self.{}", name.strip_prefix(&self.within).unwrap_or(name))
            }
            (None, from) => write!(self.text, " {from:?}"),
        };
    }

    fn hole(&mut self, item: usize, argument: &str, at: usize, number: Number) {
        self.text.push_str(" _");
        let place = Place::Forward { item, argument: argument.to_owned(), at };
        self.holes.push((place, Hole { hint: argument.to_owned(), number }));
    }

    fn argument(&mut self, item: usize, name: &str, argument: &Argument) {
        let _ = write!(self.text, " {name}=");
        match argument {
            Argument::Value(id) => self.value(*id),
            Argument::List(_) if self.list.is_some_and(|list| argument.ids() == list) => {
                self.text.push_str(" list");
            }
            Argument::List(list) => {
                for id in list {
                    match id {
                        Some(id) => self.value(*id),
                        None => self.text.push_str(" None"),
                    }
                }
            }
            Argument::ByMode(sides) => {
                self.text.push_str(" by mode");
                self.single(item, name, 0, &sides.0);
                self.single(item, name, 1, &sides.1);
            }
            Argument::Ints(ints) => {
                for (at, int) in ints.iter().enumerate() {
                    match int {
                        Int::Known(int) => self.hole(item, name, at, Number::Int(*int)),
                        Int::Value(id) => self.value(*id),
                    }
                }
            }
            other => self.single(item, name, 0, other),
        }
    }

    fn single(&mut self, item: usize, name: &str, at: usize, argument: &Argument) {
        match argument {
            Argument::Int(int) => self.hole(item, name, at, Number::Int(*int)),
            Argument::Float(float) => self.hole(item, name, at, Number::Float(*float)),
            other => {
                let _ = write!(self.text, "{other:?}");
            }
        }
    }
}

/// Lists the parts of a body's module: the modules that it calls, and the variables that are in none of them.
fn parts(tree: &Tree, flat: &Flat, at: usize) -> Vec<Field> {
    let body = &tree.bodies[at];
    let within = body.prefix();
    let mut fields = Vec::<(usize, Field)>::new();
    for item in &body.items {
        let What::Call(call) = item.what else { continue };
        let module = &tree.bodies[call].module;
        let inside = format!("{module}.");
        let first = flat.variables.iter().position(|v| v.name.starts_with(&inside));
        let path = module.strip_prefix(&within).unwrap_or(module).to_owned();
        if !fields.iter().any(|(_, field)| field.path == path) {
            let field = Field { path, what: FieldOf::Module(call) };
            fields.push((first.unwrap_or(flat.variables.len()), field));
        }
    }
    let is_in = |name: &str, fields: &[(usize, Field)]| {
        fields.iter().any(|(_, field)| {
            name.strip_prefix(&field.path).is_some_and(|rest| rest.starts_with('.'))
        })
    };
    let mut own = Vec::new();
    for (at, variable) in flat.variables.iter().enumerate() {
        let path = variable.name.strip_prefix(&within);
        if let Some(path) = path.filter(|path| !is_in(path, &fields)) {
            own.push((at, Field { path: path.to_owned(), what: FieldOf::Variable(at) }));
        }
    }
    fields.extend(own);
    fields.sort_by_key(|(order, _)| *order);
    fields.into_iter().map(|(_, field)| field).collect()
}

//! Calls that are the same code are one class: what differs between them are numbers, which its `new` takes.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use super::flat::{Argument, Flat, From, Id, Int};
use super::identifier::{snake, type_name};
use super::layers::Layer;
use super::tree::{Body, Tree, What};

/// A number of the source that may differ between the modules of a class.
#[derive(Clone, Debug)]
pub(super) struct Hole {
    /// What it could be called.
    pub(super) hint: String,
    pub(super) number: Number,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
}

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => a == b,
            (Number::Float(a), Number::Float(b)) => a.to_bits() == b.to_bits(),
            _ => false,
        }
    }
}

impl Hole {
    pub(super) fn int(hint: &str, number: i64) -> Hole {
        Hole { hint: hint.to_owned(), number: Number::Int(number) }
    }
}

/// The place of a number in the source of a class.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// In an argument of the operator that is the n-th item of `forward`.
    Forward { item: usize, argument: String, at: usize },
    /// In a field that `new` makes.
    New { field: String, at: usize },
}

/// What is one `struct` in Rust, or a layer of tch's.
pub(super) struct Class {
    /// The name in Rust.
    pub(super) name: String,
    /// The first call that it stands for.
    pub(super) body: usize,
    pub(super) layer: Option<Layer>,
    /// What `new` takes beside the path.
    pub(super) arguments: Vec<Hole>,
    /// Which of the arguments a number is.
    pub(super) argument_at: HashMap<Place, usize>,
    pub(super) fields: Vec<Field>,
}

impl Class {
    /// Returns whether the class is a function: it has no fields, and its `new` would take nothing.
    pub(super) fn is_function(&self) -> bool {
        self.layer.is_none() && self.fields.is_empty() && self.arguments.is_empty()
    }
}

/// A part of a module: another module, or a parameter or a buffer.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Field {
    /// The name in PyTorch, from the module on, such as `layers.0`.
    pub(super) path: String,
    pub(super) what: FieldOf,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum FieldOf {
    /// A module, by its body.
    Module(usize),
    /// A parameter or a buffer, by its place in the program's.
    Variable(usize),
}

/// The classes, and what each body is of them.
pub(super) struct Classes {
    pub(super) classes: Vec<Class>,
    pub(super) of_body: Vec<usize>,
    /// The numbers that each body's class takes.
    pub(super) numbers: Vec<Vec<Number>>,
}

/// The code of a call with its numbers taken out.
struct Shape {
    skeleton: String,
    holes: Vec<(Place, Hole)>,
    fields: Vec<Field>,
    layer: Option<Layer>,
}

impl Classes {
    /// Finds the classes of all bodies, or the modules whose calls are better written where they are called.
    pub(super) fn find(tree: &Tree, flat: &Flat) -> Result<Classes, HashSet<String>> {
        let shared = shared(tree, flat);
        let mut found = Classes {
            classes: Vec::new(),
            of_body: vec![usize::MAX; tree.bodies.len()],
            numbers: vec![Vec::new(); tree.bodies.len()],
        };
        let heights = heights(tree);
        let mut names = HashMap::<String, usize>::new();
        for height in 0..=heights.iter().copied().max().unwrap_or(0) {
            let level = (0..tree.bodies.len()).filter(|at| heights[*at] == height);
            let mut groups = indexmap::IndexMap::<(String, String), Vec<(usize, Shape)>>::new();
            for at in level {
                let shape = found.shape(tree, flat, at, &shared);
                let key = (tree.bodies[at].class.clone(), shape.skeleton.clone());
                groups.entry(key).or_default().push((at, shape));
            }
            for instances in groups.into_values() {
                found.add(tree, instances, &mut names);
            }
        }
        let inline = found.better_inline(tree);
        if inline.is_empty() { Ok(found) } else { Err(inline) }
    }

    /// Adds the class of calls that are the same but for numbers.
    fn add(
        &mut self,
        tree: &Tree,
        instances: Vec<(usize, Shape)>,
        names: &mut HashMap<String, usize>,
    ) {
        let Some((first, shape)) = instances.first() else { return };
        let (first, layer) = (*first, shape.layer.clone());
        let count = shape.holes.len();
        let column = |at: usize| instances.iter().map(move |(_, shape)| shape.holes[at].1.number);
        let mut arguments = Vec::<(Hole, Vec<Number>)>::new();
        let mut argument_at = HashMap::new();
        for at in 0..count {
            let numbers = column(at).collect::<Vec<_>>();
            let (place, hole) = &shape.holes[at];
            let varies = numbers.iter().any(|number| *number != numbers[0]);
            if !varies && layer.is_none() {
                continue;
            }
            let known = arguments.iter().position(|(known, of)| {
                *of == numbers && (layer.is_none() || known.hint == hole.hint)
            });
            let argument = known.unwrap_or(arguments.len());
            if argument == arguments.len() {
                arguments.push((hole.clone(), numbers));
            } else if layer.is_none()
                && is_vague(&arguments[argument].0.hint)
                && !is_vague(&hole.hint)
            {
                arguments[argument].0.hint.clone_from(&hole.hint);
            }
            argument_at.insert(place.clone(), argument);
        }
        let class = self.classes.len();
        for (at, (body, _)) in instances.iter().enumerate() {
            self.of_body[*body] = class;
            self.numbers[*body] = arguments.iter().map(|(_, numbers)| numbers[at]).collect();
        }
        let mut taken = HashSet::new();
        let mut arguments = arguments.into_iter().map(|(hole, _)| hole).collect::<Vec<_>>();
        if layer.is_none() {
            for hole in &mut arguments {
                // `p` is the path.
                let hint = if hole.hint == "p" { "probability" } else { &hole.hint };
                let base = snake(hint);
                let mut name = base.clone();
                let mut number = 2;
                while !taken.insert(name.clone()) {
                    name = format!("{base}_{number}");
                    number += 1;
                }
                hole.hint = name;
            }
        }
        let name = match layer {
            Some(_) => String::new(),
            None => unique_name(tree, first, &self.classes, &shape.fields, names),
        };
        let fields = shape.fields.clone();
        self.classes.push(Class { name, body: first, layer, arguments, argument_at, fields });
    }

    /// Lists the modules that are called in several ways, and the chains of modules of one class.
    fn better_inline(&self, tree: &Tree) -> HashSet<String> {
        let mut inline = HashSet::new();
        let mut seen = HashMap::<&str, usize>::new();
        for (at, body) in tree.bodies.iter().enumerate() {
            let first = *seen.entry(&body.module).or_insert(at);
            let same =
                self.of_body[first] == self.of_body[at] && self.numbers[first] == self.numbers[at];
            if !same {
                inline.insert(body.module.clone());
            }
            if !body.module.is_empty() && self.is_chain_of_one_class(tree, body) {
                inline.insert(body.module.clone());
            }
        }
        inline
    }

    /// Returns whether a module is an `nn.Sequential` of modules of one class, which is a `Vec` and a loop.
    fn is_chain_of_one_class(&self, tree: &Tree, body: &Body) -> bool {
        let [(_, input)] = body.inputs[..] else { return false };
        let mut value = input;
        let mut classes = HashSet::new();
        for item in &body.items {
            let What::Call(call) = item.what else { return false };
            let called = &tree.bodies[call];
            let ([(_, given)], [output]) = (&called.inputs[..], &called.outputs[..]) else {
                return false;
            };
            if *given != value {
                return false;
            }
            value = *output;
            classes.insert(self.of_body[call]);
        }
        body.class.ends_with(".container.Sequential")
            && body.items.len() > 1
            && classes.len() == 1
            && body.outputs == [value]
    }

    fn shape(&self, tree: &Tree, flat: &Flat, at: usize, shared: &HashSet<String>) -> Shape {
        let body = &tree.bodies[at];
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
            text: String::new(),
            holes: Vec::new(),
        };
        for (_, id) in &body.inputs {
            outline.define(*id);
        }
        for (n, item) in body.items.iter().enumerate() {
            let _ = write!(outline.text, "\n{} ", item.grad);
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
        let fields = fields(tree, flat, at);
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
                        "\n{path}: {} {} {} {} {}",
                        meta.dtype,
                        meta.sizes.len(),
                        variable.is_parameter,
                        variable.requires_grad,
                        variable.persistent
                    );
                    for (at, size) in meta.sizes.iter().enumerate() {
                        let place = Place::New { field: path.clone(), at };
                        let of_one = if meta.sizes.len() == 1 { "features" } else { "size" };
                        let hole = Hole::int(of_one, size.unwrap_or(0));
                        outline.holes.push((place, hole));
                    }
                }
            }
        }
        Shape { skeleton: outline.text, holes: outline.holes, fields, layer: None }
    }
}

/// Returns whether a number could be called anything else as well.
fn is_vague(hint: &str) -> bool {
    ["size", "features", "shape", "dim"].contains(&hint)
}

fn kind_of(results: &super::flat::Results) -> &'static str {
    match results {
        super::flat::Results::One(_) => "one",
        super::flat::Results::Tuple(_) => "tuple",
        super::flat::Results::List(_) => "list",
    }
}

/// The text of a body, in which values have local names and numbers are holes.
struct Outline<'a> {
    flat: &'a Flat,
    within: String,
    local: HashMap<Id, usize>,
    text: String,
    holes: Vec<(Place, Hole)>,
}

impl Outline<'_> {
    fn define(&mut self, id: Id) {
        let next = self.local.len();
        self.local.entry(id).or_insert(next);
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
            Argument::List(list) => {
                for id in list {
                    match id {
                        Some(id) => self.value(*id),
                        None => self.text.push_str(" None"),
                    }
                }
            }
            Argument::Int(int) => self.hole(item, name, 0, Number::Int(*int)),
            Argument::Float(float) => self.hole(item, name, 0, Number::Float(*float)),
            Argument::Ints(ints) => {
                for (at, int) in ints.iter().enumerate() {
                    match int {
                        Int::Known(int) => self.hole(item, name, at, Number::Int(*int)),
                        Int::Value(id) => self.value(*id),
                    }
                }
            }
            other => {
                let _ = write!(self.text, "{other:?}");
            }
        }
    }
}

/// Lists the parts of a body's module: the modules that it calls, and the variables that are in none of them.
fn fields(tree: &Tree, flat: &Flat, at: usize) -> Vec<Field> {
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

/// Returns how many calls stand within each other in each body.
fn heights(tree: &Tree) -> Vec<usize> {
    let mut heights = Vec::<usize>::new();
    for body in &tree.bodies {
        let called = body.items.iter().filter_map(|item| match item.what {
            What::Call(call) => Some(heights[call] + 1),
            What::Step(_) => None,
        });
        heights.push(called.max().unwrap_or(0));
    }
    heights
}

/// Lists the variables that bodies of other modules read.
fn shared(tree: &Tree, flat: &Flat) -> HashSet<String> {
    let mut shared = HashSet::new();
    for body in &tree.bodies {
        let steps = body.items.iter().filter_map(|item| match &item.what {
            What::Step(step) => Some(step),
            What::Call(_) => None,
        });
        let within = body.prefix();
        for id in steps.flat_map(|s| s.arguments.iter().flat_map(|(_, a)| a.ids())) {
            if let From::Variable(name) = &flat.values[id].from {
                let own = name.strip_prefix(&within);
                if own.is_none_or(|own| own.contains('.')) {
                    shared.insert(name.clone());
                }
            }
        }
        for (_, id) in &body.inputs {
            if let From::Variable(name) = &flat.values[*id].from {
                shared.insert(name.clone());
            }
        }
    }
    shared
}

/// Returns a name that no other class has: that of the class in Python, and of an `nn.Sequential` that of its field. A
/// second class of a name says which part it has and the first does not.
fn unique_name(
    tree: &Tree,
    body: usize,
    classes: &[Class],
    fields: &[Field],
    names: &mut HashMap<String, usize>,
) -> String {
    let body = &tree.bodies[body];
    let last = body.class.rsplit('.').next().unwrap_or(&body.class);
    let field = body.module.rsplit('.').find(|part| part.parse::<u32>().is_err());
    let base = match (last, field) {
        ("Sequential" | "ModuleList" | "ModuleDict", Some(field)) if !field.is_empty() => field,
        ("Sequential", _) => "Net",
        (last, _) => last,
    };
    let base = type_name(base);
    let first = classes.iter().find(|class| class.name == base);
    if let Some(first) = first {
        let has = |fields: &[Field], path: &str| fields.iter().any(|field| field.path == path);
        let new = fields.iter().find(|field| !has(&first.fields, &field.path));
        if let Some(new) = new.filter(|new| !new.path.contains('.')) {
            let name = format!("{base}With{}", type_name(&new.path));
            if !names.contains_key(&name) {
                names.insert(name.clone(), 1);
                return name;
            }
        }
    }
    let count = names.entry(base.clone()).or_insert(0);
    *count += 1;
    if *count == 1 { base } else { format!("{base}{count}") }
}

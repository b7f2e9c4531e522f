//! Calls that are the same code are one class: what differs between them are numbers, which its `new` takes.

use std::collections::{HashMap, HashSet};

use super::Port;
use super::fields::{self, RustField};
use super::flat::{Flat, From};
use super::identifier::{snake, type_name, unique};
use super::layers::Layer;
use super::optional::{self, Groups};
use super::outline::Shape;
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
    Bool(bool),
    /// That of a part which a module does not have.
    Any,
}

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => a == b,
            (Number::Float(a), Number::Float(b)) => a.to_bits() == b.to_bits(),
            (Number::Bool(a), Number::Bool(b)) => a == b,
            (Number::Any, _) | (_, Number::Any) => true,
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
    /// Whether there is a module, in a field that is an `Option`.
    Has { field: String },
}

/// What is one `struct` in Rust, or a layer of tch's.
pub(super) struct Class {
    /// The name in Rust.
    pub(super) name: String,
    /// The name without what tells it from other classes.
    pub(super) base: String,
    /// The first call that it stands for.
    pub(super) body: usize,
    pub(super) layer: Option<Layer>,
    /// What `new` takes beside the path.
    pub(super) arguments: Vec<Hole>,
    /// Which of the arguments a number is.
    pub(super) argument_at: HashMap<Place, usize>,
    /// The parts of the module.
    pub(super) fields: Vec<Field>,
    /// The fields of the struct.
    pub(super) rust_fields: Vec<RustField>,
}

impl Class {
    /// Returns whether the class is a function: it has no fields, and its `new` would take nothing.
    pub(super) fn is_function(&self) -> bool {
        self.layer.is_none() && self.fields.is_empty() && self.arguments.is_empty()
    }

    /// Returns the name of its `forward`, which is `forward_t` in Rust if it is told the mode.
    pub(super) fn forward(&self, port: &Port) -> &'static str {
        if port.tree.bodies[self.body].depends_on_mode { "forward_t" } else { "forward" }
    }

    /// Returns which of the arguments says whether there is a module, which is an `Option` then.
    pub(super) fn has(&self, field: &str) -> Option<usize> {
        self.argument_at.get(&Place::Has { field: field.to_owned() }).copied()
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
        // The model itself has the name that it has in Python.
        let mut names = HashMap::from([(base_name(tree, tree.bodies.len() - 1), 1)]);
        for height in 0..=heights.iter().copied().max().unwrap_or(0) {
            let level = (0..tree.bodies.len()).filter(|at| heights[*at] == height);
            let mut groups = Groups::new();
            for at in level {
                let shape = found.shape(tree, flat, at, &shared, None);
                let key = (tree.bodies[at].class.clone(), shape.skeleton.clone());
                groups.entry(key).or_default().push((at, shape));
            }
            let without = |at, item| found.shape(tree, flat, at, &shared, Some(item));
            optional::unite(tree, &shared, &mut groups, without);
            for instances in groups.into_values() {
                found.add(tree, instances, &mut names);
            }
        }
        let inline = found.better_inline(tree);
        if !inline.is_empty() {
            return Err(inline);
        }
        for at in 0..found.classes.len() {
            found.classes[at].rust_fields = fields::find(&found.classes[at], &found);
        }
        Ok(found)
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
                let first = numbers[0];
                let known = |number| if let Number::Any = number { first } else { number };
                arguments.push((hole.clone(), numbers.into_iter().map(known).collect()));
            } else if layer.is_none()
                && vagueness(&arguments[argument].0.hint) > vagueness(&hole.hint)
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
                hole.hint = unique(&snake(hint), |name| taken.contains(name));
                taken.insert(hole.hint.clone());
            }
        }
        let base = if layer.is_some() { String::new() } else { base_name(tree, first) };
        let name = match layer {
            _ if first == tree.bodies.len() - 1 => base.clone(),
            Some(_) => String::new(),
            None => unique_name(&base, &self.classes, &shape.fields, names),
        };
        let fields = shape.fields.clone();
        let rust_fields = Vec::new();
        let class =
            Class { name, base, body: first, layer, arguments, argument_at, fields, rust_fields };
        self.classes.push(class);
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
            if *given != value || called.list.is_some() {
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
}

/// Returns how little a name says of a number.
fn vagueness(hint: &str) -> u8 {
    match hint {
        "size" | "shape" | "dim" => 2,
        "features" | "rows" | "columns" => 1,
        _ => 0,
    }
}

/// Returns a height for each body, which is above those of the bodies that it calls. Bodies of one class in Python have
/// the same, so that they can be one class in Rust, unless one of them calls another.
fn heights(tree: &Tree) -> Vec<usize> {
    let mut lowest = HashMap::<&str, usize>::new();
    let mut heights = above_called(tree, &lowest);
    for _ in 0..tree.bodies.len() {
        for (body, height) in tree.bodies.iter().zip(&heights) {
            if !body.class.starts_with("torch.") {
                let known = lowest.entry(&body.class).or_default();
                *known = (*known).max(*height);
            }
        }
        let higher = above_called(tree, &lowest);
        if higher == heights {
            return heights;
        }
        heights = higher;
    }
    above_called(tree, &HashMap::new())
}

/// Returns for each body the height that its class has at least, and one that is above those of the bodies that it calls.
fn above_called(tree: &Tree, lowest: &HashMap<&str, usize>) -> Vec<usize> {
    let mut heights = Vec::<usize>::new();
    for body in &tree.bodies {
        let called = body.items.iter().filter_map(|item| match item.what {
            What::Call(call) => Some(heights[call] + 1),
            What::Step(_) => None,
        });
        let lowest = lowest.get(body.class.as_str()).copied().unwrap_or(0);
        heights.push(called.max().unwrap_or(0).max(lowest));
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

/// Returns the name of a class in Python, and of an `nn.Sequential` that of its field.
fn base_name(tree: &Tree, body: usize) -> String {
    let last = |body: &Body| body.class.rsplit('.').next().unwrap_or(&body.class).to_owned();
    let body = &tree.bodies[body];
    let class = last(body);
    let field = body.module.rsplit('.').find(|part| part.parse::<u32>().is_err());
    match (&*class, field) {
        ("Sequential" | "ModuleList" | "ModuleDict", Some(field)) if !field.is_empty() => {
            let base = type_name(field);
            let is_class = tree.bodies.iter().any(|other| type_name(&last(other)) == base);
            if is_class { format!("{base}Sequential") } else { base }
        }
        ("Sequential", _) => "Net".to_owned(),
        _ => type_name(&class),
    }
}

/// Returns a name that no other class has. A second class of a name says which part it has and the first does not.
fn unique_name(
    base: &str,
    classes: &[Class],
    fields: &[Field],
    names: &mut HashMap<String, usize>,
) -> String {
    let first = classes.iter().find(|class| class.name == base);
    if let Some(first) = first {
        let has = |fields: &[Field], path: &str| fields.iter().any(|field| field.path == path);
        let new = fields.iter().find(|field| !has(&first.fields, &field.path));
        let is_word =
            |field: &&Field| field.path.parse::<u32>().is_err() && !field.path.contains('.');
        if let Some(new) = new.filter(is_word) {
            let name = format!("{base}With{}", type_name(&new.path));
            if !names.contains_key(&name) {
                names.insert(name.clone(), 1);
                return name;
            }
        }
    }
    let count = names.entry(base.to_owned()).or_insert(0);
    *count += 1;
    if *count == 1 { base.to_owned() } else { format!("{base}{count}") }
}

//! Calls that are the same code are one class: what differs between them are numbers, which its `new` takes.

use std::collections::{HashMap, HashSet};

use super::Port;
use super::class_name::{base_name, unique_name};
use super::columns::{Numbers, numbers_of};
use super::fields::{self, RustField};
use super::flat::{Flat, From};
use super::identifier::{snake, unique};
use super::layers::Layer;
use super::number::{Hole, Number, Place};
use super::optional::{self, Groups, Optional};
use super::outline::Shape;
use super::series::Form;
use super::tree::{Body, Tree, What};
use super::units::{Loop, Sequence};

/// The most numbers that a person tells apart by their order.
const MAX_NUMBERS: usize = 6;

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
    /// The name of the struct that has them, if they are too many to be told apart by their order.
    pub(super) config: Option<String>,
    /// Which of the arguments a number is.
    pub(super) argument_at: HashMap<Place, usize>,
    /// What the numbers of the modules of each list are.
    pub(super) lists: HashMap<String, Vec<Form>>,
    /// What some calls leave out.
    pub(super) parts: Vec<Optional>,
    pub(super) loops: Vec<Loop>,
    /// The parts of the module that are no functions.
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

    /// Lists the numbers that `new` takes in a struct, or those that are its arguments.
    pub(super) fn numbers(&self, in_config: bool) -> impl Iterator<Item = &Hole> {
        let is_in =
            move |hole: &&Hole| (self.config.is_some() && hole.number.is_one()) == in_config;
        self.arguments.iter().filter(is_in)
    }

    /// Returns which of the arguments says whether a call has a part.
    pub(super) fn has_part(&self, part: usize) -> Option<usize> {
        self.argument_at.get(&Place::Has { part }).copied()
    }

    /// Returns which of the arguments says whether there is a field, which is an `Option` then.
    pub(super) fn has(&self, field: &str) -> Option<usize> {
        let is_of = |part: &Optional| part.fields.iter().any(|known| known == field);
        self.parts.iter().position(is_of).and_then(|part| self.has_part(part))
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
    /// The modules of a list that a loop calls, by their bodies.
    List { modules: Sequence, bodies: Vec<usize> },
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
    pub(super) fn find(tree: &mut Tree, flat: &Flat) -> Result<Classes, HashSet<String>> {
        let shared = shared(tree, flat);
        let mut found = Classes {
            classes: Vec::new(),
            of_body: vec![usize::MAX; tree.bodies.len()],
            numbers: vec![Vec::new(); tree.bodies.len()],
        };
        let heights = heights(tree);
        // The model itself has the name that it has in Python.
        let mut names = HashMap::from([(base_name(tree, tree.root), 1)]);
        for height in 0..=heights.iter().copied().max().unwrap_or(0) {
            let level = (0..heights.len()).filter(|at| heights[*at] == height);
            let mut groups = Groups::new();
            for at in level {
                let shape = found.shape(tree, flat, at, &shared);
                let key = (tree.bodies[at].class.clone(), shape.skeleton());
                groups.entry(key).or_default().push((at, shape));
            }
            let kind = |tree: &Tree, at: usize| {
                format!("{} {}", tree.bodies[at].class, base_name(tree, at))
            };
            let groups = optional::unite(&mut found, (tree, flat), &shared, groups, kind);
            for instances in groups {
                found.add(tree, instances, &mut names);
            }
        }
        found.complete(tree);
        let inline = found.better_inline(tree);
        if !inline.is_empty() {
            return Err(inline);
        }
        found.name_configs();
        for at in 0..found.classes.len() {
            found.classes[at].rust_fields = fields::find(&found.classes[at], &found);
        }
        Ok(found)
    }

    /// Adds bodies that stand for other calls, and one that is of no class yet.
    pub(super) fn add_calls(&mut self, calls: &[usize]) {
        for call in calls {
            self.of_body.push(self.of_body[*call]);
            self.numbers.push(self.numbers[*call].clone());
        }
        self.of_body.push(usize::MAX);
        self.numbers.push(Vec::new());
    }

    /// Drops the bodies from a place on.
    pub(super) fn drop_calls(&mut self, from: usize) {
        self.of_body.truncate(from);
        self.numbers.truncate(from);
    }

    /// Lets bodies that were added, and then larger ones in their place, be what their modules are.
    fn complete(&mut self, tree: &Tree) {
        for at in tree.root + 1..tree.bodies.len() {
            let is_same = |body: &Body| body.module == tree.bodies[at].module;
            let first = tree.bodies.iter().position(is_same);
            if let Some(first) = first.filter(|_| self.of_body[at] == usize::MAX) {
                self.of_body[at] = self.of_body[first];
                self.numbers[at] = self.numbers[first].clone();
            }
        }
    }

    /// Names the structs of the numbers that are too many for arguments.
    fn name_configs(&mut self) {
        let mut taken = self.classes.iter().map(|class| class.name.clone()).collect::<HashSet<_>>();
        for class in self.classes.iter_mut().filter(|class| class.layer.is_none()) {
            let numbers = class.arguments.iter().filter(|hole| hole.number.is_one());
            if numbers.count() > MAX_NUMBERS {
                let mut name = format!("{}Config", class.name);
                while !taken.insert(name.clone()) {
                    name += "Numbers";
                }
                class.config = Some(name);
            }
        }
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
        let Numbers { arguments, argument_at, lists } = numbers_of(&instances);
        let class = self.classes.len();
        for (at, (body, _)) in instances.iter().enumerate() {
            self.of_body[*body] = class;
            self.numbers[*body] =
                arguments.iter().map(|(_, numbers)| numbers[at].clone()).collect();
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
            _ if first == tree.root => base.clone(),
            Some(_) => String::new(),
            None => unique_name(&base, &self.classes, &shape.fields, names),
        };
        let loops = shape.units.iter().filter_map(|unit| unit.of_loop.clone()).collect();
        // What is called first is known first.
        let is_function = |field: &&Field| {
            let class = field.body().map(|body| &self.classes[self.of_body[body]]);
            class.is_some_and(Class::is_function)
        };
        let fields = shape.fields.iter().filter(|field| !is_function(field)).cloned().collect();
        self.classes.push(Class {
            name,
            base,
            body: first,
            layer,
            arguments,
            config: None,
            argument_at,
            lists,
            parts: shape.parts.clone(),
            loops,
            fields,
            rust_fields: Vec::new(),
        });
    }

    /// Lists the modules that are called in several ways, and the chains of modules of one class.
    fn better_inline(&self, tree: &Tree) -> HashSet<String> {
        let mut inline = HashSet::new();
        let mut seen = HashMap::<&str, usize>::new();
        for (at, body) in tree.bodies[..=tree.root].iter().enumerate() {
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
        let mut is_numbered = true;
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
            is_numbered &= called.module.ends_with(|c: char| c.is_ascii_digit());
        }
        let is_block = |class: &usize| {
            let class = &self.classes[*class];
            is_numbered && class.layer.is_none() && !class.is_function()
        };
        body.class.ends_with(".container.Sequential")
            && (body.items.len() > 1 || classes.iter().all(is_block))
            && classes.len() == 1
            && body.outputs == [value]
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

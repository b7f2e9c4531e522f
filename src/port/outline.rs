//! The code of a call with its numbers taken out: calls of the same outline are one class.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::ops::Range;

use super::class::{Classes, Field, FieldOf};
use super::flat::{Argument, DROPOUT, Flat, From, Id, Int, Results};
use super::layers::Layer;
use super::number::{Hole, Number, Place};
use super::optional::Optional;
use super::series::count_hint;
use super::tree::{Body, Tree, What};
use super::units::{self, Loop, LoopKind};

/// The code of a call with its numbers taken out.
pub(super) struct Shape {
    pub(super) units: Vec<Unit>,
    pub(super) inputs: Vec<Id>,
    pub(super) outputs: Vec<Id>,
    pub(super) holes: Vec<(Place, Hole)>,
    pub(super) fields: Vec<Field>,
    /// What each of the fields is.
    pub(super) declared: Vec<String>,
    pub(super) layer: Option<Layer>,
    /// What some calls of the class leave out.
    pub(super) parts: Vec<Optional>,
}

/// An item of a body, or a loop.
pub(super) struct Unit {
    pub(super) items: Range<usize>,
    /// The loop that it is.
    pub(super) of_loop: Option<Loop>,
    /// Its code without its values.
    pub(super) text: String,
    pub(super) reads: Vec<Id>,
    pub(super) results: Vec<Id>,
    /// The paths of the modules and the variables that it uses.
    pub(super) uses: Vec<String>,
    /// Whether it calls modules.
    pub(super) is_call: bool,
    /// Whether it is computed in one mode alone, or is a choice between the modes.
    pub(super) is_of_mode: bool,
}

impl Unit {
    /// Returns whether it is a dropout, which is as if it were not there with a probability of 0.
    pub(super) fn is_dropout(&self) -> bool {
        DROPOUT.contains(&self.operator().as_str()) && self.reads.len() == 1
    }

    /// Returns a name for what it does, such as that of its operator.
    pub(super) fn operator(&self) -> String {
        let operator = self.text.split(' ').nth(2).unwrap_or_default();
        operator.split('.').next().unwrap_or_default().trim_end_matches(['_', ':']).to_owned()
    }
}

impl Shape {
    /// Returns the whole code.
    pub(super) fn skeleton(&self) -> String {
        if let Some(layer) = &self.layer {
            return format!("{layer:?}");
        }
        let mut local = HashMap::new();
        let define = |ids: &[Id], unit: usize, local: &mut HashMap<Id, String>| {
            for (at, id) in ids.iter().enumerate() {
                local.entry(*id).or_insert_with(|| format!(" {unit}.{at}"));
            }
        };
        define(&self.inputs, 0, &mut local);
        let read = |ids: &[Id], local: &HashMap<Id, String>| {
            ids.iter().map(|id| local.get(id).cloned().unwrap_or_default()).collect::<String>()
        };
        let mut text = String::new();
        for (at, unit) in self.units.iter().enumerate() {
            text += &format!("\n{} of{}", unit.text, read(&unit.reads, &local));
            define(&unit.results, at + 1, &mut local);
        }
        text += &format!("\nreturns{}", read(&self.outputs, &local));
        self.declared.iter().fold(text, |text, declared| text + "\n" + declared)
    }
}

impl Classes {
    /// Works out the code of a body. `shared` has the variables that other calls read as well.
    pub(super) fn shape(
        &self,
        tree: &Tree,
        flat: &Flat,
        at: usize,
        shared: &HashSet<String>,
    ) -> Shape {
        let body = &tree.bodies[at];
        let mut shape = Shape {
            units: Vec::new(),
            inputs: Vec::new(),
            outputs: body.outputs.clone(),
            holes: Vec::new(),
            fields: Vec::new(),
            declared: Vec::new(),
            layer: None,
            parts: Vec::new(),
        };
        if let Some((layer, holes)) = Layer::of(body, flat, shared) {
            let place = |at| Place::New { field: String::new(), at, part: 0 };
            let holes = holes.into_iter().enumerate();
            shape.holes = holes.map(|(at, hole)| (place(at), hole)).collect();
            shape.layer = Some(layer);
            return shape;
        }
        let loops = units::loops(tree, body, |call| {
            let class = self.of_body[call];
            let of_class = &self.classes[class];
            let run = of_class.layer.as_ref().and_then(|layer| layer.run(&tree.bodies[call]));
            // A state is another variable for each call.
            let is_given = run.as_ref().is_some_and(|(_, run)| !run.state.is_empty());
            let part = run.and_then(|(_, run)| run.part(&tree.bodies[call]));
            (!of_class.is_function() && !is_given).then_some((class, part))
        });
        // Lists of several lengths are the same code.
        let lists = body.list.iter().map(|list| list.ids.clone()).collect();
        let inputs = body.inputs.iter().filter(|_| body.list.is_none());
        shape.inputs = inputs.map(|(_, id)| *id).collect();
        let mut outline = Outline {
            flat,
            body,
            known: shape.inputs.iter().copied().collect(),
            lists,
            holes: Vec::new(),
        };
        let mut next = 0;
        while next < body.items.len() {
            let of_loop = loops.iter().find(|one| one.items.start == next).cloned();
            let end = of_loop.as_ref().map_or(next + 1, |one| one.items.end);
            let unit = outline.unit(self, tree, body, next..end, of_loop);
            next = end;
            shape.units.push(unit);
        }
        shape.holes = outline.holes;
        shape.fields = parts(tree, flat, at, &loops);
        for field in &shape.fields {
            let (declared, holes) = self.declared(flat, field);
            shape.declared.push(declared);
            shape.holes.extend(holes);
        }
        shape
    }

    /// Returns what a field is, and the numbers that make it.
    fn declared(&self, flat: &Flat, field: &Field) -> (String, Vec<(Place, Hole)>) {
        let path = &field.path;
        let place = |at| Place::New { field: path.clone(), at, part: 0 };
        match &field.what {
            FieldOf::Module(body) => {
                let class = self.of_body[*body];
                let arguments = self.classes[class].arguments.iter().zip(&self.numbers[*body]);
                let holes = arguments.enumerate().map(|(at, (hole, number))| {
                    (place(at), Hole { hint: hole.hint.clone(), number: number.clone() })
                });
                (format!("{path}: {class}"), holes.collect())
            }
            FieldOf::List { modules, bodies } => {
                let class = self.of_body[bodies[0]];
                let count = Hole::int(&count_hint(&modules.stem), bodies.len() as i64);
                let mut holes = vec![(Place::Count { field: path.clone() }, count)];
                for (at, hole) in self.classes[class].arguments.iter().enumerate() {
                    let numbers = bodies.iter().map(|body| self.numbers[*body][at].clone());
                    let number = Number::Series(numbers.collect());
                    holes.push((place(at), Hole { hint: hole.hint.clone(), number }));
                }
                (format!("{path}: list of {class}"), holes)
            }
            FieldOf::Variable(variable) => {
                let variable = &flat.variables[*variable];
                let meta = &variable.meta;
                let declared = format!(
                    "{path}: {} {} {} {} {} {:?}",
                    meta.dtype,
                    meta.sizes.len(),
                    variable.is_parameter,
                    variable.requires_grad,
                    variable.persistent,
                    variable.value
                );
                let holes = meta.sizes.iter().enumerate().map(|(at, size)| {
                    let hint = match (meta.sizes.len(), at) {
                        (1, _) => "features",
                        (2, 0) => "rows",
                        (2, _) => "columns",
                        _ => "size",
                    };
                    (place(at), Hole::int(hint, size.unwrap_or(0)))
                });
                (declared, holes.collect())
            }
        }
    }
}

fn kind_of(results: &Results) -> &'static str {
    match results {
        Results::One(_) => "one",
        Results::Tuple(_) => "tuple",
        Results::List(_) => "list",
    }
}

/// What the units of a body are written with.
struct Outline<'a> {
    flat: &'a Flat,
    body: &'a Body,
    /// The values that the body is given or computes.
    known: HashSet<Id>,
    /// The lists of values that are variables as a whole.
    lists: Vec<Vec<Id>>,
    holes: Vec<(Place, Hole)>,
}

impl Outline<'_> {
    fn unit(
        &mut self,
        classes: &Classes,
        tree: &Tree,
        body: &Body,
        items: Range<usize>,
        of_loop: Option<Loop>,
    ) -> Unit {
        let item = &body.items[items.start];
        let text = format!("{} {:?} ", item.grad, item.mode);
        let results = units::results(tree, body, &items);
        let (reads, uses) = (Vec::new(), Vec::new());
        let is_choice = matches!(&item.what, What::Step(step) if step.is_choice());
        let is_of_mode = item.mode.is_some() || is_choice;
        let is_call = matches!(item.what, What::Call(_));
        let mut unit =
            Unit { items: items.clone(), of_loop, text, reads, results, uses, is_call, is_of_mode };
        match &item.what {
            What::Step(step) => {
                unit.text += &step.operator;
                for (name, argument) in &step.arguments {
                    self.argument(&mut unit, name, argument);
                }
                unit.text += " -> ";
                unit.text += kind_of(&step.results);
            }
            What::Call(call) => {
                let called = &tree.bodies[*call];
                let path = body.relative(&called.module).unwrap_or("");
                unit.uses.push(path.to_owned());
                let _ = write!(unit.text, "{path}: {}", classes.of_body[*call]);
                let kind = unit.of_loop.as_ref().map(|one| one.kind);
                let _ = write!(unit.text, " {kind:?}");
                self.given(&mut unit, called);
            }
        }
        match unit.of_loop.as_ref().map(|one| one.kind) {
            Some(LoopKind::Chain(_)) => unit.results = unit.results.split_off(items.len() - 1),
            Some(LoopKind::Growing) => {
                if let What::Call(last) = body.items[items.end - 1].what {
                    let list = tree.bodies[last].list.iter().flat_map(|list| list.ids.clone());
                    self.lists.push(list.chain(tree.bodies[last].outputs.clone()).collect());
                }
            }
            None => {}
        }
        self.known.extend(&unit.results);
        unit
    }

    /// Writes what a call is given.
    fn given(&self, unit: &mut Unit, called: &Body) {
        match &called.list {
            Some(list) => self.list(unit, &list.ids.iter().copied().map(Some).collect::<Vec<_>>()),
            None => called.inputs.iter().for_each(|(_, id)| self.value(unit, *id)),
        }
    }

    fn value(&self, unit: &mut Unit, id: Id) {
        let _ = match &self.flat.values[id].from {
            _ if self.known.contains(&id) => {
                unit.reads.push(id);
                write!(unit.text, " v")
            }
            From::Variable(name) => {
                let path = self.body.relative(name).unwrap_or(name);
                unit.uses.push(path.to_owned());
                write!(unit.text, " self.{path}")
            }
            from => write!(unit.text, " {from:?}"),
        };
    }

    fn list(&self, unit: &mut Unit, list: &[Option<Id>]) {
        let ids = list.iter().flatten().copied().collect::<Vec<_>>();
        if let Some(at) = self.lists.iter().position(|known| *known == ids) {
            let _ = write!(unit.text, " list {at}");
            return;
        }
        for id in list {
            match id {
                Some(id) => self.value(unit, *id),
                None => unit.text.push_str(" None"),
            }
        }
    }

    fn hole(&mut self, unit: &mut Unit, argument: &str, at: usize, number: Number) {
        unit.text.push_str(" _");
        let (item, argument) = (unit.items.start, argument.to_owned());
        let hint = argument.clone();
        self.holes.push((Place::Forward { item, argument, at }, Hole { hint, number }));
    }

    fn argument(&mut self, unit: &mut Unit, name: &str, argument: &Argument) {
        let _ = write!(unit.text, " {name}=");
        match argument {
            Argument::Value(id) => self.value(unit, *id),
            Argument::List(list) => self.list(unit, list),
            Argument::ByMode(sides) => {
                unit.text.push_str(" by mode");
                self.single(unit, name, 0, &sides.0);
                self.single(unit, name, 1, &sides.1);
            }
            Argument::Ints(ints) => {
                for (at, int) in ints.iter().enumerate() {
                    match int {
                        Int::Known(int) => self.hole(unit, name, at, Number::Int(*int)),
                        Int::Value(id) => self.value(unit, *id),
                    }
                }
            }
            other => self.single(unit, name, 0, other),
        }
    }

    fn single(&mut self, unit: &mut Unit, name: &str, at: usize, argument: &Argument) {
        match argument {
            Argument::Int(int) => self.hole(unit, name, at, Number::Int(*int)),
            Argument::Float(float) => self.hole(unit, name, at, Number::Float(*float)),
            other => {
                let _ = write!(unit.text, "{other:?}");
            }
        }
    }
}

/// Lists the parts of a body's module: the modules that it calls, those of a loop as one, and the variables that are in
/// none of them.
fn parts(tree: &Tree, flat: &Flat, at: usize, loops: &[Loop]) -> Vec<Field> {
    let body = &tree.bodies[at];
    let mut fields = Vec::<(usize, Field)>::new();
    let call = |at: usize| match body.items[at].what {
        What::Call(call) => Some(call),
        What::Step(_) => None,
    };
    let mut seen = HashSet::new();
    let calls = (0..body.items.len()).filter_map(|at| Some((at, call(at)?)));
    // What a loop calls is a list, wherever else it is called.
    let (in_loops, others) =
        calls.partition::<Vec<_>, _>(|(at, _)| loops.iter().any(|one| one.items.contains(at)));
    for (at, call_of_item) in in_loops.into_iter().chain(others) {
        let module = &tree.bodies[call_of_item].module;
        let path = body.relative(module).unwrap_or(module).to_owned();
        if seen.contains(&path) {
            continue;
        }
        let inside = format!("{module}.");
        let first = flat.variables.iter().position(|v| v.name.starts_with(&inside));
        let of_loop = loops.iter().find(|one| one.items.start == at);
        let what = match of_loop {
            Some(one) => {
                let bodies = one.items.clone().filter_map(call).collect::<Vec<_>>();
                seen.extend((0..bodies.len()).map(|at| one.modules.path(at)));
                FieldOf::List { modules: one.modules.clone(), bodies }
            }
            None => FieldOf::Module(call_of_item),
        };
        seen.insert(path.clone());
        fields.push((first.unwrap_or(flat.variables.len()), Field { path, what }));
    }
    let is_in = |name: &str| {
        let mut parents = name.match_indices('.').map(|(at, _)| &name[..at]);
        parents.any(|parent| seen.contains(parent))
    };
    let mut own = Vec::new();
    for (at, variable) in flat.variables.iter().enumerate() {
        let path = body.relative(&variable.name);
        let is_known =
            |path: &str| own.iter().any(|(_, field): &(usize, Field)| field.path == path);
        if let Some(path) = path.filter(|path| !is_in(path) && !is_known(path)) {
            own.push((at, Field { path: path.to_owned(), what: FieldOf::Variable(at) }));
        }
    }
    fields.extend(own);
    fields.sort_by_key(|(order, _)| *order);
    fields.into_iter().map(|(_, field)| field).collect()
}

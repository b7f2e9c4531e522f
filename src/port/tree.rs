//! The calls of modules in a program: a tree of bodies, of which each is what one call of a module computes.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use super::flat::{Argument, Flat, From, Id, Kind, ModuleOf, Signature, Step};
use super::names::read_by;
use super::python::Frame;
use super::sizes::Sizes;

/// What one call of a module computes.
pub(super) struct Body {
    /// The module's name in `named_modules()`; the root's is empty.
    pub(super) module: String,
    /// The name of its class, with that of the Python module.
    pub(super) class: String,
    /// The values that it takes, with their names in Python, which can be empty.
    pub(super) inputs: Vec<(String, Id)>,
    /// The inputs that are one argument in Python, a list, which is only read as a whole.
    pub(super) list: Option<List>,
    pub(super) items: Vec<Item>,
    pub(super) outputs: Vec<Id>,
    /// All that Python returns of it, by the places in tuples.
    pub(super) returned: Vec<(String, Id)>,
    /// Whether it computes something else in each mode.
    pub(super) depends_on_mode: bool,
    /// Other modules of its class, parts of which it has as well: no call of the program does all that it does.
    pub(super) also: Vec<String>,
}

/// An argument that is a list of tensors.
pub(super) struct List {
    pub(super) name: String,
    pub(super) ids: Vec<Id>,
}

impl Body {
    /// Returns what the names of its module's parameters and modules begin with.
    pub(super) fn prefix(&self) -> String {
        if self.module.is_empty() { String::new() } else { format!("{}.", self.module) }
    }

    /// Returns a name from its module on, or from another one of which it has parts.
    pub(super) fn relative<'n>(&self, name: &'n str) -> Option<&'n str> {
        if self.module.is_empty() {
            return Some(name);
        }
        let within = |module: &String| name.strip_prefix(module.as_str())?.strip_prefix('.');
        [&self.module].into_iter().chain(&self.also).find_map(within)
    }
}

/// An operator or a call, and the lines of Python that it comes from.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) what: What,
    /// The line of `forward`, and those of the functions that it calls, one in the other.
    pub(super) frames: Vec<Frame>,
    pub(super) grad: bool,
    /// The mode that alone has it, within a call that both have.
    pub(super) mode: Option<bool>,
}

impl Item {
    /// Returns the innermost line.
    pub(super) fn source(&self) -> &str {
        self.frames.last().map_or("", |frame| &frame.source)
    }
}

#[derive(Clone)]
pub(super) enum What {
    Step(Step),
    /// A call of a module, by its place in [`Tree::bodies`].
    Call(usize),
}

/// All bodies; a body stands after those that it calls, and the root after all that the program calls.
pub(super) struct Tree {
    pub(super) bodies: Vec<Body>,
    pub(super) root: usize,
}

impl Tree {
    /// Lets every call of a class be told the mode if one of them depends on it, and what calls it. `class_of` has the
    /// class of each body.
    pub(super) fn pass_mode_on(&mut self, class_of: &[usize]) {
        loop {
            let depends = self.bodies.iter().zip(class_of).filter(|(body, _)| body.depends_on_mode);
            let depends = depends.map(|(_, class)| *class).collect::<HashSet<_>>();
            let is_told = |at: usize| {
                let calls = self.bodies[at].items.iter().filter_map(|item| match item.what {
                    What::Call(call) => Some(call),
                    What::Step(_) => None,
                });
                calls.chain([at]).any(|call| depends.contains(&class_of[call]))
            };
            let told = (0..self.bodies.len()).filter(|at| is_told(*at)).collect::<Vec<_>>();
            let before = self.bodies.iter().filter(|body| body.depends_on_mode).count();
            for at in &told {
                self.bodies[*at].depends_on_mode = true;
            }
            if told.len() == before {
                return;
            }
        }
    }
}

/// The largest number of operators of a module without parameters that is written where it is called.
const MAX_INLINED: usize = 2;

impl Tree {
    /// Builds the tree. The calls of the modules in `inlined` are written where they are called.
    pub(super) fn build(flat: &Flat, inlined: &HashSet<String>) -> Tree {
        let sizes = Sizes::new(flat);
        let mut builder =
            Builder { flat, inlined, last_uses: last_uses(flat), sizes, bodies: Vec::new() };
        let root = ModuleOf { key: String::new(), name: String::new(), class: root_class(flat) };
        let mut items = builder.items(0..flat.steps.len(), 0, "", false);
        let outputs = flat.outputs.clone();
        builder.sizes.within(&flat.inputs, &outputs, &mut items, &builder.bodies);
        let inputs = flat.inputs.iter().map(|id| (flat.input_name(*id).to_owned(), *id));
        let inputs = read(inputs.collect(), &outputs, &items, &builder.bodies);
        let (module, class, list) = (root.name, root.class, None);
        let depends_on_mode = builder.depends_on_mode(&items);
        let (returned, also) = (Vec::new(), Vec::new());
        let root =
            Body { module, class, inputs, list, items, outputs, returned, depends_on_mode, also };
        builder.bodies.push(root);
        Tree { root: builder.bodies.len() - 1, bodies: builder.bodies }
    }
}

fn root_class(flat: &Flat) -> String {
    let first = flat.steps.iter().find_map(|step| step.modules.first());
    first.map_or("Model".to_owned(), |module| module.class.clone())
}

/// Returns the inputs of a body that it reads or returns.
fn read(
    mut inputs: Vec<(String, Id)>,
    outputs: &[Id],
    items: &[Item],
    bodies: &[Body],
) -> Vec<(String, Id)> {
    let read = items.iter().flat_map(|item| read_by(item, bodies)).chain(outputs.iter().copied());
    let read = read.collect::<HashSet<_>>();
    inputs.retain(|(_, id)| read.contains(id));
    inputs
}

/// Returns where each value is read last; an output of the program is read after all.
fn last_uses(flat: &Flat) -> HashMap<Id, usize> {
    let mut last = HashMap::new();
    for (at, step) in flat.steps.iter().enumerate() {
        let ids = step.arguments.iter().flat_map(|(_, argument)| argument.ids());
        last.extend(ids.map(|id| (id, at)));
    }
    last.extend(flat.outputs.iter().map(|id| (*id, usize::MAX)));
    last
}

/// Finds out whether the inputs, all of them, are the parts of one list, which the items read as a whole.
fn list_of(inputs: &[(String, Id)], items: &[Item], bodies: &[Body]) -> Option<List> {
    let (name, _) = inputs.first()?.0.rsplit_once('.')?;
    let is_part = |(at, (part, _)): (usize, &(String, Id))| *part == format!("{name}.{at}");
    if !inputs.iter().enumerate().all(is_part) {
        return None;
    }
    let ids = inputs.iter().map(|(_, id)| *id).collect::<Vec<_>>();
    let as_whole = |(_, argument): &(String, Argument)| match argument {
        Argument::List(_) if argument.ids() == ids => true,
        other => other.ids().iter().all(|id| !ids.contains(id)),
    };
    let reads_whole = |item: &Item| match &item.what {
        What::Step(step) => step.arguments.iter().all(as_whole),
        What::Call(call) => bodies[*call].inputs.iter().all(|(_, id)| !ids.contains(id)),
    };
    items.iter().all(reads_whole).then(|| List { name: name.to_owned(), ids })
}

struct Builder<'a> {
    flat: &'a Flat,
    inlined: &'a HashSet<String>,
    last_uses: HashMap<Id, usize>,
    sizes: Sizes<'a>,
    bodies: Vec<Body>,
}

impl Builder<'_> {
    /// Builds the items of the steps in a range, all of which are within a call at `depth`. `of_mode` says that one mode
    /// alone makes this call.
    fn items(
        &mut self,
        range: Range<usize>,
        depth: usize,
        module: &str,
        of_mode: bool,
    ) -> Vec<Item> {
        let level = self.level(range.clone(), depth);
        let mut items = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let step = &self.flat.steps[at];
            let frames = step.frames.get(level).or(step.frames.last()).cloned().unwrap_or_default();
            let grad = step.grad;
            let mode = step.mode.filter(|_| !of_mode);
            let Some(child) = step.modules.get(depth + 1) else {
                let what = What::Step(Step { mode, ..step.clone() });
                items.push(Item { what, frames, grad, mode });
                at += 1;
                continue;
            };
            let same =
                |step: &&Step| step.modules.get(depth + 1).is_some_and(|m| m.key == child.key);
            let count = self.flat.steps[at..range.end].iter().take_while(same).count();
            let end = at + count;
            let child = child.clone();
            let again = self.flat.steps[end..range.end].iter().any(|step| same(&step));
            let before = self.flat.steps[range.start..at].iter().any(|step| same(&step));
            let grad_changes = self.flat.steps[at..end].iter().any(|step| step.grad != grad);
            let within = module.is_empty() || child.name.starts_with(&format!("{module}."));
            let inline = again
                || before
                || grad_changes
                || !within
                || self.inlined.contains(&child.name)
                || self.is_small(&child, at..end, depth + 1);
            if inline {
                let inner = self.items(at..end, depth + 1, module, of_mode);
                items.extend(inner.into_iter().map(|item| Item { frames: frames.clone(), ..item }));
            } else {
                // Only what both make has steps of both.
                let mode = mode.filter(|mode| {
                    self.flat.steps[at..end].iter().all(|step| step.mode == Some(*mode))
                });
                let body = self.body(&child, at..end, depth + 1, of_mode || mode.is_some());
                items.push(Item { what: What::Call(body), frames, grad, mode });
            }
            at = end;
        }
        items
    }

    /// Returns which of the frames of the steps is that of the `forward` at a depth.
    fn level(&self, range: Range<usize>, depth: usize) -> usize {
        let steps = &self.flat.steps[range];
        let is_direct = |step: &&Step| step.modules.len() == depth + 1 && !step.frames.is_empty();
        let direct = steps.iter().find(is_direct);
        match direct {
            Some(step) => step.frames.len().saturating_sub(1),
            None => depth,
        }
    }

    /// Returns whether a person would write the operators of a call in its place: those of `nn.ReLU`, or of a linear
    /// layer with the weight of another module.
    fn is_small(&self, module: &ModuleOf, range: Range<usize>, depth: usize) -> bool {
        let steps = &self.flat.steps[range.clone()];
        let within = format!("{}.", module.name);
        let owns = self.flat.variables.iter().any(|variable| variable.name.starts_with(&within));
        let calls = steps.iter().any(|step| step.modules.len() > depth + 1);
        if steps.len() == 1 {
            let foreign = self.free(range).iter().any(|id| self.is_foreign(*id, &within));
            return foreign || !owns;
        }
        !owns && !calls && steps.len() <= MAX_INLINED
    }

    fn is_foreign(&self, id: Id, within: &str) -> bool {
        matches!(&self.flat.values[id].from, From::Variable(name) if !name.starts_with(within))
    }

    /// Lists the values that steps read and do not compute, in the order in which they read them.
    fn free(&self, range: Range<usize>) -> Vec<Id> {
        let steps = &self.flat.steps[range];
        let computed = steps.iter().flat_map(|step| step.results.ids()).collect::<HashSet<_>>();
        let mut free = Vec::new();
        for id in steps.iter().flat_map(|s| s.arguments.iter().flat_map(|(_, a)| a.ids())) {
            if !computed.contains(&id) && !free.contains(&id) {
                free.push(id);
            }
        }
        free
    }

    fn body(
        &mut self,
        module: &ModuleOf,
        range: Range<usize>,
        depth: usize,
        of_mode: bool,
    ) -> usize {
        let mut items = self.items(range.clone(), depth, &module.name, of_mode);
        let within = format!("{}.", module.name);
        let outputs = self.outputs(module, range.clone());
        let mut free = self.free(range);
        let is_tensor = |id: &&Id| self.flat.values[**id].kind == Kind::Tensor;
        let tensors = free.iter().filter(is_tensor).copied().collect::<Vec<_>>();
        let numbers = self.sizes.within(&tensors, &outputs, &mut items, &self.bodies);
        free.retain(|id| match &self.flat.values[*id].from {
            From::Variable(name) => !name.starts_with(&within),
            From::Constant(_) => false,
            From::Computed => true,
        });
        free.retain(|id| tensors.contains(id));
        free.extend(numbers);
        let signature = self.signature(module);
        let mut inputs = Vec::<(String, Id)>::new();
        for (name, id) in signature.map(|s| &s.inputs[..]).unwrap_or_default() {
            if free.contains(id) && !inputs.iter().any(|(_, known)| known == id) {
                inputs.push((name.clone(), *id));
            }
        }
        for id in free {
            if !inputs.iter().any(|(_, known)| *known == id) {
                inputs.push((String::new(), id));
            }
        }
        let inputs = read(inputs, &outputs, &items, &self.bodies);
        let (name, class) = (module.name.clone(), module.class.clone());
        let list = list_of(&inputs, &items, &self.bodies);
        let depends_on_mode = self.depends_on_mode(&items);
        let returned = signature.map(|of_call| of_call.outputs.clone()).unwrap_or_default();
        let (module, also) = (name, Vec::new());
        let body =
            Body { module, class, inputs, list, items, outputs, returned, depends_on_mode, also };
        self.bodies.push(body);
        self.bodies.len() - 1
    }

    fn signature(&self, module: &ModuleOf) -> Option<&Signature> {
        let call = module.key.strip_prefix("L__self__").unwrap_or(&module.key);
        self.flat.signatures.get(call)
    }

    /// Lists what a call of a module returns: the values that are read behind it, beside sizes that others compute
    /// themselves.
    fn outputs(&self, module: &ModuleOf, range: Range<usize>) -> Vec<Id> {
        let computed = self.flat.steps[range.clone()].iter().flat_map(|step| step.results.ids());
        let is_read_after = |id: &Id| self.last_uses.get(id).is_some_and(|last| *last >= range.end);
        let returned = computed.filter(|id| is_read_after(id) && !self.sizes.is_known(*id));
        let returned = returned.collect::<Vec<_>>();
        let mut outputs = Vec::new();
        let signed = self.signature(module).map(|s| &s.outputs[..]).unwrap_or_default();
        for id in signed.iter().map(|(_, id)| id).chain(&returned) {
            if returned.contains(id) && !outputs.contains(id) {
                outputs.push(*id);
            }
        }
        outputs
    }

    fn depends_on_mode(&self, items: &[Item]) -> bool {
        items.iter().any(|item| match &item.what {
            _ if item.mode.is_some() => true,
            What::Step(step) => step.depends_on_mode(),
            What::Call(call) => self.bodies[*call].depends_on_mode,
        })
    }
}

//! The programs of `train()` and of `eval()` as one: what both compute stands once, an argument that differs is chosen
//! by the mode, and what one of them has alone is computed in its mode.
//!
//! The parts that only one program has are a branch. Where later steps need what it computes, and the other program has
//! another value there, a choice behind the branch is either. If values of two branches meet, all between is one branch.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use anyhow::{Result, bail, ensure};

use super::alignment::{pairs, parts};
use super::defaults::Defaults;
use super::flat::{Argument, Flat, From, Id, Int, Signature, Step, Value};

/// What the key of a call has behind it that only `eval()` makes.
const IN_EVAL: &str = " in eval()";

/// A part of a call that both programs have: the key of the call, and which part it is.
pub(super) type Place = (String, usize);

/// Unites the programs of `train()` and of `eval()` of a model, whose constants have one name if they are the same.
///
/// # Errors
/// Returns an error if the programs take or return something else.
pub(super) fn unite(train: Flat, eval: &Flat) -> Result<Flat> {
    let other = |what: &str| {
        format!(
            "the model {what} in train() and in eval(), so that no forward_t has both: record the two modes in cases of \
             their own"
        )
    };
    let names = |flat: &Flat| {
        flat.inputs.iter().map(|id| flat.values[*id].name.clone()).collect::<Vec<_>>()
    };
    ensure!(names(&train) == names(eval), other("takes other tensors"));
    let kinds =
        |flat: &Flat| flat.outputs.iter().map(|id| flat.values[*id].kind).collect::<Vec<_>>();
    let returns_same = kinds(&train) == kinds(eval) && train.output_names == eval.output_names;
    ensure!(returns_same, other("returns something else"));
    let mut apart = HashSet::new();
    loop {
        let mut union = Union::new(&train, eval, &apart);
        let before = apart.len();
        match union.program() {
            Ok(outputs) => {
                let (steps, signatures) = (union.steps(), signatures(&union));
                let values = union.values;
                return Ok(Flat { steps, values, signatures, outputs, ..train });
            }
            Err(Apart::Parts(places)) => apart.extend(places),
            Err(Apart::Sizes) => {
                bail!(other("has a number that depends on the sizes of its input, and they differ"))
            }
        }
        ensure!(apart.len() > before, other("computes something else"));
    }
}

/// Why the programs cannot be united as they were tried.
pub(super) enum Apart {
    /// These parts are computed by each mode on its own.
    Parts(Vec<Place>),
    /// A number differs, and so do the sizes of the inputs: nobody knows what it depends on.
    Sizes,
}

/// What one of the modes has alone between two parts that both have.
pub(super) struct Branch {
    /// How many entries stand before it.
    pub(super) at: usize,
    /// The part of each call around it that comes next.
    pub(super) place: Vec<Place>,
    /// A step of the same call.
    pub(super) like: Step,
    pub(super) steps: Vec<Step>,
    pub(super) choices: Vec<Step>,
}

pub(super) enum Entry {
    Step(Step),
    Branch(usize),
}

pub(super) struct Union<'a> {
    train: &'a Flat,
    eval: &'a Flat,
    apart: &'a HashSet<Place>,
    same_sizes: bool,
    /// The values of `train`, then those that `eval` has alone, and the choices.
    pub(super) values: Vec<Value>,
    /// What the values of `eval` are among them.
    pub(super) of_eval: HashMap<Id, Id>,
    pub(super) entries: Vec<Entry>,
    pub(super) branches: Vec<Branch>,
    /// The entry that computes a value in both modes.
    pub(super) computed_at: HashMap<Id, usize>,
    /// The branch that computes a value.
    pub(super) branch_of: HashMap<Id, usize>,
    /// The choices between a value of `train()` and one of `eval()`, in their order.
    pub(super) choices: Vec<((Id, Id), Id)>,
    pub(super) place: Vec<Place>,
}

impl<'a> Union<'a> {
    fn new(train: &'a Flat, eval: &'a Flat, apart: &'a HashSet<Place>) -> Union<'a> {
        let sizes = |flat: &Flat| {
            let metas = flat.inputs.iter().map(|id| flat.values[*id].meta.as_ref());
            metas.map(|meta| meta.map(|meta| meta.sizes.clone())).collect::<Vec<_>>()
        };
        let mut union = Union {
            train,
            eval,
            apart,
            same_sizes: sizes(train) == sizes(eval),
            values: train.values.clone(),
            of_eval: train.inputs.iter().zip(&eval.inputs).map(|(t, e)| (*e, *t)).collect(),
            entries: Vec::new(),
            branches: Vec::new(),
            computed_at: HashMap::new(),
            branch_of: HashMap::new(),
            choices: Vec::new(),
            place: Vec::new(),
        };
        for (id, value) in eval.values.iter().enumerate() {
            if value.from == From::Computed {
                continue;
            }
            let known = train.values.iter().position(|known| known.from == value.from);
            let known = known.unwrap_or_else(|| {
                union.values.push(value.clone());
                union.values.len() - 1
            });
            union.of_eval.insert(id, known);
        }
        union
    }

    /// Unites the whole programs, and returns the outputs.
    fn program(&mut self) -> Result<Vec<Id>, Apart> {
        self.call(0..self.train.steps.len(), 0..self.eval.steps.len(), 0)?;
        let (train, eval) = (self.train, self.eval);
        let outputs = train.outputs.iter().zip(&eval.outputs).collect::<Vec<_>>();
        // A program without any step returns what it is given.
        let Some(last) = train.steps.last().or(eval.steps.last()) else {
            return Ok(train.outputs.clone());
        };
        let like = part_of(last, 0);
        outputs.into_iter().map(|(t, e)| self.either(*t, self.of_eval[e], &like)).collect()
    }

    fn steps(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        for entry in std::mem::take(&mut self.entries) {
            match entry {
                Entry::Step(step) => steps.push(step),
                Entry::Branch(at) => {
                    steps.append(&mut self.branches[at].steps);
                    steps.append(&mut self.branches[at].choices);
                }
            }
        }
        steps
    }

    /// Unites what a call at `depth` computes in the two programs.
    fn call(&mut self, t: Range<usize>, e: Range<usize>, depth: usize) -> Result<(), Apart> {
        let (train, eval) = (self.train, self.eval);
        let module = train.steps.get(t.start).filter(|_| depth > 0);
        let key = module.map_or(String::new(), |step| step.modules[depth].key.clone());
        let (mut from_t, mut from_e) = (t.start, e.start);
        let of_train = parts(&train.steps, t.clone(), depth);
        let of_eval = parts(&eval.steps, e.clone(), depth);
        let both = pairs((&train.steps, &of_train), (&eval.steps, &of_eval), depth);
        let count = both.len();
        for (at, (a, b)) in both.into_iter().enumerate() {
            let place = (key.clone(), at);
            if self.apart.contains(&place) {
                continue;
            }
            self.place.push(place);
            let (a, b) = (&of_train[a], &of_eval[b]);
            self.branch(from_t..a.steps.start, from_e..b.steps.start, depth)?;
            if a.is_call {
                self.call(a.steps.clone(), b.steps.clone(), depth + 1)?;
            } else {
                self.step(&train.steps[a.steps.start], &eval.steps[b.steps.start])?;
            }
            self.place.pop();
            (from_t, from_e) = (a.steps.end, b.steps.end);
        }
        self.place.push((key, count));
        self.branch(from_t..t.end, from_e..e.end, depth)?;
        if depth > 0 {
            self.place.pop();
        }
        Ok(())
    }

    /// Adds what one of the programs has alone.
    fn branch(&mut self, t: Range<usize>, e: Range<usize>, depth: usize) -> Result<(), Apart> {
        let (train, eval) = (self.train, self.eval);
        let (t, e) = (&train.steps[t], &eval.steps[e]);
        let Some(last) = t.last().or(e.last()) else { return Ok(()) };
        let number = self.new_branch(part_of(last, depth));
        for step in t {
            let mut step = step.clone();
            self.branch_of.extend(step.results.ids().into_iter().map(|id| (id, number)));
            self.within(&mut step, true, number)?;
        }
        for step in e {
            let mut step = step.clone();
            for module in step.modules.iter_mut().skip(depth + 1) {
                module.key += IN_EVAL;
            }
            for id in step.results.ids() {
                self.of_eval.insert(id, self.values.len());
                self.branch_of.insert(self.values.len(), number);
                self.values.push(eval.values[id].clone());
            }
            step.results = step.results.with(|id| self.of_eval[&id]);
            for (_, argument) in &mut step.arguments {
                *argument = argument.with(&mut |id| Ok::<_, Apart>(self.of_eval[&id]))?;
            }
            self.within(&mut step, false, number)?;
        }
        Ok(())
    }

    /// Adds a step of one mode to a branch.
    fn within(&mut self, step: &mut Step, mode: bool, branch: usize) -> Result<(), Apart> {
        for (_, argument) in &mut step.arguments {
            *argument = argument.with(&mut |id| self.in_mode(id, mode, branch))?;
        }
        step.mode = Some(mode);
        self.branches[branch].steps.push(step.clone());
        Ok(())
    }

    /// Adds a step that both programs have.
    fn step(&mut self, t: &Step, e: &Step) -> Result<(), Apart> {
        let mut arguments = Vec::new();
        for (name, argument) in &t.arguments {
            let other = self.given(e, name)?;
            arguments.push((name.clone(), self.argument(argument, &other, t)?));
        }
        for (name, other) in &e.arguments {
            if !t.arguments.iter().any(|(known, _)| known == name) {
                let argument = self.given(t, name)?;
                arguments.push((name.clone(), self.argument(&argument, other, t)?));
            }
        }
        for (id, other) in t.results.ids().into_iter().zip(e.results.ids()) {
            self.of_eval.insert(other, id);
            self.computed_at.insert(id, self.entries.len());
        }
        self.entries.push(Entry::Step(Step { arguments, ..t.clone() }));
        Ok(())
    }

    /// Returns an argument of a step, which can be its default.
    fn given(&self, step: &Step, name: &str) -> Result<Argument, Apart> {
        let given = step.arguments.iter().find(|(known, _)| known == name);
        let default = || Defaults::of(&step.operator).ok()?.of_argument(name);
        let given = given.map(|(_, argument)| argument.clone()).or_else(default);
        given.ok_or_else(|| self.one_branch(&[]))
    }

    fn argument(&mut self, t: &Argument, e: &Argument, step: &Step) -> Result<Argument, Apart> {
        let numbers = |argument: &Argument| match argument {
            Argument::Int(int) => Some(vec![*int]),
            Argument::Ints(ints) => Some(
                ints.iter()
                    .filter_map(|int| if let Int::Known(int) = int { Some(*int) } else { None })
                    .collect(),
            ),
            _ => None,
        };
        if !self.same_sizes && numbers(t) != numbers(e) {
            return Err(Apart::Sizes);
        }
        let bits = |argument: &Argument| match argument {
            Argument::Float(value) => Some(value.to_bits()),
            _ => None,
        };
        let mut of_eval = e.ids().into_iter();
        match (t, e) {
            (Argument::Float(_), Argument::Float(_)) if bits(t) == bits(e) => return Ok(t.clone()),
            (Argument::Bool(a), Argument::Bool(b)) if a != b => {}
            // The largest one stands for none.
            (Argument::Int(a), Argument::Int(b)) if a != b && *a.max(b) < i64::MAX => {}
            (Argument::Float(_), Argument::Float(_)) => {}
            _ => {
                // What is left has to be the same but for the values.
                let none = |argument: &Argument| argument.with(&mut |_| Ok::<_, Apart>(0));
                if none(t)? != none(e)? {
                    return Err(self.one_branch(&[]));
                }
                return t.with(&mut |id| {
                    let other = of_eval.next().map_or(id, |other| self.of_eval[&other]);
                    self.either(id, other, step)
                });
            }
        }
        Ok(Argument::ByMode(Box::new((t.clone(), e.clone()))))
    }
}

/// Returns a step of the call at a depth that a step stands in, of no line of Python.
fn part_of(step: &Step, depth: usize) -> Step {
    let modules = step.modules.iter().take(depth + 1).cloned().collect();
    Step { modules, frames: Vec::new(), mode: None, ..step.clone() }
}

/// Returns the signatures of the calls in both programs, by the names that the calls have in the united one.
fn signatures(union: &Union<'_>) -> HashMap<String, Signature> {
    let mut signatures = HashMap::new();
    let choices = |id: Id| {
        let of_id = union.choices.iter().filter(move |((t, _), _)| *t == id);
        of_id.map(|(_, choice)| *choice).chain([id])
    };
    for (call, signature) in &union.train.signatures {
        let inputs = signature.inputs.iter();
        let inputs = inputs.flat_map(|(name, id)| choices(*id).map(|id| (name.clone(), id)));
        let outputs = signature.outputs.iter();
        let outputs =
            outputs.flat_map(|(place, id)| choices(*id).map(|id| (place.clone(), id))).collect();
        signatures.insert(call.clone(), Signature { inputs: inputs.collect(), outputs });
    }
    for (call, signature) in &union.eval.signatures {
        let of_eval = |id: &Id| union.of_eval.get(id).copied();
        let inputs = signature.inputs.iter();
        let inputs = inputs.filter_map(|(name, id)| Some((name.clone(), of_eval(id)?))).collect();
        let outputs = signature.outputs.iter();
        let outputs =
            outputs.filter_map(|(place, id)| Some((place.clone(), of_eval(id)?))).collect();
        signatures.insert(format!("{call}{IN_EVAL}"), Signature { inputs, outputs });
    }
    signatures
}

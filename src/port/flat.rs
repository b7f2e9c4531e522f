//! A program as a flat list of steps, as plain data.

use std::collections::{BTreeSet, HashMap};
use std::convert::Infallible;

use super::python::Frame;

/// A value of the program, by its place in [`Flat::values`].
pub(super) type Id = usize;

/// A program, flat.
#[derive(Clone)]
pub(super) struct Flat {
    pub(super) values: Vec<Value>,
    pub(super) steps: Vec<Step>,
    /// What the user gives.
    pub(super) inputs: Vec<Id>,
    pub(super) outputs: Vec<Id>,
    /// The names of the outputs in the graph.
    pub(super) output_values: Vec<String>,
    /// The names of the outputs, where they are parts of a dict or a dataclass.
    pub(super) output_names: Vec<String>,
    /// What the calls of modules take and return, by the call.
    pub(super) signatures: HashMap<String, Signature>,
    /// Every parameter and buffer, by its name.
    pub(super) variables: Vec<Variable>,
}

/// What is known of a value.
#[derive(Clone)]
pub(super) struct Value {
    pub(super) name: String,
    pub(super) from: From,
    pub(super) kind: Kind,
    pub(super) meta: Option<Meta>,
    /// What the program says of a number that is computed from sizes: those that are equal say the same.
    pub(super) symbol: String,
}

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum From {
    /// A parameter or a buffer, by its name.
    Variable(String),
    /// A constant, by its name.
    Constant(String),
    /// The user, or a step.
    Computed,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    Tensor,
    Int,
    Float,
}

/// The dtype and the sizes of a tensor; `None` stands for a size that is not known before the program runs.
#[derive(Clone, Debug)]
pub(super) struct Meta {
    pub(super) dtype: i64,
    pub(super) sizes: Vec<Option<i64>>,
    /// What the program says of each size that is not known; it is empty for the others.
    pub(super) symbols: Vec<String>,
    /// The sizes that it was exported with.
    pub(super) exported: Vec<i64>,
}

/// A parameter or a buffer.
#[derive(Clone)]
pub(super) struct Variable {
    pub(super) name: String,
    pub(super) meta: Meta,
    pub(super) is_parameter: bool,
    pub(super) requires_grad: bool,
    /// Whether a checkpoint has it.
    pub(super) persistent: bool,
    /// Which value it has, if no checkpoint has it: those of one number are the same.
    pub(super) value: Option<usize>,
}

/// One operator.
#[derive(Clone)]
pub(super) struct Step {
    /// Such as `add.Tensor`; that of Python's arithmetic on sizes is `_operator.mul` and the like.
    pub(super) operator: String,
    pub(super) arguments: Vec<(String, Argument)>,
    pub(super) results: Results,
    /// The calls of modules that it stands in, the root's first.
    pub(super) modules: Vec<ModuleOf>,
    /// For each `forward`, its line and those of the functions that it calls.
    pub(super) frames: Vec<Vec<Frame>>,
    /// Whether autograd records it.
    pub(super) grad: bool,
    /// The mode that alone computes it, if the program has both: that of `train()` is `true`.
    pub(super) mode: Option<bool>,
}

/// The operator that returns its argument `train` or its argument `eval`, by the mode.
pub(super) const CHOICE: &str = "mode.choice";

/// The operators that return what they are given where they are told that nothing trains.
pub(super) const DROPOUT: [&str; 4] =
    ["dropout", "alpha_dropout", "feature_dropout", "feature_alpha_dropout"];

impl Step {
    pub(super) fn is_choice(&self) -> bool {
        self.operator == CHOICE
    }

    /// Returns whether it computes something else in each mode.
    pub(super) fn depends_on_mode(&self) -> bool {
        let by_mode = |(_, argument): &(String, Argument)| matches!(argument, Argument::ByMode(_));
        self.mode.is_some() || self.is_choice() || self.arguments.iter().any(by_mode)
    }
}

/// A call of a module: the key tells it from other calls.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ModuleOf {
    pub(super) key: String,
    pub(super) name: String,
    pub(super) class: String,
}

#[derive(Clone, Debug)]
pub(super) enum Results {
    One(Id),
    /// A tuple of tensors, in which some may not be needed.
    Tuple(Vec<Id>),
    /// A list of tensors.
    List(Vec<Id>),
}

impl Results {
    pub(super) fn ids(&self) -> Vec<Id> {
        match self {
            Results::One(id) => vec![*id],
            Results::Tuple(ids) | Results::List(ids) => ids.clone(),
        }
    }

    /// Returns them with other ids.
    pub(super) fn with(&self, other: impl Fn(Id) -> Id) -> Results {
        let all = |ids: &[Id]| ids.iter().map(|id| other(*id)).collect();
        match self {
            Results::One(id) => Results::One(other(*id)),
            Results::Tuple(ids) => Results::Tuple(all(ids)),
            Results::List(ids) => Results::List(all(ids)),
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Argument {
    Value(Id),
    List(Vec<Option<Id>>),
    None,
    Int(i64),
    /// A list of integers, of which some are values.
    Ints(Vec<Int>),
    Float(f64),
    Floats(Vec<f64>),
    /// The real and the imaginary part.
    Complex(f64, f64),
    Bool(bool),
    Bools(Vec<bool>),
    Text(String),
    /// A dtype, by its number in PyTorch's schema of programs.
    Dtype(i64),
    MemoryFormat(i64),
    Layout,
    Device(String),
    /// A bool or a number in `train()`, and in `eval()`.
    ByMode(Box<(Argument, Argument)>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Int {
    Known(i64),
    Value(Id),
}

impl Argument {
    pub(super) fn ids(&self) -> Vec<Id> {
        match self {
            Argument::Value(id) => vec![*id],
            Argument::List(list) => list.iter().flatten().copied().collect(),
            Argument::Ints(ints) => {
                let id = |int: &Int| if let Int::Value(id) = int { Some(*id) } else { None };
                ints.iter().filter_map(id).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns it with other values, in their order.
    pub(super) fn with<E>(
        &self,
        other: &mut impl FnMut(Id) -> Result<Id, E>,
    ) -> Result<Argument, E> {
        Ok(match self {
            Argument::Value(id) => Argument::Value(other(*id)?),
            Argument::List(list) => {
                let ids = list.iter().map(|id| id.map(&mut *other).transpose());
                Argument::List(ids.collect::<Result<_, E>>()?)
            }
            Argument::Ints(ints) => {
                let ints = ints.iter().map(|int| match int {
                    Int::Known(_) => Ok(*int),
                    Int::Value(id) => other(*id).map(Int::Value),
                });
                Argument::Ints(ints.collect::<Result<_, E>>()?)
            }
            other => other.clone(),
        })
    }
}

/// What a call of a module takes and returns, in the order of Python.
#[derive(Clone)]
pub(super) struct Signature {
    /// The tensors and numbers that it takes, by the names of `forward`'s arguments.
    pub(super) inputs: Vec<(String, Id)>,
    /// The tensors and numbers that it returns, by their places in tuples, such as `1.0` for `h` in `y, (h, c)`.
    pub(super) outputs: Vec<(String, Id)>,
}

impl Flat {
    /// Lists the names of the constants that are read.
    pub(super) fn constants(&self) -> impl Iterator<Item = &str> {
        let arguments = self.steps.iter().flat_map(|step| &step.arguments);
        let read = arguments.flat_map(|(_, argument)| argument.ids());
        let read = read.chain(self.outputs.iter().copied()).collect::<BTreeSet<_>>();
        read.into_iter().filter_map(|id| match &self.values[id].from {
            From::Constant(name) => Some(name.as_str()),
            _ => None,
        })
    }

    /// Returns the name of what the user gives: that of `forward`'s argument, or if that is not known the graph's.
    pub(super) fn input_name(&self, id: Id) -> &str {
        let arguments = self.signatures.get("").map(|of_root| &of_root.inputs[..]);
        let argument = arguments.unwrap_or_default().iter().find(|(_, known)| *known == id);
        let argument = argument.map(|(name, _)| name.as_str());
        // The parts of a list or a dict have names in the graph that are no longer.
        let argument = argument.filter(|name| !name.is_empty() && !name.contains('.'));
        argument.unwrap_or(&self.values[id].name)
    }

    /// Reads other values in the place of some.
    pub(super) fn replace_values(&mut self, other: impl Fn(Id) -> Id) {
        for (_, argument) in self.steps.iter_mut().flat_map(|step| &mut step.arguments) {
            let replaced = argument.with(&mut |id| Ok::<_, Infallible>(other(id)));
            *argument = replaced.unwrap_or_else(|never| match never {});
        }
        for signature in self.signatures.values_mut() {
            let inputs = signature.inputs.iter_mut().map(|(_, id)| id);
            let outputs = signature.outputs.iter_mut().map(|(_, id)| id);
            for id in inputs.chain(outputs) {
                *id = other(*id);
            }
        }
        for id in &mut self.outputs {
            *id = other(*id);
        }
    }

    /// Leaves out dropout that drops nothing, which returns what it is given.
    pub(super) fn drop_unused_dropout(&mut self) {
        let mut given = HashMap::new();
        self.steps.retain(|step| {
            let is_off = |(name, argument): &(String, Argument)| {
                name == "train" && *argument == Argument::Bool(false)
            };
            let is_dropout = DROPOUT.contains(&step.operator.trim_end_matches('_'));
            if !is_dropout || step.mode.is_some() || !step.arguments.iter().any(is_off) {
                return true;
            }
            let (Some((_, Argument::Value(input))), Results::One(id)) =
                (step.arguments.first(), &step.results)
            else {
                return true;
            };
            let first = given.get(input).copied().unwrap_or(*input);
            given.insert(*id, first);
            false
        });
        self.replace_values(|id| given.get(&id).copied().unwrap_or(id));
    }

    /// Gives the constants other names.
    pub(super) fn rename_constants(&mut self, name: impl Fn(&str) -> String) {
        for value in &mut self.values {
            if let From::Constant(known) = &mut value.from {
                *known = name(known);
            }
        }
    }

    /// Returns whether the model was exported in `train()`; `None` where nothing in it depends on that.
    pub(super) fn is_training(&self) -> Option<bool> {
        let mut modes =
            self.steps.iter().flat_map(|step| &step.arguments).filter_map(|(name, argument)| {
                match argument {
                    Argument::Bool(mode) if name == "train" || name == "training" => Some(*mode),
                    _ => None,
                }
            });
        let first = modes.next()?;
        Some(first || modes.any(|mode| mode))
    }
}

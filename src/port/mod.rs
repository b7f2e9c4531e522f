//! The Rust port of an exported program: structs as a person writes them, and the crate with the test that proves it.
//!
//! This room knows the graph of a program, its modules and lines of Python, and tch's methods. It computes nothing. It
//! does not know recorded values: what a case adds is the names of its tensors.

mod alignment;
mod arguments;
mod arithmetic;
mod bind;
mod branch;
mod buffers;
mod by_name;
mod calls;
mod choices;
mod class;
mod class_name;
mod columns;
mod constant;
mod constructor;
mod defaults;
mod example;
mod fields;
mod flat;
mod forward;
mod functions;
mod identifier;
mod layers;
mod methods;
mod modes;
mod names;
mod no_grad;
mod number;
mod operator;
mod optional;
mod outline;
mod package;
mod part;
mod pattern;
mod proof;
mod python;
mod reader;
mod recurrent;
mod runs;
mod rust;
mod rustfmt;
mod scope;
mod series;
mod shared;
mod simple;
mod sizes;
mod source;
mod superset;
mod targets;
mod tree;
mod units;
mod variables;
mod without;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tch::Tensor;

use crate::program::Program;
use crate::torch::libtorch_version;
use class::{Class, Classes};
use constant::Constant;
use flat::{Argument, Flat, From, Id};
use methods::Methods;
use modes::unite;
pub use proof::Proof;
use tree::Tree;

/// The Rust source of an exported program.
pub struct Port {
    flat: Flat,
    tree: Tree,
    classes: Classes,
    methods: Methods,
    /// The names that Python has for the values of each body.
    names: Vec<HashMap<Id, String>>,
    /// The version of tch that it is written for.
    tch: &'static str,
    /// The constants by their names.
    constants: HashMap<String, Constant>,
    /// The values that buffers start with and that are not zeros, by their names.
    buffers: HashMap<String, Constant>,
    mode: Mode,
    /// The sizes of the inputs in the test of a program.
    example_sizes: Vec<Vec<i64>>,
}

/// The mode that a program was exported in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Train,
    Eval,
    /// It is united from one of each.
    Both,
    /// A file of `torch.export.save` does not say it, and nothing in its graph depends on it.
    Unknown,
}

/// A program of a case.
pub(crate) struct Exported<'a> {
    pub(crate) json: &'a [u8],
    /// Whether it was exported in `train()`, if that is known.
    pub(crate) training: Option<bool>,
    /// Returns a constant by its name.
    pub(crate) constant: &'a dyn Fn(&str) -> Result<Tensor>,
    /// Returns the value of a buffer by its name.
    pub(crate) buffer: &'a dyn Fn(&str) -> Result<Tensor>,
}

impl Port {
    /// Reads a program that `torch.export.save` wrote.
    ///
    /// # Errors
    /// Returns the errors of [`Program::load`], and those of what cannot be written in Rust, with the operator, the
    /// module and the line of Python.
    pub fn load(path: impl AsRef<Path>) -> Result<Port> {
        let path = path.as_ref();
        let check = |json: &[u8]| Flat::read(json, str::to_owned).map(drop);
        let (program, json) = Program::load_with_json(path, check)?;
        let first = program.first_names();
        let constants = program.constants().collect::<HashMap<_, _>>();
        let constant = |name: &str| constants.get(name).map(|tensor| tensor.shallow_clone());
        let constant = |name: &str| constant(name).context("the archive does not have it");
        let buffers = program.buffers().collect::<HashMap<_, _>>();
        let buffer = |name: &str| {
            let value = buffers.get(name).map(|tensor| tensor.shallow_clone());
            value.context("the archive does not have it")
        };
        let exported =
            Exported { json: &json, training: None, constant: &constant, buffer: &buffer };
        let port = Port::new(&exported, |name| first.get(name).cloned()).and_then(|mut port| {
            port.choose_sizes(&program)?;
            Ok(port)
        });
        port.with_context(|| path.display().to_string())
    }

    /// Reads a program. `tied` returns the first name of a parameter or a buffer that has several.
    pub(crate) fn new(
        program: &Exported<'_>,
        tied: impl Fn(&str) -> Option<String>,
    ) -> Result<Port> {
        let first = |name: &str| tied(name).unwrap_or_else(|| name.to_owned());
        let mut flat = Flat::read(program.json, first)?;
        let constants = constants(&flat, program, str::to_owned)?;
        let mode = match program.training.or(flat.is_training()) {
            Some(true) => Mode::Train,
            Some(false) => Mode::Eval,
            None => Mode::Unknown,
        };
        flat.drop_unread_buffers();
        let buffers = buffers::values(&mut flat, program)?;
        Port::of(flat, constants, buffers, mode)
    }

    /// Reads the programs of `train()` and of `eval()` of one model.
    pub(crate) fn of_both(
        train: &Exported<'_>,
        eval: &Exported<'_>,
        tied: impl Fn(&str) -> Option<String>,
    ) -> Result<Port> {
        let read = |program: &Exported<'_>| {
            let first = |name: &str| tied(name).unwrap_or_else(|| name.to_owned());
            Flat::read(program.json, first)
        };
        let (mut of_train, mut of_eval) = (read(train)?, read(eval)?);
        let mut written = constants(&of_train, train, str::to_owned)?;
        let in_eval = |name: &str| format!("{name}_in_eval");
        written.extend(constants(&of_eval, eval, in_eval)?);
        // The same constant has one name.
        let order = of_train.constants().map(str::to_owned).collect::<Vec<_>>();
        let first = |name: String| {
            let same = order.iter().find(|known| written.get(*known) == written.get(&name));
            same.cloned().unwrap_or(name)
        };
        of_train.rename_constants(|name| first(name.to_owned()));
        of_eval.rename_constants(|name| first(in_eval(name)));
        let mut flat = unite(of_train, &of_eval)?;
        let read = flat.constants().collect::<HashSet<_>>();
        written.retain(|name, _| read.contains(name.as_str()));
        flat.drop_unread_buffers();
        let buffers = buffers::values(&mut flat, train)?;
        Port::of(flat, written, buffers, Mode::Both)
    }

    fn of(
        mut flat: Flat,
        constants: HashMap<String, Constant>,
        buffers: HashMap<String, Constant>,
        mode: Mode,
    ) -> Result<Port> {
        fill_with_numbers(&mut flat, &constants);
        flat.drop_unused_dropout();
        flat.settle_recurrent_modes();
        let (methods, tch) = Methods::of_libtorch(&libtorch_version()?)?;
        let mut inlined = HashSet::new();
        loop {
            let mut tree = Tree::build(&flat, &inlined);
            match Classes::find(&mut tree, &flat) {
                Ok(classes) => {
                    tree.pass_mode_on(&classes.of_body);
                    let names = tree.bodies.iter().map(|body| names::assigned(&tree, body));
                    let names = names.collect();
                    let example_sizes = Vec::new();
                    return Ok(Port {
                        flat,
                        tree,
                        classes,
                        methods,
                        names,
                        tch,
                        constants,
                        buffers,
                        mode,
                        example_sizes,
                    });
                }
                Err(better_inline) => {
                    let before = inlined.len();
                    inlined.extend(better_inline);
                    ensure!(inlined.len() > before, "its modules cannot be told apart");
                }
            }
        }
    }

    /// Lists the names in the graph of the tensors that the program returns.
    pub(crate) fn output_values(&self) -> impl Iterator<Item = &str> {
        self.flat.output_values.iter().map(String::as_str)
    }

    /// Returns the class of the whole model.
    fn root(&self) -> &Class {
        let last = self.tree.root;
        &self.classes.classes[self.classes.of_body[last]]
    }

    /// Returns the name that a value has in any of the bodies, the innermost first of those that are not PyTorch's own.
    fn name_anywhere(&self, id: Id) -> Option<String> {
        let bodies = self.names.iter().zip(&self.tree.bodies);
        let own = bodies.filter(|(_, body)| !body.class.starts_with("torch."));
        own.map(|(names, _)| names).find_map(|names| names.get(&id).cloned())
    }

    /// Returns a name for a number that is computed from sizes.
    fn number_name(&self, id: Id) -> String {
        let step = self.flat.steps.iter().find(|step| step.results.ids().contains(&id));
        let dimension = step.filter(|step| step.operator == "sym_size.int");
        match dimension.map(|step| &step.arguments[1].1) {
            Some(Argument::Int(0)) => "batch".to_owned(),
            Some(Argument::Int(dimension)) => {
                // The model or one of its modules can have a name for it.
                let known = self.names.iter().rev().find_map(|names| names.get(&id));
                known.cloned().unwrap_or_else(|| format!("size_{}", dimension.unsigned_abs()))
            }
            _ if self.flat.values[id].kind == flat::Kind::Float => "factor".to_owned(),
            _ => "n".to_owned(),
        }
    }
}

/// Lets a tensor be filled with a number where the program has a constant of one element.
fn fill_with_numbers(flat: &mut Flat, constants: &HashMap<String, Constant>) {
    for step in flat.steps.iter_mut().filter(|step| step.operator == "fill_.Tensor") {
        let [(_, Argument::Value(filled)), (_, value)] = &mut step.arguments[..] else { continue };
        let [id] = value.ids()[..] else { continue };
        let From::Constant(name) = &flat.values[id].from else { continue };
        let dtype = flat.values[*filled].meta.as_ref().map(|meta| meta.dtype);
        if let Some(number) = constants.get(name).and_then(|constant| constant.number(dtype)) {
            *value = Argument::Float(number);
            "fill_.Scalar".clone_into(&mut step.operator);
        }
    }
}

/// Writes the constants of a program, under their names in the port.
fn constants(
    flat: &Flat,
    program: &Exported<'_>,
    named: impl Fn(&str) -> String,
) -> Result<HashMap<String, Constant>> {
    let constants = flat.constants().map(|name| {
        let own = named(name);
        let written = (program.constant)(name).and_then(|tensor| Constant::new(&own, &tensor));
        Ok((own, written.with_context(|| format!("the constant {name}"))?))
    });
    constants.collect()
}

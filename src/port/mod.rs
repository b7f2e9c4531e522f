//! The Rust port of an exported program: structs as a person writes them, and the crate with the test that proves it.
//!
//! This room knows the graph of a program, its modules and lines of Python, and tch's methods. It computes nothing. It
//! does not know recorded values: what a case adds is the names of its tensors.

mod bind;
mod by_name;
mod class;
mod constant;
mod defaults;
mod fields;
mod flat;
mod forward;
mod identifier;
mod layers;
mod methods;
mod names;
mod operator;
mod optional;
mod outline;
mod package;
mod python;
mod reader;
mod runs;
mod rust;
mod rustfmt;
mod scope;
mod source;
mod tree;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tch::Tensor;

use crate::program::Program;
use crate::torch::libtorch_version;
use class::{Class, Classes};
use constant::Constant;
use flat::{Argument, Flat, Id};
use methods::Methods;
pub use package::Proof;
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
}

impl Port {
    /// Reads a program that `torch.export.save` wrote.
    ///
    /// # Errors
    /// Returns the errors of [`Program::load`], and those of what cannot be written in Rust, with the operator, the
    /// module and the line of Python.
    pub fn load(path: impl AsRef<Path>) -> Result<Port> {
        let path = path.as_ref();
        let (program, json) = Program::load_with_json(path, Port::check)?;
        let first = program.first_names();
        let constants = program.constants().collect::<HashMap<_, _>>();
        let constant = |name: &str| constants.get(name).map(|tensor| tensor.shallow_clone());
        let constant = |name: &str| constant(name).context("the archive does not have it");
        Port::new(&json, |name| first.get(name).cloned(), constant)
            .with_context(|| path.display().to_string())
    }

    /// Checks that the operators of a program can be written in Rust.
    pub(crate) fn check(json: &[u8]) -> Result<()> {
        Flat::read(json, str::to_owned).map(drop)
    }

    /// Reads a program by its JSON. `tied` returns the first name of a parameter or a buffer that has several, and
    /// `constant` a constant by its name.
    pub(crate) fn new(
        json: &[u8],
        tied: impl Fn(&str) -> Option<String>,
        constant: impl Fn(&str) -> Result<Tensor>,
    ) -> Result<Port> {
        let flat = Flat::read(json, |name| tied(name).unwrap_or_else(|| name.to_owned()))?;
        let (methods, tch) = Methods::of_libtorch(&libtorch_version()?)?;
        let constants = flat.constants().map(|name| {
            let written = constant(name).and_then(|tensor| Constant::new(name, &tensor));
            Ok((name.to_owned(), written.with_context(|| format!("the constant {name}"))?))
        });
        let constants = constants.collect::<Result<HashMap<_, _>>>()?;
        let mut inlined = HashSet::new();
        loop {
            let tree = Tree::build(&flat, &inlined);
            match Classes::find(&tree, &flat) {
                Ok(classes) => {
                    let names = tree.bodies.iter().map(|body| names::assigned(&tree, body));
                    let names = names.collect();
                    return Ok(Port { flat, tree, classes, methods, names, tch, constants });
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
        let last = self.tree.bodies.len() - 1;
        &self.classes.classes[self.classes.of_body[last]]
    }

    /// Returns the name that a value has in any of the bodies, the innermost first.
    fn name_anywhere(&self, id: Id) -> Option<String> {
        self.names.iter().find_map(|names| names.get(&id).cloned())
    }

    /// Returns a name for a number that is computed from sizes.
    fn int_name(&self, id: Id) -> String {
        let step = self.flat.steps.iter().find(|step| step.results.ids().contains(&id));
        let dimension = step.filter(|step| step.operator == "sym_size.int");
        match dimension.map(|step| &step.arguments[1].1) {
            Some(Argument::Int(0)) => "batch".to_owned(),
            Some(Argument::Int(dimension)) => format!("size_{}", dimension.unsigned_abs()),
            _ => "n".to_owned(),
        }
    }
}

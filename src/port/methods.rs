//! Which method of tch calls an operator. The tables are made by `scripts/methods.py` from tch's own source.

use std::collections::HashMap;

use anyhow::{Result, bail};

/// A method of tch.
#[derive(Clone, Copy, Debug)]
pub(super) struct Method {
    pub(super) name: &'static str,
    /// The operator's argument that is `self`; none for an associated function.
    pub(super) receiver: Option<&'static str>,
    arguments: &'static str,
    pub(super) returns: &'static str,
}

impl Method {
    /// Lists the names of the arguments beside `self`, each with the code of its type.
    pub(super) fn arguments(&self) -> impl Iterator<Item = (&'static str, char)> + use<> {
        let argument = |text: &'static str| {
            let (name, code) = text.split_once(':')?;
            Some((name, code.chars().next()?))
        };
        self.arguments.split(' ').filter_map(argument)
    }
}

/// The methods by the operators.
pub(super) struct Methods(HashMap<&'static str, Method>);

/// The tables, by the libtorch that tch is made for.
const TABLES: [(&str, &str, &str); 2] = [
    ("2.13", "0.26", include_str!("methods-0.26.tsv")),
    ("2.11", "0.24", include_str!("methods-0.24.tsv")),
];

impl Methods {
    /// Returns the methods of the tch that is made for a version of libtorch, and the version of that tch.
    ///
    /// # Errors
    /// Returns an error if no table is there for it.
    pub(super) fn of_libtorch(version: &str) -> Result<(Methods, &'static str)> {
        let fits = |known: &str| version.split('.').take(2).eq(known.split('.'));
        let Some((_, tch, table)) = TABLES.iter().find(|(known, ..)| fits(known)) else {
            bail!("no table of tch's methods is there for libtorch {version}");
        };
        let line = |line: &'static str| {
            let mut parts = line.split('\t');
            let (operator, name, receiver) = (parts.next()?, parts.next()?, parts.next()?);
            let (arguments, returns) = (parts.next()?, parts.next()?);
            let receiver = Some(receiver).filter(|receiver| *receiver != "-");
            Some((operator, Method { name, receiver, arguments, returns }))
        };
        Ok((Methods(table.lines().filter_map(line).collect()), tch))
    }

    pub(super) fn find(&self, operator: &str) -> Option<Method> {
        self.0.get(operator).copied()
    }
}

//! The defaults of an operator's arguments, as its schema has them.

use std::ffi::CString;

use anyhow::Result;

use super::flat::{Argument, Int};
use crate::torch::schema;

/// The defaults in an operator's schema.
pub(super) struct Defaults(String);

impl Defaults {
    pub(super) fn of(operator: &str) -> Result<Defaults> {
        let (name, overload) = operator.split_once('.').unwrap_or((operator, ""));
        let (name, overload) = (CString::new(format!("aten::{name}"))?, CString::new(overload)?);
        Ok(Defaults(schema(&name, &overload)?))
    }

    /// Lists the names of what the operator returns, if it has several results with names.
    pub(super) fn results(&self) -> Vec<String> {
        let results = self.0.rsplit_once("-> (").map_or("", |(_, results)| results);
        let name = |part: &str| part.trim().split_once(' ').map(|(_, name)| name.to_owned());
        let names = results.trim_end_matches(')').split(',').map(name);
        names.collect::<Option<Vec<_>>>().unwrap_or_default()
    }

    /// Returns the default of an argument, which a schema has as in `int[2] stride=1`.
    pub(super) fn of_argument(&self, name: &str) -> Option<Argument> {
        let arguments = self.0.split(") ->").next()?.split_once('(')?.1;
        let mut depth = 0;
        let parts = arguments.split(|c| {
            match c {
                '[' => depth += 1,
                ']' => depth -= 1,
                _ => {}
            }
            c == ',' && depth == 0
        });
        let found =
            parts.filter_map(|part| part.trim().split_once('=')).find_map(|(left, value)| {
                let (kind, known) = left.rsplit_once(' ')?;
                (known == name).then_some((kind, value))
            });
        let (kind, value) = found?;
        let count = kind.split_once('[').and_then(|(_, rest)| rest.split(']').next()?.parse().ok());
        if kind.starts_with("ScalarType") || kind.starts_with("MemoryFormat") {
            return Some(Argument::None);
        }
        Some(match value {
            "None" => Argument::None,
            "True" => Argument::Bool(true),
            "False" => Argument::Bool(false),
            "Mean" => Argument::Int(1),
            _ if kind.contains("[") => {
                let list = value.trim_matches(['[', ']']);
                let ints = list.split(',').filter_map(|int| int.trim().parse().ok());
                let ints = ints.map(Int::Known).collect::<Vec<_>>();
                match (&ints[..], count) {
                    ([one], Some(count)) => Argument::Ints(vec![*one; count]),
                    _ => Argument::Ints(ints),
                }
            }
            _ if kind.starts_with("str") => {
                Argument::Text(value.trim_matches(['"', '\'']).to_owned())
            }
            _ if kind.starts_with("float") => Argument::Float(value.parse().ok()?),
            _ => match value.parse() {
                Ok(int) => Argument::Int(int),
                Err(_) => Argument::Float(value.parse().ok()?),
            },
        })
    }
}

//! What autograd does not record, as a block.

use std::ops::Range;

use anyhow::Result;

use super::forward::Writer;
use super::names::computed_by;
use super::rust::{Expression, Kind};

impl Writer<'_> {
    /// Writes items that autograd does not record as a block.
    pub(super) fn without_grad(&mut self, range: Range<usize>) -> Result<()> {
        self.flush();
        let before = std::mem::take(&mut self.lines);
        self.lines(range.clone())?;
        self.flush();
        let inner = std::mem::replace(&mut self.lines, before);
        let items = &self.body.items[range];
        let computed = items.iter().flat_map(|item| computed_by(item, self.bodies()));
        let returned = computed.filter(|id| self.reads.get(id).is_some_and(|reads| *reads > 0));
        let returned = returned.collect::<Vec<_>>();
        let mut values = Vec::new();
        for id in &returned {
            values.push(self.locals.get(id).map_or_else(String::new, |local| match local.kind {
                Kind::Place if !local.text.contains(['[', '.']) => local.text.clone(),
                _ => local.owned(),
            }));
        }
        let mut names = Vec::new();
        for id in returned {
            let inner = self.locals.remove(&id).map(|local| local.text).unwrap_or_default();
            let name = self.wanted.get(&id).cloned().unwrap_or(inner);
            let name = self.unused(&name);
            let mutable = if self.written.contains(&id) { "mut " } else { "" };
            names.push(format!("{mutable}{name}"));
            self.locals.insert(id, Expression::new(name, Kind::Place, false));
        }
        let tuple = |parts: &[String]| match parts {
            [one] => one.clone(),
            _ => format!("({})", parts.join(", ")),
        };
        let (names, values) = (tuple(&names), tuple(&values));
        // The last value needs no name.
        let last = format!("let {values} = ");
        let inner = match inner.rfind(&last).filter(|at| inner[*at..].matches(";\n").count() == 1) {
            Some(at) => inner[..at].to_owned() + inner[at + last.len()..].trim_end_matches(";\n"),
            None => inner + &values,
        };
        self.lines +=
            &format!("let {names} = {{\nlet _guard = tch::no_grad_guard();\n{inner}\n}};\n");
        Ok(())
    }
}

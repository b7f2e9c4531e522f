//! What one of the modes computes alone, as an `if` whose value is that of either mode.

use std::collections::HashMap;
use std::ops::Range;

use anyhow::Result;

use super::flat::{Id, Results, Step};
use super::forward::Writer;
use super::names::read_by;
use super::operator::Scope;
use super::rust::{Expression, Kind};
use super::tree::What;

/// A branch of a mode that is being written.
#[derive(Clone, Copy)]
pub(super) struct Branch {
    /// Where its items end.
    pub(super) end: usize,
    /// The value that it returns, if it is one.
    pub(super) returns: Option<Id>,
    /// Whether it is that of a mode.
    of_mode: bool,
}

impl Writer<'_> {
    /// Returns how many of the items are those of `train()`, those of `eval()` and the choices between their values.
    /// Within a branch there is no other one.
    pub(super) fn items_of_branch(&self, range: Range<usize>) -> usize {
        if self.branch.is_some_and(|branch| branch.of_mode) {
            return 0;
        }
        let items = &self.body.items[range];
        let of_train = items.iter().take_while(|item| item.mode == Some(true)).count();
        let of_eval = items[of_train..].iter().take_while(|item| item.mode == Some(false)).count();
        let behind = of_train + of_eval;
        behind + (behind..items.len()).take_while(|at| choice(&items[*at].what).is_some()).count()
    }

    /// Writes the items of a branch.
    pub(super) fn write_branch(&mut self, range: Range<usize>) -> Result<()> {
        self.flush();
        let body = self.body;
        let of = |at: &usize, mode: bool| body.items[*at].mode == Some(mode);
        let eval = range.start + range.clone().take_while(|at| of(at, true)).count();
        let choices = eval + (eval..range.end).take_while(|at| of(at, false)).count();
        let values = body.items[choices..range.end].iter().filter_map(|item| choice(&item.what));
        let values = values.collect::<Vec<_>>();
        let sides = values.iter().map(|(sides, _)| (sides[0], sides[1]));
        let (in_train, in_eval) = sides.unzip::<_, _, Vec<_>, Vec<_>>();
        let behind = self.reads_behind(&range);
        let train = self.side(range.start..eval, &in_train, &behind, true)?;
        let eval = self.side(eval..choices, &in_eval, &behind, true)?;
        let text = match (&*train, &*eval) {
            (train, "") => format!("if train {{\n{train}\n}}"),
            ("", eval) => format!("if !train {{\n{eval}\n}}"),
            _ => format!("if train {{\n{train}\n}} else {{\n{eval}\n}}"),
        };
        self.item = choices.min(range.end - 1);
        let ids = values.iter().map(|(_, id)| *id).collect::<Vec<_>>();
        match ids[..] {
            [] => self.lines += &format!("{text}\n"),
            [one] => self.bind(Results::One(one), &Expression::new(text, Kind::New, false)),
            _ => self.bind(Results::Tuple(ids), &Expression::new(text, Kind::Several, false)),
        }
        Ok(())
    }

    /// Returns how often each value is read behind items; what nothing reads there can be moved out of either side.
    pub(super) fn reads_behind(&self, range: &Range<usize>) -> HashMap<Id, usize> {
        let mut behind = self.reads.clone();
        for item in &self.body.items[range.clone()] {
            for id in read_by(item, self.bodies()) {
                behind.entry(id).and_modify(|reads| *reads = reads.saturating_sub(1));
            }
        }
        behind
    }

    /// Writes the items of one side, and the values that stand behind them. `behind` says how often each value is read
    /// behind the branch.
    pub(super) fn side(
        &mut self,
        range: Range<usize>,
        values: &[Id],
        behind: &HashMap<Id, usize>,
        of_mode: bool,
    ) -> Result<String> {
        let outer = std::mem::take(&mut self.lines);
        let (locals, lists, branch) = (self.locals.clone(), self.lists.clone(), self.branch);
        let returns = if let [one] = values { Some(*one) } else { None };
        self.branch = Some(Branch { end: range.end, returns, of_mode });
        self.items(range.clone())?;
        let is_kept = matches!(self.pending[..], [(id, _)] if Some(id) == returns);
        if !is_kept {
            self.flush();
        }
        let mut texts = Vec::new();
        for (at, id) in values.iter().enumerate() {
            let value = self.read(*id);
            let is_last = behind.get(id) == Some(&0) && !values[at + 1..].contains(id);
            let own = value.kind == Kind::Place && is_last && !value.text.contains(['.', '[']);
            texts.push(if own { value.value() } else { value.owned() });
        }
        if let [one] = &texts[..]
            && let at = last_statement(&self.lines)
            && let Some(value) = self.lines[at..].strip_prefix(&format!("let {one} = "))
        {
            // It needs no name.
            self.lines = self.lines[..at].to_owned() + value.trim_end_matches(";\n");
            texts.clear();
        }
        self.lines += &match &texts[..] {
            [one] => one.clone(),
            [] => String::new(),
            _ => format!("({})", texts.join(", ")),
        };
        (self.locals, self.lists, self.branch) = (locals, lists, branch);
        Ok(std::mem::replace(&mut self.lines, outer))
    }
}

/// Returns where the last of the statements begins that are in no block of others.
fn last_statement(lines: &str) -> usize {
    let (mut at, mut depth, mut last) = (0, 0, 0);
    for line in lines.split_inclusive('\n') {
        if !line.trim_start().starts_with("//") {
            if depth == 0 {
                last = at;
            }
            let count = |brackets: [char; 3]| line.matches(brackets).count() as i64;
            depth += count(['(', '[', '{']) - count([')', ']', '}']);
        }
        at += line.len();
    }
    last
}

/// Returns the values of `train()` and of `eval()` that an item chooses from, and the one that it is.
fn choice(item: &What) -> Option<([Id; 2], Id)> {
    let What::Step(Step { arguments, results: Results::One(id), .. }) = item else { return None };
    let is_choice = matches!(item, What::Step(step) if step.is_choice());
    let sides = arguments.iter().flat_map(|(_, argument)| argument.ids()).collect::<Vec<_>>();
    Some((sides.try_into().ok().filter(|_| is_choice)?, *id))
}

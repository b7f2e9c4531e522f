//! Values that are others in `train()` and in `eval()`: a choice behind the branch that computes them.

use super::flat::{Argument, CHOICE, From, Id, Results, Step, Value};
use super::modes::{Apart, Branch, Entry, Union};

impl Union<'_> {
    /// Returns what a value of one mode is within a branch: if there was a choice of it before, that.
    pub(super) fn in_mode(&self, id: Id, mode: bool, branch: usize) -> Result<Id, Apart> {
        let of = self.branch_of.get(&id).copied();
        if of == Some(branch) {
            return Ok(id);
        }
        let is_choice = |((t, e), choice): &&((Id, Id), Id)| {
            let side = if mode { t } else { e };
            *side == id && self.branch_of[choice] < branch
        };
        match (self.choices.iter().rev().find(is_choice), of) {
            (Some((_, choice)), _) => Ok(*choice),
            (None, None) => Ok(id),
            (None, Some(other)) => Err(self.one_branch(&[other])),
        }
    }

    /// Returns the value that is `t` in `train()` and `e` in `eval()`, for a step of both or the end of the programs.
    pub(super) fn either(&mut self, t: Id, e: Id, like: &Step) -> Result<Id, Apart> {
        let known = self.choices.iter().find(|(sides, _)| *sides == (t, e));
        let from = |id: Id| &self.values[id].from;
        let is_constant = matches!(from(t), From::Constant(_)) && from(t) == from(e);
        if t == e || is_constant || known.is_some() {
            return Ok(known.map_or(t, |(_, choice)| *choice));
        }
        let of = [t, e].map(|id| self.branch_of.get(&id).copied());
        let before = |id: Id, branch: usize| {
            self.computed_at.get(&id).is_none_or(|at| *at < self.branches[branch].at)
        };
        let branch = match of {
            [Some(a), Some(b)] if a == b => a,
            [Some(a), None] if before(e, a) => a,
            [None, Some(b)] if before(t, b) => b,
            [None, None] => self.new_branch(Step { frames: Vec::new(), ..like.clone() }),
            _ => return Err(self.one_branch(&of.into_iter().flatten().collect::<Vec<_>>())),
        };
        let sides = [("train", t, true), ("eval", e, false)];
        let sides = sides.map(|(name, id, mode)| {
            let value = Argument::Value(self.in_mode(id, mode, branch)?);
            Ok((name.to_owned(), value))
        });
        let arguments = sides.into_iter().collect::<Result<_, Apart>>()?;
        let choice = self.values.len();
        let rank = |id: Id| self.values[id].meta.as_ref().map(|m| (m.dtype, m.sizes.len()));
        let meta = self.values[t].meta.clone().filter(|_| rank(t) == rank(e));
        self.values.push(Value { from: From::Computed, meta, ..self.values[t].clone() });
        self.choices.push(((t, e), choice));
        self.branch_of.insert(choice, branch);
        let (operator, results) = (CHOICE.to_owned(), Results::One(choice));
        let like = self.branches[branch].like.clone();
        self.branches[branch].choices.push(Step { operator, arguments, results, ..like });
        Ok(choice)
    }

    pub(super) fn new_branch(&mut self, like: Step) -> usize {
        let number = self.branches.len();
        let (at, place) = (self.entries.len(), self.place.clone());
        self.branches.push(Branch { at, place, like, steps: Vec::new(), choices: Vec::new() });
        self.entries.push(Entry::Branch(number));
        number
    }

    /// Returns the parts that have to be one branch, from the first of `branches` to the present part.
    pub(super) fn one_branch(&self, branches: &[usize]) -> Apart {
        let first = branches.iter().min().map(|first| &self.branches[*first].place);
        let pairs = first.map(|first| first.iter().zip(&self.place).collect::<Vec<_>>());
        let pairs = pairs.unwrap_or_default();
        // The innermost call that has both, of which a branch can stand right before the present part.
        let common = pairs.iter().find(|(from, to)| from != to).or(pairs.last());
        Apart::Parts(match common {
            Some(((key, from), (_, to))) => (*from..=*to).map(|at| (key.clone(), at)).collect(),
            None => self.place.last().cloned().into_iter().collect(),
        })
    }
}

//! Tensors that are the same storage in a file, as tied weights are in a PyTorch checkpoint.

use crate::trace::Trace;

/// Returns in words which tensor stands for `name`, if both traces have `name` as the storage of that one. Comparing it
/// would count its difference twice.
pub(super) fn stands_for(name: &str, actual: &Trace, expected: &Trace) -> Option<String> {
    let first = expected.tied_to(name).filter(|first| actual.tied_to(name) == Some(first))?;
    Some(format!("{name} is the storage of {first} on both sides, and compared once"))
}

/// Returns why a trace lacks a tensor that the other has, if there it is the storage of one that the trace has.
pub(super) fn why_lacked(name: &str, of: &Trace, other: &Trace) -> Option<String> {
    let first = other.tied_to(name).filter(|first| of.contains(first))?;
    Some(format!("it is the storage of {first}"))
}

/// Returns in words that a tensor is the storage of another one on one side alone, where both have the two. The other
/// side may have been trained or saved without the tie.
pub(super) fn untied(name: &str, actual: &Trace, expected: &Trace) -> Option<String> {
    let of_actual = actual.tied_to(name).map(|first| (first, expected));
    let (first, other) = of_actual.or_else(|| Some((expected.tied_to(name)?, actual)))?;
    let has_both = other.contains(first) && other.contains(name);
    if !has_both || other.tied_to(name) == Some(first) || other.tied_to(first) == Some(name) {
        return None;
    }
    let [tied, apart] = match of_actual {
        Some(_) => ["actual", "expected"],
        None => ["expected", "actual"],
    };
    let bytes = |name: &str| other.get(name).map(|view| view.data());
    let what = match bytes(name) == bytes(first) {
        true => "a copy of it",
        false => "another tensor",
    };
    Some(format!(
        "{name} is the storage of {first} on the {tied} side, and {what} on the {apart} side"
    ))
}

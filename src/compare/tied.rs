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

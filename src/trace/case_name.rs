//! The parts of a tensor's name in a case (`docs/format.md`): its step, and the call of its module.

/// Splits a name such as `step/2/forward/fc1` into the step and what follows, or returns `None` if it has no step, as
/// the names of the first one.
pub(crate) fn split_step(name: &str) -> Option<(&str, &str)> {
    name.strip_prefix("step/")?.split_once('/')
}

/// Returns the name of a tensor of a step, counted from 1: those of the first one have no step.
pub(crate) fn in_step(step: u32, name: &str) -> String {
    if step == 1 { name.to_owned() } else { format!("step/{step}/{name}") }
}

/// Splits the name of an output, such as `fc1@2` or `attention[0]`, into its module and what tells the module's calls
/// and outputs apart.
pub(crate) fn split_call(output: &str) -> (&str, &str) {
    output.split_at(output.find(['@', '[']).unwrap_or(output.len()))
}

//! The parts of a tensor's name in a case (`docs/format.md`): its step, its section, and the call of its module.

/// The names of the states of the generators of random numbers, on the CPU and on a CUDA device.
pub(crate) const RNG: [&str; 2] = ["rng", "rng[cuda]"];

/// What the names of the parts of a tensor of complex128 end with, which a file holds as two.
pub(crate) const REAL: &str = "[real]";
pub(crate) const IMAG: &str = "[imag]";

/// The section of the model's program.
pub(crate) const PROGRAM: &str = "program/";

/// The number that a step's gradients are multiplied by before the optimizer takes them, as clipping by the norm does.
pub(crate) const FACTOR: &str = "taken/[factor]";

/// The section of what each operator of the program returned, of which a case has digests.
pub(crate) const OPERATOR: &str = "operator/";

/// Returns whether a tensor of a case says how to compute, and was not computed, so that it is not compared.
pub(crate) fn is_instruction(name: &str) -> bool {
    name.starts_with(PROGRAM) || split_step(name).map_or(name, |(_, name)| name) == FACTOR
}

/// Returns the name of the value of the program that a tensor of a case is, if it is what an operator returned.
pub(crate) fn operator_value(name: &str) -> Option<&str> {
    split_step(name).map_or(name, |(_, name)| name).strip_prefix(OPERATOR)
}

/// Returns whether a tensor of a case is an input, an initial parameter, buffer or state of the optimizer, the state of
/// a generator of random numbers, the factor of clipping, or the model's program. A port loads these, and need not record them.
pub fn is_given(name: &str) -> bool {
    let of_step = split_step(name);
    let name = of_step.map_or(name, |(_, name)| name);
    let initial = ["param/", "buffer/", "state/"];
    name.starts_with("input/")
        || RNG.contains(&name.split('@').next().unwrap_or(name))
        || name == FACTOR
        || name.starts_with(PROGRAM)
        || of_step.is_none() && initial.iter().any(|section| name.starts_with(section))
}

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

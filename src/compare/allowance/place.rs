//! What the name of a case's tensor says: in which step it was computed, and what it is (`docs/format.md`).

use crate::trace::{Trace, split_step};

/// What a tensor of a case is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Part<'a> {
    /// An input, or an initial parameter or buffer.
    Given,
    /// What a module returned, or the loss.
    Output(&'a str),
    /// The gradient of an input, or of what a module returned.
    OutputGradient,
    /// The gradient of a parameter.
    Gradient(&'a str),
    /// The gradient of a parameter as the optimizer took it, for example after clipping.
    Taken(&'a str),
    /// What the optimizer keeps of a parameter after the step: the name of the state, and the parameter.
    State(&'a str, &'a str),
    /// A parameter after the step.
    Stepped(&'a str),
    /// A buffer after the step.
    Buffer(&'a str),
}

/// Returns the step of a tensor, counted from 1, and what it is, or `None` if its name is not one of a case.
pub(super) fn place<'a>(full: &'a str, case: &Trace) -> Option<(u32, Part<'a>)> {
    let is = |section: &str, name: &str| case.contains(&format!("{section}/{name}"));
    let (of_step, name) = match split_step(full) {
        Some((step, name)) => (Some(step.parse().ok()?), name),
        None => (None, full),
    };
    let step = of_step.unwrap_or(1);
    let part = match name.split_once('/') {
        Some(("input", _)) => Part::Given,
        Some(("param" | "buffer" | "state", _)) if of_step.is_none() => Part::Given,
        Some(("state", rest)) => {
            let (state, parameter) = rest.split_once('/')?;
            Part::State(state, parameter)
        }
        Some(("taken", name)) if is("param", name) => Part::Taken(name),
        Some(("forward", output)) => Part::Output(output),
        Some(("grad", name)) if is("param", name) => Part::Gradient(name),
        Some(("grad", _)) => Part::OutputGradient,
        _ if of_step.is_none() => return None,
        _ if is("param", name) => Part::Stepped(name),
        _ if is("buffer", name) => Part::Buffer(name),
        None if name == "L" => Part::Output(name),
        _ => return None,
    };
    Some((step, part))
}

/// Returns the name of a parameter or buffer after so many steps.
pub(super) fn after(steps: u32, section: &str, name: &str) -> String {
    if steps == 0 { format!("{section}/{name}") } else { format!("step/{steps}/{name}") }
}

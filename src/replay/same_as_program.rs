//! The proof of a port of a `.pt2` file: it computes what the program does.

use std::cell::RefCell;

use anyhow::{Context, Result, ensure};
use indexmap::IndexMap;
use tch::nn::VarStore;
use tch::{Tensor, no_grad};

use super::parting::{Seen, Watched, caught, failed_before, first_difference, or_returned};
use crate::compare::{Criterion, Edge, compare};
use crate::program::Program;
use crate::report::Report;
use crate::torch::{backward, clear_grad, watch};
use crate::trace::Trace;

/// Asserts in a test that a port computes what a program does: the outputs and the gradients of every parameter have the
/// same bits. Backward begins at the sum of each output that requires a gradient. Of a program that has none, or through
/// which PyTorch has no backward, the outputs alone are compared.
///
/// Every variable of `vs` is set to the program's.
///
/// # Panics
/// Panics if something differs. The message is the report.
///
/// # Errors
/// Returns the errors of `forward` and of PyTorch, and an error if the program lacks a variable of `vs`.
#[track_caller]
#[allow(clippy::panic)] // an assertion in a test has to panic
pub fn assert_same_as_program(
    program: &Program,
    vs: &VarStore,
    inputs: &[Tensor],
    mut forward: impl FnMut(&[Tensor]) -> Result<Vec<Tensor>>,
) -> Result<()> {
    let parameters = vs.variables();
    let parameters = parameters.iter().filter(|(_, variable)| variable.requires_grad());
    let parameters = parameters.map(|(name, variable)| (name.clone(), variable));
    let parameters = parameters.collect::<Vec<_>>();
    let of_program =
        || program.parameters().map(|(name, value)| (name.to_owned(), value)).collect();
    set_as_in(program, vs)?;
    let (mut expected, backward) = traced(of_program(), || program.run(inputs))?;
    for (name, value) in program.buffers() {
        expected.push(format!("step/1/{name}"), value)?;
    }
    // A gradient that the program does not have is none of the port's.
    let of_port = || if backward.is_ok() { parameters.clone() } else { Vec::new() };
    let seen = RefCell::<Seen>::default();
    let mut by_port = || {
        traced(of_port(), || {
            seen.borrow_mut().enter(true);
            let outputs = caught(|| forward(inputs));
            seen.borrow_mut().enter(false);
            outputs
        })
    };
    let all = by_port();
    let mut place = |differs: &str| -> Result<Option<String>> {
        let Some(mut watched) = Watched::new(differs, vs.device()) else { return Ok(None) };
        set_as_in(program, vs)?;
        // A port that fails has computed something until then.
        let _ = watch(&mut |tensor: &Tensor| seen.borrow_mut().take(tensor), &mut by_port);
        let run = || program.run_watched(inputs, &mut |value, tensor| watched.take(value, tensor));
        traced(of_program(), run).map(drop)?;
        watched.parting(program, &seen.borrow())
    };
    let (mut actual, backward_of_port) = match all {
        Ok(all) => all,
        Err(err) => {
            return Err(match place("forward/output") {
                Ok(Some(operation)) => err.context(failed_before(&operation)),
                _ => err,
            });
        }
    };
    match &backward {
        Ok(()) => backward_of_port?,
        Err(err) => println!("gradients are not compared, since the program has none: {err:#}"),
    }
    for (name, _) in program.buffers() {
        if let Some(variable) = vs.variables().get(name) {
            actual.push(format!("step/1/{name}"), variable)?;
        }
    }
    actual.ask_for(expected.names().map(str::to_owned).collect());
    if let Some((differs, _)) = first_difference(&actual, &expected)
        && let Some(operation) = or_returned(place(&differs).unwrap_or_default(), &differs)
    {
        actual.note_parting(differs, operation);
    }
    let comparison = compare(&actual, &expected, Criterion::Bitwise);
    let reason = "the port and the program are computed in one process".to_owned();
    let report = Report::new("this port", reason, comparison, || Edge::of_parting(&actual));
    if !report.comparison.passes() {
        panic!("{}", report.text());
    }
    println!("{}", report.line());
    Ok(())
}

/// Sets every variable to what the program has under its name.
fn set_as_in(program: &Program, vs: &VarStore) -> Result<()> {
    let known = program.parameters().chain(program.buffers()).collect::<IndexMap<_, _>>();
    for (name, variable) in vs.variables() {
        let value = known.get(name.as_str());
        let value = value.with_context(|| format!("the program has no {name}"))?;
        ensure!(variable.size() == value.size(), "{name} has another shape in the program");
        no_grad(|| variable.shallow_clone().f_copy_(value).map(drop))?;
    }
    Ok(())
}

/// Records what a program or a port returns, and the gradients of the parameters, or says why there are none.
fn traced(
    parameters: Vec<(String, &Tensor)>,
    forward: impl FnOnce() -> Result<Vec<Tensor>>,
) -> Result<(Trace, Result<()>)> {
    tch::manual_seed(0);
    let outputs = forward()?;
    let mut trace = Trace::new();
    for (at, output) in outputs.iter().enumerate() {
        trace.push(format!("forward/output[{at}]"), output)?;
    }
    let backward = gradients(&outputs, parameters, &mut trace);
    Ok((trace, backward))
}

/// Runs backward from the outputs that require a gradient, if one does, and records the gradients of the parameters.
fn gradients(
    outputs: &[Tensor],
    mut parameters: Vec<(String, &Tensor)>,
    trace: &mut Trace,
) -> Result<()> {
    let mut roots = Vec::new();
    for output in outputs.iter().filter(|output| output.requires_grad()) {
        roots.push(output.f_sum(output.f_kind()?)?);
    }
    if roots.is_empty() {
        return Ok(());
    }
    for (_, parameter) in &parameters {
        clear_grad(parameter)?;
    }
    backward(&roots.iter().map(|root| (root, None)).collect::<Vec<_>>())?;
    parameters.sort_by(|(a, _), (b, _)| a.cmp(b));
    for (name, parameter) in parameters {
        let gradient = parameter.f_grad()?;
        if gradient.defined() {
            trace.push(format!("grad/{name}"), &gradient)?;
        }
    }
    Ok(())
}

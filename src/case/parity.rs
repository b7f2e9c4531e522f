//! The comparison of a port's trace with the recorded case: what is required, and the verdict.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use tch::Device;

use super::Case;
use crate::compare::run::shortened;
use crate::compare::{Accepted, Edge, Required, Side, compare};
use crate::report::{Acceptance, Report};
use crate::trace::{Environment, Numerics, Trace, is_given, split_step};

/// The largest number of characters in which steps are listed.
const MAX_STEPS: usize = 100;

/// A requirement on a port.
#[derive(Clone, Debug)]
pub struct Parity {
    /// The criterion that is required.
    pub required: Required,
    /// Whether the port has to record all tensors of the case. By default, those that it does not record are
    /// listed as not compared. It has to record at least one tensor of each step. What the optimizer took and keeps
    /// (`taken/` and `state/`) is asked only of a port that records some of it.
    pub strict: bool,
    /// The number of the case's steps that the port takes, from the first on; `None` stands for all of them.
    pub steps: Option<u32>,
    /// The differences that are accepted, each with its reason.
    pub accepted: Accepted,
    /// The numerics that the port has to compute with; `None` stands for any. Without the recording's numerics, the
    /// criterion is only [`Close`](crate::Criterion::Close), and the report says why.
    pub numerics: Option<Numerics>,
    /// The device on which the port computed.
    pub device: Device,
}

impl Default for Parity {
    fn default() -> Parity {
        Parity {
            required: Required::Auto,
            strict: false,
            steps: None,
            accepted: Accepted::default(),
            numerics: None,
            device: Device::Cpu,
        }
    }
}

impl Parity {
    /// Compares every tensor that the port recorded with that of the case.
    ///
    /// The report passes only if something was compared in each step that the port has to take.
    ///
    /// # Errors
    /// Returns an error if libtorch does not report the environment, or if the port computes with other numerics than
    /// were demanded.
    pub fn report(&self, actual: &Trace, case: &Case) -> Result<Report> {
        let here = Environment::current(Numerics::in_use(), self.device)?;
        if let Some(numerics) = self.numerics {
            ensure!(
                here.numerics == numerics,
                "this process computes with {:?} numerics, and {numerics:?} ones are demanded: begin with \
                 Numerics::{numerics:?}.restart_with()?",
                here.numerics
            );
        }
        ensure!(
            self.required != Required::Accurate,
            "Required::Accurate needs a case with its program, which check replays in float64"
        );
        let (criterion, reason) = self.required.between(Some((&here, &case.environment)));
        let mut comparison = compare(actual, &case.trace, criterion);
        let of_optimizer = actual.names().any(is_of_optimizer);
        comparison.tensors.retain(|tensor| {
            let is_asked =
                self.is_asked(&tensor.name) && (of_optimizer || !is_of_optimizer(&tensor.name));
            is_asked || actual.contains(&tensor.name)
        });
        if !self.strict {
            comparison.leave_out_except(Side::Actual, |name| actual.is_asked(name));
        }
        comparison.accept(&self.accepted, actual, &case.trace);
        // A tensor that differs says more about the port.
        if comparison.tensors.iter().all(|tensor| tensor.passes) {
            comparison.run.extend(self.steps_left_out(actual, case));
        }
        let report = Report::new("this port", reason, comparison, || Edge::of_parting(actual));
        Ok(Report { acceptance: Acceptance::Rule, ..report })
    }

    /// Returns whether the port could be asked for a tensor of the case: it computes it, in a step that it takes.
    fn is_asked(&self, name: &str) -> bool {
        !is_given(name) && self.steps.is_none_or(|steps| step_of(name) <= steps)
    }

    /// Returns in words what of the case was not compared at all.
    fn steps_left_out(&self, actual: &Trace, case: &Case) -> Option<String> {
        let computed =
            case.trace.names().filter(|name| self.is_asked(name) && !is_of_optimizer(name));
        let (mut taken, mut left_out) = (BTreeSet::new(), BTreeSet::new());
        for name in computed {
            let steps = if actual.contains(name) { &mut taken } else { &mut left_out };
            steps.insert(step_of(name));
        }
        if taken.is_empty() {
            let why =
                "nothing was compared: the port records no tensor under a name that the case has";
            return Some(why.to_owned());
        }
        let left_out = left_out.difference(&taken).map(u32::to_string).collect::<Vec<_>>();
        (!left_out.is_empty()).then(|| {
            let (count, steps) = (taken.len(), shortened(&left_out.join(", "), MAX_STEPS));
            format!(
                "the port records nothing of step {steps} of the case: take these steps, or say \
                 Parity {{ steps: Some({count}), .. }}"
            )
        })
    }

    /// Asserts in a test that every tensor that the port recorded passes.
    ///
    /// If it does, the verdict goes to stdout, with the number of tensors and the reason for the criterion;
    /// `cargo test -- --show-output` shows it.
    ///
    /// # Panics
    /// Panics if the report does not pass. The message is the report.
    ///
    /// # Errors
    /// Returns the errors of [`report`](Self::report).
    #[track_caller]
    #[allow(clippy::panic)] // an assertion in a test has to panic
    pub fn assert(&self, actual: &Trace, case: &Case) -> Result<Report> {
        let report = self.report(actual, case)?;
        if report.comparison.passes() {
            println!("{}", report.line());
            return Ok(report);
        }
        panic!("{}", report.text());
    }
}

/// Asserts in a test that every tensor of `actual` is that of the case, to the bit where the two environments
/// promise that, and else within the tolerance.
///
/// # Panics
/// Panics if something differs, or if the port recorded nothing of a step of the case. The message is the report.
///
/// # Errors
/// Returns an error if libtorch does not report the environment.
#[track_caller]
pub fn assert_parity(actual: &Trace, case: &Case) -> Result<Report> {
    Parity::default().assert(actual, case)
}

/// Returns whether a tensor is a gradient as the optimizer took it, or what the optimizer keeps of a parameter.
fn is_of_optimizer(name: &str) -> bool {
    let name = split_step(name).map_or(name, |(_, name)| name);
    name.starts_with("taken/") || name.starts_with("state/")
}

/// Returns the step in which a tensor of a case was computed, counted from 1.
fn step_of(name: &str) -> u32 {
    split_step(name).and_then(|(step, _)| step.parse().ok()).unwrap_or(1)
}

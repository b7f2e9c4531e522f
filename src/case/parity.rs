//! The comparison of a port's trace with the recorded case: what is required, and the verdict.

use anyhow::Result;
use indexmap::IndexSet;
use tch::Device;

use super::{Case, is_given};
use crate::compare::{Required, compare};
use crate::report::Report;
use crate::trace::{Environment, Numerics, Trace};

/// A requirement on a port.
#[derive(Clone, Copy, Debug)]
pub struct Parity {
    /// The criterion that is required.
    pub required: Required,
    /// Whether the port has to record all tensors of the case. By default, those that it does not record are
    /// listed as not compared.
    pub strict: bool,
    /// The device on which the port computed.
    pub device: Device,
}

impl Default for Parity {
    fn default() -> Parity {
        Parity { required: Required::Auto, strict: false, device: Device::Cpu }
    }
}

impl Parity {
    /// Compares every tensor that the port recorded with that of the case.
    ///
    /// # Errors
    /// Returns an error if libtorch does not report the environment.
    pub fn report(self, actual: &Trace, case: &Case) -> Result<Report> {
        let here = Environment::current(Numerics::in_use(), self.device)?;
        let (criterion, reason) = self.required.between(Some((&here, &case.environment)));
        let mut comparison = compare(actual, &case.trace, criterion);
        comparison
            .tensors
            .retain(|tensor| !is_given(&tensor.name) || actual.get(&tensor.name).is_some());
        if !self.strict {
            comparison.leave_out_missing();
            let names = comparison.not_compared.iter().map(|name| of_any_step(name));
            comparison.not_compared = names.collect::<IndexSet<_>>().into_iter().collect();
        }
        Ok(Report::new("this port", reason, comparison, Vec::new))
    }

    /// Asserts in a test that every tensor that the port recorded passes.
    ///
    /// # Panics
    /// Panics if something differs. The message is the report.
    ///
    /// # Errors
    /// Returns the errors of [`report`](Self::report).
    #[track_caller]
    #[allow(clippy::panic)] // an assertion in a test has to panic
    pub fn assert(self, actual: &Trace, case: &Case) -> Result<Report> {
        let report = self.report(actual, case)?;
        if report.comparison.passes() {
            return Ok(report);
        }
        panic!("{}", report.text());
    }
}

/// Asserts in a test that every tensor of `actual` is that of the case, to the bit where the two environments
/// promise that, and else within the tolerance.
///
/// # Panics
/// Panics if something differs. The message is the report.
///
/// # Errors
/// Returns an error if libtorch does not report the environment.
#[track_caller]
pub fn assert_parity(actual: &Trace, case: &Case) -> Result<Report> {
    Parity::default().assert(actual, case)
}

/// Returns the name with a `*` in place of the number of the step.
fn of_any_step(name: &str) -> String {
    match name.strip_prefix("step/").and_then(|rest| rest.split_once('/')) {
        Some((_, name)) => format!("step/*/{name}"),
        None => name.to_owned(),
    }
}

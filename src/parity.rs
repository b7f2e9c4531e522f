//! A port's trace against the recorded case: what is required, and the verdict.

use anyhow::Result;
use indexmap::IndexSet;
use tch::Device;

use crate::case::{Case, is_given};
use crate::compare::{Criterion, compare};
use crate::environment::{Environment, Numerics};
use crate::report::Report;
use crate::trace::Trace;

/// Which [`Criterion`] is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Required {
    /// Bitwise where the two environments promise it, else close.
    #[default]
    Auto,
    /// Bitwise.
    Bitwise,
    /// Close.
    Close,
}

impl Required {
    /// The criterion for two environments, where both are known, and why.
    pub fn between(
        self,
        environments: Option<(&Environment, &Environment)>,
    ) -> (Criterion, String) {
        let on_cpus = environments.is_none_or(|(here, there)| here.is_cpu() && there.is_cpu());
        let close = if on_cpus { Criterion::Close } else { Criterion::CloseToGpu };
        match (self, environments) {
            (Required::Bitwise, _) => (Criterion::Bitwise, "as asked".to_owned()),
            (Required::Close, _) => (close, "as asked".to_owned()),
            (Required::Auto, None) => (close, "no record of both environments".to_owned()),
            (Required::Auto, Some((here, there))) => match here.promise_of_same_bits(there) {
                Some(reason) => (Criterion::Bitwise, reason.to_owned()),
                None => {
                    let differences = here.differences(there).join("; ");
                    (close, format!("another environment: {differences}"))
                }
            },
        }
    }
}

/// What a port has to keep to.
#[derive(Clone, Copy, Debug)]
pub struct Parity {
    /// How near it has to come.
    pub required: Required,
    /// Whether it has to record all that the case does. By default what it does not record is listed as not
    /// compared.
    pub strict: bool,
    /// Where the port computed.
    pub device: Device,
}

impl Default for Parity {
    fn default() -> Parity {
        Parity { required: Required::Auto, strict: false, device: Device::Cpu }
    }
}

impl Parity {
    /// Compares every tensor that the port recorded with the case's.
    ///
    /// # Errors
    /// The environment cannot be told.
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

    /// [`report`](Self::report), for tests.
    ///
    /// # Panics
    /// Something differs; the report is the message.
    ///
    /// # Errors
    /// Those of `report`.
    #[track_caller]
    #[allow(clippy::panic)] // of a test
    pub fn assert(self, actual: &Trace, case: &Case) -> Result<Report> {
        let report = self.report(actual, case)?;
        if report.comparison.passes() {
            return Ok(report);
        }
        panic!("{}", report.text());
    }
}

/// For tests: everything that `actual` holds is what the case holds, as near as the environments promise.
///
/// # Panics
/// Something differs; the report is the message.
///
/// # Errors
/// The environment cannot be told.
#[track_caller]
pub fn assert_parity(actual: &Trace, case: &Case) -> Result<Report> {
    Parity::default().assert(actual, case)
}

/// The name with a `*` for the number of the step.
fn of_any_step(name: &str) -> String {
    match name.strip_prefix("step/").and_then(|rest| rest.split_once('/')) {
        Some((_, name)) => format!("step/*/{name}"),
        None => name.to_owned(),
    }
}

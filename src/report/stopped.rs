//! What a report says of a check that ended before every case was checked.

use serde::{Deserialize, Serialize};

/// The end of a check before every case was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// The reason, such as `stopped by Ctrl-C`.
    pub reason: String,
    /// The number of cases that were not checked.
    pub not_checked: usize,
    /// The number of all cases.
    pub cases: usize,
}

impl Stopped {
    /// Returns in one line why the check ended and how many cases it did not check.
    pub fn line(&self) -> String {
        let Stopped { reason, not_checked, cases } = self;
        let were = if *not_checked == 1 { "was" } else { "were" };
        format!("{reason}: {not_checked} of {cases} cases {were} not checked")
    }

    /// Returns GitHub's `::error` line.
    pub fn annotation(&self) -> String {
        format!("::error::{}", self.line())
    }
}

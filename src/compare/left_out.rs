//! What one side lacks without being different.

use serde::{Deserialize, Serialize};

use super::Comparison;

/// A side of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The trace that is judged.
    Actual,
    /// The trace that it is judged by.
    Expected,
}

impl Side {
    /// Returns the side in words: `actual` or `expected`.
    pub fn name(self) -> &'static str {
        match self {
            Side::Actual => "actual",
            Side::Expected => "expected",
        }
    }
}

/// A tensor that was not compared, since one side lacks it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// The name of the tensor.
    pub name: String,
    /// The side that lacks it.
    pub lacking: Side,
    /// The reason that the run of that side gives, if it gives one.
    pub reason: Option<String>,
}

impl LeftOut {
    pub(super) fn new(name: &str, lacking: Side, reason: Option<&str>) -> LeftOut {
        LeftOut { name: name.to_owned(), lacking, reason: reason.map(str::to_owned) }
    }

    /// Returns in words why the tensor was not compared.
    pub fn why(&self) -> String {
        let side = self.lacking.name();
        match &self.reason {
            Some(reason) => format!("the {side} side does not have it: {reason}"),
            None => format!("the {side} side does not have it"),
        }
    }
}

impl Comparison {
    /// Moves the tensors that one side lacks from the differences to `not_compared`.
    pub fn leave_out(&mut self, lacking: Side) {
        self.leave_out_except(lacking, |_| false);
    }

    /// Does what [`leave_out`](Self::leave_out) does, except with the tensors that the side has to have.
    pub fn leave_out_except(&mut self, lacking: Side, is_asked: impl Fn(&str) -> bool) {
        let (left_out, there) =
            std::mem::take(&mut self.tensors).into_iter().partition::<Vec<_>, _>(|tensor| {
                tensor.lacking == Some(lacking) && !is_asked(&tensor.name)
            });
        self.tensors = there;
        self.not_compared.extend(left_out.iter().map(|t| LeftOut::new(&t.name, lacking, None)));
    }
}

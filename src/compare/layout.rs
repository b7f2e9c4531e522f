//! Whether two tensors lay in memory in the same way, which decides the order in which PyTorch sums.

use serde::{Deserialize, Serialize};

use super::complex::PARTS;
use super::{Comparison, TensorComparison};
use crate::trace::Trace;

/// The largest number of strides that are named.
const MAX_STRIDES: usize = 8;

/// The strides of two tensors of one shape that differ, counted in elements.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    /// The strides of the actual tensor.
    pub actual: Vec<usize>,
    /// The strides of the expected tensor.
    pub expected: Vec<usize>,
}

/// Notes the strides of every tensor that lay in memory in another way, where both traces know them.
///
/// The stride of a dimension of one element is of no effect, and neither are those of a tensor without elements.
pub(super) fn note(tensors: &mut [TensorComparison], actual: &Trace, expected: &Trace) {
    for tensor in tensors.iter_mut().filter(|tensor| tensor.problem.is_none()) {
        // Both parts of a tensor of complex128 have the same strides.
        let part = format!("{}{}", tensor.name, PARTS[0]);
        let [ours, theirs] = [actual, expected]
            .map(|trace| trace.strides(&tensor.name).or_else(|| trace.strides(&part)));
        let (Some(ours), Some(theirs)) = (ours, theirs) else { continue };
        let mut dims = tensor.shape.iter().zip(ours.iter().zip(&theirs));
        let differ = dims.any(|(&n, (ours, theirs))| n > 1 && ours != theirs);
        if differ && !tensor.shape.contains(&0) {
            tensor.layout = Some(Layout { actual: ours, expected: theirs });
        }
    }
}

impl Comparison {
    /// Returns in words which strides may explain the first difference: those of the tensor that differs, or else
    /// those of the last one before it that lay in memory in another way. The text is empty if there are none.
    pub(super) fn layout_before(&self, first: &str) -> String {
        let tensors = self.in_order_of_execution();
        let before = tensors.iter().position(|tensor| tensor.name == first);
        let upto = &tensors[..before.map_or(0, |at| at + 1)];
        let found = upto.iter().rev().find_map(|tensor| Some((tensor, tensor.layout.as_ref()?)));
        let Some((tensor, Layout { actual, expected })) = found else { return String::new() };
        let whose = match tensor.name == first {
            true => "its strides".to_owned(),
            false => format!("the strides of {}", tensor.name),
        };
        let (ours, theirs) = (tuple(actual), tuple(expected));
        format!(
            "; {whose} are {ours} and the recorded ones {theirs}: PyTorch sums in memory's order, which decides bits"
        )
    }
}

/// Writes strides as PyTorch prints them.
fn tuple(strides: &[usize]) -> String {
    let shown = strides.iter().take(MAX_STRIDES).map(usize::to_string).collect::<Vec<_>>();
    match strides.len() {
        1 => format!("({},)", shown[0]),
        n if n > MAX_STRIDES => format!("({}, …)", shown.join(", ")),
        _ => format!("({})", shown.join(", ")),
    }
}

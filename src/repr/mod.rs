//! Tensors and floats as Python prints them, byte for byte, with PyTorch's default print options.
//!
//! This room knows plain data: dtypes, shapes and bytes. It does not know libtorch; a libtorch tensor is only
//! one source of the data. Ported from
//! [`torch/_tensor_str.py`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/_tensor_str.py).

mod brackets;
mod column;
mod dtype;
pub(crate) mod float;

use anyhow::{Context, Result, ensure};
use safetensors::tensor::{Dtype, TensorView};

pub(crate) use brackets::is_cut;
use column::Column;
pub(crate) use dtype::PyTorchDtype;
pub use float::repr_float;

/// Tensors of more elements are summarized.
const THRESHOLD: usize = 1000;
const LINEWIDTH: usize = 80;
/// PyTorch itself indexes a tensor of at most so many dimensions.
pub(crate) const MAX_DIM: usize = 64;

const PREFIX: &str = "tensor(";

/// Returns what Python's `repr` returns for a tensor on the CPU, such as `tensor([[ 1., -1.]])`.
///
/// ```
/// use safetensors::tensor::{Dtype, TensorView};
///
/// let bytes = [1f32, -1.].map(f32::to_le_bytes).concat();
/// let view = TensorView::new(Dtype::F32, vec![1, 2], &bytes)?;
/// assert_eq!(tch_parity::repr_view(&view)?, "tensor([[ 1., -1.]])");
/// # Ok::<(), anyhow::Error>(())
/// ```
///
/// # Errors
/// PyTorch has no such tensor: its dtype is one that PyTorch lacks, it has more than 64 dimensions, or its
/// sizes overflow.
pub fn repr_view(view: &TensorView) -> Result<String> {
    let dtype = PyTorchDtype::of(view.dtype())
        .with_context(|| format!("PyTorch has no dtype {}", view.dtype()))?;
    let mut shape = view.shape().to_vec();
    if view.dtype() == Dtype::F4 {
        // PyTorch's elements are pairs of them.
        let last = shape.last_mut().filter(|last| **last % 2 == 0);
        *last.context("PyTorch has no single float of 4 bits, but pairs of them")? /= 2;
    }
    ensure!(shape.len() <= MAX_DIM, "cannot print a tensor of {} dimensions", shape.len());
    let sizes = shape.iter().map(|&n| i64::try_from(n));
    let strides = sizes
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .and_then(|sizes| sizes.iter().try_fold(1, |stride: i64, &n| stride.checked_mul(n.max(1))));
    ensure!(strides.is_some(), "its sizes are out of range: {shape:?}");

    let summarize = is_summarized(&shape);
    let bytes =
        if summarize { edges(view.data(), &shape, dtype.size) } else { view.data().to_vec() };
    Ok(Text { dtype, shape: &shape, shown: &bytes, summarize }.repr(Vec::new(), Vec::new()))
}

/// Returns whether PyTorch summarizes a tensor of that shape.
pub(crate) fn is_summarized(shape: &[usize]) -> bool {
    shape.iter().product::<usize>() > THRESHOLD
}

/// `get_summarized_data`: the bytes of the first and last three of every dimension that is longer than six.
fn edges(bytes: &[u8], shape: &[usize], size: usize) -> Vec<u8> {
    let mut offsets = vec![0];
    for &n in shape {
        let shown =
            if is_cut(n, true) { vec![0, 1, 2, n - 3, n - 2, n - 1] } else { (0..n).collect() };
        let below = |offset: usize| shown.iter().map(move |at| offset * n + at);
        offsets = offsets.into_iter().flat_map(below).collect();
    }
    offsets.iter().flat_map(|offset| &bytes[offset * size..][..size]).copied().collect()
}

/// What is printed of a tensor.
pub(crate) struct Text<'a> {
    pub(crate) dtype: &'a PyTorchDtype,
    pub(crate) shape: &'a [usize],
    /// The bytes of the elements, or where they are summarized of those at the edges.
    pub(crate) shown: &'a [u8],
    pub(crate) summarize: bool,
}

impl Text<'_> {
    /// `_str_intern`: all of it, with `before` and `after` as further suffixes, before and after those of the
    /// tensor itself.
    pub(crate) fn repr(&self, before: Vec<String>, after: Vec<String>) -> String {
        let mut suffixes = before;
        let empty = self.shape.contains(&0);
        if empty && self.shape.len() != 1 {
            let sizes = self.shape.iter().map(usize::to_string).collect::<Vec<_>>();
            suffixes.push(format!("size=({})", sizes.join(", ")));
        }
        // The elements tell the default dtypes apart; where there are none, only float32 is the default.
        let told = if empty { self.dtype.name == "torch.float32" } else { self.dtype.is_default };
        if !told {
            suffixes.push(format!("dtype={}", self.dtype.name));
        }
        suffixes.extend(after);
        add_suffixes(format!("{PREFIX}{}", self.elements(PREFIX.len())), &suffixes)
    }

    /// What stands between the parentheses: the elements in brackets, as if `indent` characters stood before
    /// them.
    pub(crate) fn elements(&self, indent: usize) -> String {
        if self.shape.contains(&0) {
            return "[]".to_owned();
        }
        let column = Column::new((self.dtype.decode)(self.shown));
        column.nested(&column.cells, self.shape, indent, self.summarize)
    }
}

/// `_add_suffixes`: after the elements, or on a line of its own where it would not fit.
fn add_suffixes(mut text: String, suffixes: &[String]) -> String {
    // PyTorch counts one more than the last line has, and two more where it is the only line.
    let mut column = text.rfind('\n').map_or(text.len() + 2, |newline| text.len() - newline + 1);
    for suffix in suffixes {
        if column + suffix.len() + 2 > LINEWIDTH {
            text += &format!(",\n{}{suffix}", " ".repeat(PREFIX.len()));
            column = PREFIX.len() + suffix.len();
        } else {
            text += &format!(", {suffix}");
            column += suffix.len() + 2;
        }
    }
    text + ")"
}

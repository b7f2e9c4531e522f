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
pub(crate) use dtype::{Elements, PyTorchDtype};
pub use float::repr_float;

/// The number of elements above which a tensor is summarized, which is PyTorch's print option `threshold`.
const THRESHOLD: usize = 1000;
const LINEWIDTH: usize = 80;
/// The largest number of dimensions with which PyTorch itself can index a tensor.
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
/// Returns an error if PyTorch has no such tensor: if PyTorch lacks its dtype, if it has more than 64 dimensions,
/// or if its sizes overflow.
pub fn repr_view(view: &TensorView) -> Result<String> {
    let dtype = PyTorchDtype::of(view.dtype())
        .with_context(|| format!("PyTorch has no dtype {}", view.dtype()))?;
    let mut shape = view.shape().to_vec();
    if view.dtype() == Dtype::F4 {
        // An element in PyTorch is a pair of floats of 4 bits.
        let last = shape.last_mut().filter(|last| **last % 2 == 0);
        *last.context("PyTorch has floats of 4 bits only in pairs")? /= 2;
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

/// Returns the bytes that are shown of a summarized tensor, as PyTorch's `get_summarized_data` does: the first and
/// last three slices along every dimension that is longer than six.
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

/// The parts of a tensor that are printed.
pub(crate) struct Text<'a> {
    pub(crate) dtype: &'a PyTorchDtype,
    pub(crate) shape: &'a [usize],
    /// The bytes of the elements or, if the tensor is summarized, of those at the edges.
    pub(crate) shown: &'a [u8],
    pub(crate) summarize: bool,
}

impl Text<'_> {
    /// Returns the whole text, as PyTorch's `_str_intern` does. `before` and `after` are further suffixes, which
    /// stand before and after those of the tensor itself.
    pub(crate) fn repr(&self, before: Vec<String>, after: Vec<String>) -> String {
        let mut suffixes = before;
        let empty = self.shape.contains(&0);
        if empty && self.shape.len() != 1 {
            let sizes = self.shape.iter().map(usize::to_string).collect::<Vec<_>>();
            suffixes.push(format!("size=({})", sizes.join(", ")));
        }
        // The elements tell the default dtypes apart. Without elements, only float32 is a default.
        let told = if empty { self.dtype.name == "torch.float32" } else { self.dtype.is_default };
        if !told {
            suffixes.push(format!("dtype={}", self.dtype.name));
        }
        suffixes.extend(after);
        add_suffixes(format!("{PREFIX}{}", self.elements(PREFIX.len())), &suffixes)
    }

    /// Returns the elements in brackets. The first line is assumed to begin after `indent` characters.
    pub(crate) fn elements(&self, indent: usize) -> String {
        if self.shape.contains(&0) {
            return "[]".to_owned();
        }
        let column = Column::new((self.dtype.decode)(self.shown));
        column.nested(&column.cells, self.shape, indent, self.summarize)
    }
}

/// Appends the suffixes as PyTorch's `_add_suffixes` does, each on a new line if it would not fit.
fn add_suffixes(mut text: String, suffixes: &[String]) -> String {
    // PyTorch counts one character more than the last line has, and two more if it is the only line.
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

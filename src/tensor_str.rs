//! `repr` of a tensor as Python prints it, byte for byte, with PyTorch's default print options.
//!
//! Ported from [`torch/_tensor_str.py`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/_tensor_str.py)
//! for the dense dtypes that [`dtype_name`] lists.

use tch::{Device, Kind, TchError, Tensor};

use crate::device;
use crate::libtorch::grad_fn_name;
use crate::python_float;

const THRESHOLD: usize = 1000;
const EDGEITEMS: usize = 3;
const LINEWIDTH: usize = 80;
/// As deep as PyTorch itself indexes a tensor.
const MAX_DIM: usize = 64;

const PREFIX: &str = "tensor(";

/// What Python's `repr(tensor)` returns, such as `tensor([[ 1., -1.]], requires_grad=True)`. An
/// undefined tensor (`.grad` before a backward pass) is Python's `None`.
///
/// # Errors
/// [`TchError::Kind`] for a tensor that is sparse (COO), of a dtype other than float16, bfloat16, float32,
/// float64, bool, uint8 or a signed integer, or of more than 64 dimensions; libtorch's own for any
/// other layout.
pub fn repr(tensor: &Tensor) -> Result<String, TchError> {
    if !tensor.defined() {
        return Ok("None".to_owned());
    }
    let kind = tensor.f_kind()?;
    let dtype = dtype_name(kind)
        .ok_or_else(|| TchError::Kind(format!("cannot print a tensor of dtype {kind:?}")))?;
    if tensor.is_sparse() || tensor.is_mkldnn() {
        return Err(TchError::Kind("cannot print a tensor that is not strided".to_owned()));
    }
    let shape = tensor.size().iter().map(|&n| n as usize).collect::<Vec<_>>();
    if shape.len() > MAX_DIM {
        return Err(TchError::Kind(format!("cannot print a tensor of {} dimensions", shape.len())));
    }

    let empty = shape.contains(&0);
    let mut suffixes = Vec::new();
    // The CPU is the default.
    if tensor.device() != Device::Cpu {
        suffixes.push(format!("device='{}'", device::name(tensor.device())));
    }
    if empty && shape.len() != 1 {
        let sizes = shape.iter().map(usize::to_string).collect::<Vec<_>>();
        suffixes.push(format!("size=({})", sizes.join(", ")));
    }
    // The elements tell float32, int64 and bool apart; where there are none, only float32 is taken
    // as read.
    let is_default =
        matches!(kind, Kind::Float) || !empty && matches!(kind, Kind::Int64 | Kind::Bool);
    if !is_default {
        suffixes.push(format!("dtype={dtype}"));
    }
    if let Some(name) = grad_fn_name(tensor)? {
        suffixes.push(format!("grad_fn=<{name}>"));
    } else if tensor.requires_grad() {
        suffixes.push("requires_grad=True".to_owned());
    }

    let summarize = shape.iter().product::<usize>() > THRESHOLD;
    let elements = elements(tensor, PREFIX.len(), summarize)?;
    Ok(add_suffixes(format!("{PREFIX}{elements}"), &suffixes))
}

/// What stands between the parentheses: the elements in brackets, as if `indent` characters stood before
/// them; if they are to be summarized, the first and last three of every dimension longer than six.
pub(crate) fn elements(
    tensor: &Tensor,
    indent: usize,
    summarize: bool,
) -> Result<String, TchError> {
    let shape = tensor.size().iter().map(|&n| n as usize).collect::<Vec<_>>();
    if shape.contains(&0) {
        return Ok("[]".to_owned());
    }
    let shown = if summarize { edges(tensor)? } else { tensor.f_detach()? };
    let column = Column::new(&shown, tensor.f_kind()?)?;
    Ok(column.nested(&column.cells, &shape, indent, summarize))
}

/// PyTorch's name of a dtype that [`repr`] prints.
fn dtype_name(kind: Kind) -> Option<&'static str> {
    Some(match kind {
        Kind::Half => "torch.float16",
        Kind::BFloat16 => "torch.bfloat16",
        Kind::Float => "torch.float32",
        Kind::Double => "torch.float64",
        Kind::Uint8 => "torch.uint8",
        Kind::Int8 => "torch.int8",
        Kind::Int16 => "torch.int16",
        Kind::Int => "torch.int32",
        Kind::Int64 => "torch.int64",
        Kind::Bool => "torch.bool",
        _ => return None,
    })
}

/// `get_summarized_data`: the first and last three of every dimension that is longer than six.
fn edges(tensor: &Tensor) -> Result<Tensor, TchError> {
    let mut edges = tensor.f_detach()?;
    for (dim, &n) in tensor.size().iter().enumerate() {
        if is_cut(n as usize, true) {
            let index =
                Tensor::from_slice(&[0, 1, 2, n - 3, n - 2, n - 1]).f_to_device(tensor.device())?;
            edges = edges.f_index_select(dim as i64, &index)?;
        }
    }
    Ok(edges)
}

fn is_cut(n: usize, summarize: bool) -> bool {
    summarize && n > 2 * EDGEITEMS
}

/// `_Formatter`: the elements in order, each as text, padded to the width that a look at them all
/// gives.
struct Column {
    cells: Vec<String>,
    width: usize,
}

impl Column {
    fn new(tensor: &Tensor, kind: Kind) -> Result<Column, TchError> {
        let flat = tensor.f_to_device(Device::Cpu)?.f_reshape(-1)?;
        let mut column = match kind {
            Kind::Half | Kind::BFloat16 | Kind::Float | Kind::Double => {
                // Widened without loss, as Python's `item()` does.
                Column::of_floats(&Vec::<f64>::try_from(flat.f_to_kind(Kind::Double)?)?)
            }
            Kind::Bool => {
                // By its byte: a file can hold a bool that is neither 0 nor 1.
                let bytes = Vec::<u8>::try_from(flat.f_view_dtype(Kind::Uint8)?)?;
                let python = |byte| if byte == 0 { "False" } else { "True" };
                Column::as_wide_as_its_widest(bytes.into_iter().map(python))
            }
            _ => Column::as_wide_as_its_widest(Vec::<i64>::try_from(flat.f_to_kind(Kind::Int64)?)?),
        };
        for cell in &mut column.cells {
            *cell = format!("{cell:>width$}", width = column.width);
        }
        Ok(column)
    }

    fn as_wide_as_its_widest(values: impl IntoIterator<Item = impl ToString>) -> Column {
        let cells = values.into_iter().map(|value| value.to_string()).collect::<Vec<_>>();
        let width = cells.iter().map(String::len).max().unwrap_or(1);
        Column { cells, width }
    }

    /// Zeros, nan and inf decide nothing, so that they may stand out of the column.
    fn of_floats(values: &[f64]) -> Column {
        let decides = |value: &f64| value.is_finite() && *value != 0.;
        let deciding = || values.iter().copied().filter(decides);
        let max = deciding().map(f64::abs).fold(0., f64::max);
        let min = deciding().map(f64::abs).fold(f64::INFINITY, f64::min);
        let format = if max == 0. {
            python_float::integer
        } else if max / min > 1000. || max > 1e8 || min < 1e-4 {
            python_float::scientific
        } else if deciding().all(|value| value == value.ceil()) {
            python_float::integer
        } else {
            python_float::fixed
        };
        let width = deciding().map(|value| format(value).len()).max().unwrap_or(1);
        Column { cells: values.iter().copied().map(format).collect(), width }
    }

    /// `_tensor_str_with_formatter`: `cells`, which are a tensor of `shape` or its edges, in brackets.
    fn nested(&self, cells: &[String], shape: &[usize], indent: usize, summarize: bool) -> String {
        let (n, inner) = match shape {
            [] => return cells.concat(),
            [n] => return self.vector(cells, *n, indent, summarize),
            [n, inner @ ..] => (*n, inner),
        };
        let cut = is_cut(n, summarize);
        let shown = if cut { 2 * EDGEITEMS } else { n };
        let mut slices = cells
            .chunks(cells.len() / shown)
            .map(|cells| self.nested(cells, inner, indent + 1, summarize))
            .collect::<Vec<_>>();
        if cut {
            slices.insert(EDGEITEMS, "...".to_owned());
        }
        let separator = format!(",{}{}", "\n".repeat(inner.len()), " ".repeat(indent + 1));
        format!("[{}]", slices.join(&separator))
    }

    /// `_vector_str`: as many cells to a line as fit.
    fn vector(&self, cells: &[String], n: usize, indent: usize, summarize: bool) -> String {
        let per_line = (LINEWIDTH.saturating_sub(indent) / (self.width + 2)).max(1);
        let mut cells = cells.iter().map(String::as_str).collect::<Vec<_>>();
        if is_cut(n, summarize) {
            cells.insert(EDGEITEMS, " ...");
        }
        let lines = cells.chunks(per_line).map(|line| line.join(", ")).collect::<Vec<_>>();
        format!("[{}]", lines.join(&format!(",\n{}", " ".repeat(indent + 1))))
    }
}

/// `_add_suffixes`: after the elements, or on a line of its own where it would not fit.
fn add_suffixes(mut text: String, suffixes: &[String]) -> String {
    // As PyTorch counts it: one more than the last line has, two where it is the only one.
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

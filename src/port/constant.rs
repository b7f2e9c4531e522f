//! A constant tensor of a program as an expression of Rust.

use anyhow::{Context, Result};
use tch::{Device, Kind, Tensor};

use super::identifier::file_name;
use super::rust::{float, named};

/// The number of float32 in PyTorch's schema of programs.
const FLOAT: i64 = 7;
/// The largest constant that is written into the source.
const MAX_ELEMENTS: usize = 256;

/// A constant of a program, as it is written.
pub(super) struct Constant {
    /// An expression that is a `Result`.
    pub(super) expression: String,
    /// The file beside the source that it reads, and what it holds.
    pub(super) file: Option<(String, Vec<u8>)>,
    /// The number that it is, if it is one of float32.
    single: Option<f32>,
}

/// Constants are the same whatever their files are called.
impl PartialEq for Constant {
    fn eq(&self, other: &Constant) -> bool {
        match (&self.file, &other.file) {
            (Some((own, bytes)), Some((name, of_other))) => {
                bytes == of_other && self.expression.replace(own, name) == other.expression
            }
            (None, None) => self.expression == other.expression,
            _ => false,
        }
    }
}

impl Constant {
    /// Writes a tensor into the source, or if it is large into a file of its own.
    ///
    /// # Errors
    /// Returns an error if its dtype is not supported.
    pub(super) fn new(name: &str, tensor: &Tensor) -> Result<Constant> {
        let (kind, sizes) = (tensor.f_kind()?, tensor.size());
        if tensor.numel() <= MAX_ELEMENTS {
            let is_one = kind == Kind::Float && sizes.is_empty();
            let single = if is_one { Some(f32::try_from(tensor)?) } else { None };
            return Ok(Constant { expression: expression(tensor)?, file: None, single });
        }
        let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_contiguous()?;
        let mut bytes = vec![0; tensor.numel() * kind.elt_size_in_bytes()];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        let file = format!("{}.bin", file_name(name));
        let expression = format!(
            "Tensor::f_from_data_size(include_bytes!({file:?}), &{sizes:?}, Kind::{kind:?})"
        );
        Ok(Constant { expression, file: Some((file, bytes)), single: None })
    }

    /// Writes it as a tensor that is no `Result`, as tch's methods that panic return it.
    pub(super) fn value(&self) -> String {
        self.expression.replace("?.f_", ".").replace("Tensor::f_", "Tensor::")
    }

    /// Writes zeros of its sizes in its place, if it is in a file.
    pub(super) fn zeros(&self) -> Option<String> {
        self.file.as_ref()?;
        let (_, rest) = self.expression.split_once("), &")?;
        let (sizes, kind) = rest.trim_end_matches(')').rsplit_once(", ")?;
        Some(format!("Tensor::zeros({sizes}, ({kind}, Device::Cpu))"))
    }

    /// Returns the number that fills a tensor with this constant, by the tensor's dtype in PyTorch's schema of programs.
    pub(super) fn number(&self, dtype: Option<i64>) -> Option<f64> {
        let single = self.single.filter(|single| single.is_finite())?;
        // The shortest decimal number of a float32 is another double than it, and the same float32.
        let short = format!("{single:?}").parse().ok();
        if dtype == Some(FLOAT) { short } else { Some(f64::from(single)) }
    }
}

/// Writes the tensor as an expression that is a `Result`.
fn expression(tensor: &Tensor) -> Result<String> {
    let count = tensor.numel();
    let kind = tensor.f_kind()?;
    let flat = tensor.f_detach()?.f_reshape([-1])?;
    let elements = match kind {
        Kind::Bool => {
            let values = Vec::<bool>::try_from(&flat)?;
            values.iter().map(ToString::to_string).collect::<Vec<_>>()
        }
        Kind::Uint8 | Kind::Int8 | Kind::Int16 | Kind::Int | Kind::Int64 => {
            let values = Vec::<i64>::try_from(&flat.f_to_kind(Kind::Int64)?)?;
            values.iter().map(|value| format!("{value}i64")).collect()
        }
        Kind::Float => {
            let values = Vec::<f32>::try_from(&flat)?;
            values.iter().map(|value| single(*value)).collect()
        }
        Kind::Half | Kind::BFloat16 | Kind::Double => {
            // Every element of these dtypes is a double.
            let values = Vec::<f64>::try_from(&flat.f_to_kind(Kind::Double)?)?;
            values.iter().map(|value| float(*value)).map(typed).collect()
        }
        other => None.with_context(|| format!("its dtype is {other:?}"))?,
    };
    let mut text = format!("Tensor::f_from_slice(&[{}])", elements.join(", "));
    if elements.is_empty() {
        text = "Tensor::f_from_slice::<f64>(&[])".to_owned();
    }
    if !matches!(kind, Kind::Bool | Kind::Int64 | Kind::Float | Kind::Double) {
        text += &format!("?.f_to_kind(Kind::{kind:?})");
    }
    if tensor.size() != [count as i64] {
        let sizes = tensor.size().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        text += &format!("?.f_view([{sizes}])");
    }
    Ok(text)
}

/// Writes a float32, of which every bit comes back.
fn single(value: f32) -> String {
    match value {
        value if value.is_nan() => "f32::NAN".to_owned(),
        f32::INFINITY => "f32::INFINITY".to_owned(),
        f32::NEG_INFINITY => "f32::NEG_INFINITY".to_owned(),
        value => match named(f64::from(value), |constant| f64::from(constant as f32)) {
            Some(name) => name.replace("f64::", "f32::"),
            None => format!("{value:?}f32"),
        },
    }
}

/// Says that a float is a double.
fn typed(text: String) -> String {
    if text.starts_with("f64") { text } else { format!("{}f64", text.trim_end_matches('.')) }
}

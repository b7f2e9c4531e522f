//! A constant tensor of a program as an expression of Rust.

use anyhow::{Context, Result};
use tch::{Device, Kind, Tensor};

use super::identifier::file_name;
use super::pattern;
use super::rust::{FLOAT, float, named};

/// The largest constant that is written into the source of a crate.
const MAX_ELEMENTS: usize = 63;
/// The same of one whose numbers rustfmt puts on a line each.
const MAX_LONG_ELEMENTS: usize = 16;
/// The longest numbers of which rustfmt puts several on a line.
const MAX_WIDTH: usize = 10;
/// The largest that is written into a source without files beside it.
const MAX_ELEMENTS_OF_ONE_FILE: usize = 256;

/// A constant of a program, as it is written.
pub(super) struct Constant {
    /// An expression that is a `Result`.
    pub(super) expression: String,
    /// The file beside the source that it reads, and what it holds.
    pub(super) file: Option<(String, Vec<u8>)>,
    /// An expression without that file, if it is not too large for one.
    literal: Option<String>,
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
    /// Returns the errors of libtorch.
    pub(super) fn new(name: &str, tensor: &Tensor) -> Result<Constant> {
        let (kind, sizes) = (tensor.f_kind()?, tensor.size());
        let is_short = tensor.numel() <= MAX_ELEMENTS_OF_ONE_FILE;
        let literal = if is_short { literal(tensor)? } else { None };
        let is_long = |text: &String| {
            let mut numbers = text.split(['[', ']', ',']).map(str::trim);
            numbers.any(|number| number.len() > MAX_WIDTH && !number.contains("f_"))
        };
        let most =
            if literal.as_ref().is_some_and(is_long) { MAX_LONG_ELEMENTS } else { MAX_ELEMENTS };
        let is_complex = matches!(kind, Kind::ComplexFloat | Kind::ComplexDouble);
        let numbers = if is_complex { 2 * tensor.numel() } else { tensor.numel() };
        if let (true, Some(expression)) = (numbers <= most, &literal) {
            let is_one = kind == Kind::Float && sizes.is_empty();
            let single = if is_one { Some(f32::try_from(tensor)?) } else { None };
            let expression = expression.clone();
            return Ok(Constant { expression, file: None, literal, single });
        }
        if let Some(expression) = pattern::expression(tensor) {
            let literal = Some(expression.clone());
            return Ok(Constant { expression, file: None, literal, single: None });
        }
        let tensor = tensor.f_detach()?.f_resolve_conj()?.f_resolve_neg()?;
        let tensor = tensor.f_to_device(Device::Cpu)?.f_contiguous()?;
        let mut bytes = vec![0; tensor.numel() * kind.elt_size_in_bytes()];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        let file = format!("{}.bin", file_name(name));
        let expression = format!(
            "Tensor::f_from_data_size(include_bytes!({file:?}), &{sizes:?}, Kind::{kind:?})"
        );
        Ok(Constant { expression, file: Some((file, bytes)), literal, single: None })
    }

    /// Replaces what reads its file in a source by the numbers themselves.
    ///
    /// # Errors
    /// Returns an error if they are too many for a source.
    pub(super) fn without_file(&self, source: String) -> Result<String> {
        if self.file.is_none()
            || !source.contains(&self.value()) && !source.contains(&self.expression)
        {
            return Ok(source);
        }
        let literal = self.literal.as_deref();
        let literal = literal
            .context("it is too large for source: with --output it is in a file of its own")?;
        let source = source.replace(&self.expression, literal);
        Ok(source.replace(&self.value(), &infallible(literal)))
    }

    /// Writes it as a tensor that is no `Result`, as tch's methods that panic return it.
    pub(super) fn value(&self) -> String {
        infallible(&self.expression)
    }

    /// Writes zeros of its sizes in its place, if it is too large for a source without files.
    pub(super) fn zeros(&self) -> Option<String> {
        self.file.as_ref().filter(|_| self.literal.is_none())?;
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

/// Writes an expression with tch's methods that panic.
fn infallible(expression: &str) -> String {
    expression.replace("?.f_", ".").replace("Tensor::f_", "Tensor::")
}

/// Writes the tensor as an expression that is a `Result`, if its dtype has numbers in Rust.
fn literal(tensor: &Tensor) -> Result<Option<String>> {
    let (kind, mut sizes) = (tensor.f_kind()?, tensor.size());
    let mut flat = tensor.f_detach()?;
    if matches!(kind, Kind::ComplexFloat | Kind::ComplexDouble) {
        flat = flat.f_view_as_real()?;
        sizes.push(2);
    }
    let flat = flat.f_reshape([-1])?;
    let count = flat.numel();
    let elements = match kind {
        Kind::Bool => {
            let values = Vec::<bool>::try_from(&flat)?;
            values.iter().map(ToString::to_string).collect::<Vec<_>>()
        }
        Kind::Uint8 | Kind::Int8 | Kind::Int16 | Kind::Int | Kind::Int64 => {
            let values = Vec::<i64>::try_from(&flat.f_to_kind(Kind::Int64)?)?;
            typed(values.iter().map(ToString::to_string).collect(), "i64")
        }
        Kind::Float | Kind::ComplexFloat => {
            let values = Vec::<f32>::try_from(&flat)?;
            typed(values.iter().map(|value| single(*value)).collect(), "f32")
        }
        Kind::Half | Kind::BFloat16 | Kind::Double | Kind::ComplexDouble => {
            // Every element of these dtypes is a double.
            let values = Vec::<f64>::try_from(&flat.f_to_kind(Kind::Double)?)?;
            typed(values.iter().map(|value| float(*value)).collect(), "f64")
        }
        _ => return Ok(None),
    };
    let mut text = format!("Tensor::f_from_slice(&[{}])", elements.join(", "));
    if elements.is_empty() {
        text = "Tensor::f_from_slice::<f64>(&[])".to_owned();
    }
    let own = matches!(
        kind,
        Kind::Half | Kind::BFloat16 | Kind::Uint8 | Kind::Int8 | Kind::Int16 | Kind::Int
    );
    let is_empty = elements.is_empty() && !matches!(kind, Kind::Double | Kind::ComplexDouble);
    if own || is_empty {
        let kind = if kind == Kind::ComplexFloat { Kind::Float } else { kind };
        text += &format!("?.f_to_kind(Kind::{kind:?})");
    }
    if sizes != [count as i64] {
        let sizes = sizes.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        text += &format!("?.f_view([{sizes}])");
    }
    if matches!(kind, Kind::ComplexFloat | Kind::ComplexDouble) {
        text += "?.f_view_as_complex()";
    }
    Ok(Some(text))
}

/// Writes a float32, of which every bit comes back.
fn single(value: f32) -> String {
    match value {
        value if value.is_nan() => "f32::NAN".to_owned(),
        f32::INFINITY => "f32::INFINITY".to_owned(),
        f32::NEG_INFINITY => "f32::NEG_INFINITY".to_owned(),
        value => match named(f64::from(value), |constant| f64::from(constant as f32)) {
            Some(name) => name.replace("f64::", "f32::"),
            None => {
                let text = format!("{value:?}");
                text.strip_suffix(".0").map_or(text.clone(), |whole| format!("{whole}."))
            }
        },
    }
}

/// Says of the first number of which type all are.
fn typed(mut numbers: Vec<String>, of: &str) -> Vec<String> {
    if let Some(first) = numbers.first_mut().filter(|first| !first.contains("::")) {
        *first = format!("{}{of}", first.trim_end_matches('.'));
    }
    numbers
}

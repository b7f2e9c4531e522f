//! A large constant that one operator of PyTorch makes, such as positions or a causal mask.

use anyhow::Result;
use tch::{Device, Kind, Tensor};

use super::rust::float;
use crate::torch::hash_of;

/// Integers below it are floats to the bit.
const MAX_INTEGER: f64 = 1e15;

/// Writes a tensor as the operator that makes it, as an expression that is a `Result`. Returns `None` if none does to the
/// bit.
pub(super) fn expression(tensor: &Tensor) -> Option<String> {
    // tch's methods panic where an operator that is given a number fails, so it is asked for nothing that can.
    use Kind::{BFloat16, Bool, Double, Float, Half, Int, Int8, Int16, Int64, Uint8};
    let kind = tensor.f_kind().ok()?;
    if ![Bool, Uint8, Int8, Int16, Int, Int64, Half, BFloat16, Float, Double].contains(&kind) {
        return None;
    }
    same(tensor).or_else(|| steps(tensor)).or_else(|| triangle(tensor))
}

/// Returns the text if it stands for the same tensor.
fn checked(tensor: &Tensor, made: Result<Tensor>, text: String) -> Option<String> {
    let made = made.ok()?;
    let is_same = made.size() == tensor.size()
        && made.f_kind().ok()? == tensor.f_kind().ok()?
        && hash_of(&made)? == hash_of(tensor)?;
    is_same.then_some(text)
}

/// Returns the elements, row by row.
fn flat(tensor: &Tensor) -> Option<Tensor> {
    tensor.f_detach().ok()?.f_reshape([-1]).ok()
}

/// Returns an element as a number, unless that is an integer that no float is for certain.
fn number(flat: &Tensor, at: i64) -> Option<f64> {
    let number = flat.f_double_value(&[at]).ok()?;
    let is_float =
        matches!(flat.f_kind().ok()?, Kind::Half | Kind::BFloat16 | Kind::Float | Kind::Double);
    (is_float || number.abs() < MAX_INTEGER).then_some(number)
}

/// Writes what has one number at all places.
fn same(tensor: &Tensor) -> Option<String> {
    let first = number(&flat(tensor)?, 0)?;
    let (sizes, kind) = (tensor.size(), tensor.f_kind().ok()?);
    let made = Tensor::f_full(&sizes, first, (kind, Device::Cpu));
    let number = float(first);
    let text = format!("Tensor::f_full({sizes:?}, {number}, (Kind::{kind:?}, Device::Cpu))");
    checked(tensor, made.map_err(Into::into), text)
}

/// Writes whole numbers with the same step between them.
fn steps(tensor: &Tensor) -> Option<String> {
    let (sizes, kind, flat) = (tensor.size(), tensor.f_kind().ok()?, flat(tensor)?);
    let (first, second) = (number(&flat, 0)?, number(&flat, 1)?);
    let is_whole = |x: f64| x.fract() == 0. && x.abs() < MAX_INTEGER;
    if kind == Kind::Bool || !is_whole(first) || !is_whole(second) || first == second {
        return None;
    }
    let (start, step) = (first as i64, (second - first) as i64);
    let end = start + step * flat.numel() as i64;
    let of = format!("(Kind::{kind:?}, Device::Cpu)");
    let mut text = match (start, step) {
        (0, 1) => format!("Tensor::f_arange({end}, {of})"),
        (_, 1) => format!("Tensor::f_arange_start({start}, {end}, {of})"),
        _ => format!("Tensor::f_arange_start_step({start}, {end}, {step}, {of})"),
    };
    if sizes.len() != 1 {
        text += &format!("?.f_view({sizes:?})");
    }
    let made = Tensor::f_arange_start_step(start, end, step, (kind, Device::Cpu));
    checked(tensor, made.and_then(|made| made.f_view(&sizes[..])).map_err(Into::into), text)
}

/// Writes one number above or below a diagonal, and zero elsewhere, as masks have them.
fn triangle(tensor: &Tensor) -> Option<String> {
    let (sizes, kind, flat) = (tensor.size(), tensor.f_kind().ok()?, flat(tensor)?);
    let [.., rows, columns] = sizes[..] else { return None };
    let at_ends = [(false, (rows - 1) * columns), (true, columns - 1)];
    at_ends.into_iter().find_map(|(is_upper, corner)| {
        let value = number(&flat, corner)?;
        let full = Tensor::f_full([rows, columns], value, (kind, Device::Cpu)).ok()?;
        [0, 1, -1].into_iter().find_map(|diagonal| {
            let made = match is_upper {
                true => full.f_triu(diagonal),
                false => full.f_tril(diagonal),
            };
            let name = if is_upper { "triu" } else { "tril" };
            let of =
                format!("([{rows}, {columns}], {}, (Kind::{kind:?}, Device::Cpu))", float(value));
            let mut text = format!("Tensor::f_full{of}?.f_{name}({diagonal})");
            if sizes.len() != 2 {
                text += &format!("?.f_view({sizes:?})");
            }
            let made = made.and_then(|made| made.f_view(&sizes[..]));
            checked(tensor, made.map_err(Into::into), text)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: Device = Device::Cpu;

    fn of(tensor: &Tensor) -> Option<String> {
        expression(tensor).map(|text| text.replace("Device::Cpu", "CPU"))
    }

    #[test]
    fn what_an_operator_makes_is_written_as_that() {
        let positions = Tensor::arange(512, (Kind::Int64, CPU)).view([1, 512]);
        let text = "Tensor::f_arange(512, (Kind::Int64, CPU))?.f_view([1, 512])";
        assert_eq!(of(&positions).as_deref(), Some(text));
        let causal = Tensor::ones([9, 9], (Kind::Bool, CPU)).tril(0).view([1, 1, 9, 9]);
        let text = "Tensor::f_full([9, 9], 1., (Kind::Bool, CPU))?.f_tril(0)?.f_view([1, 1, 9, 9])";
        assert_eq!(of(&causal).as_deref(), Some(text));
        let mask = Tensor::full([9, 9], f64::NEG_INFINITY, (Kind::Float, CPU)).triu(1);
        let text = "Tensor::f_full([9, 9], f64::NEG_INFINITY, (Kind::Float, CPU))?.f_triu(1)";
        assert_eq!(of(&mask).as_deref(), Some(text));
        let half = Tensor::full([8, 9], 0.5, (Kind::BFloat16, CPU));
        let text = "Tensor::f_full([8, 9], 0.5, (Kind::BFloat16, CPU))";
        assert_eq!(of(&half).as_deref(), Some(text));
    }

    #[test]
    fn what_none_makes_to_the_bit_is_not() {
        let x = Tensor::arange(80, (Kind::Float, CPU));
        for other in [
            x.shallow_clone() * 0.1,
            Tensor::cat(&[&x, &x], 0),
            Tensor::from_slice(&[0f32, -0.]).repeat([40]),
            Tensor::zeros([80], (Kind::ComplexFloat, CPU)),
        ] {
            assert_eq!(of(&other), None);
        }
    }
}

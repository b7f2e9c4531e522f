//! What a program asks of its inputs: their dtypes, and the sizes that it was exported for.

use std::collections::HashMap;

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor};

use super::numbers::dtype;
use super::schema::{Range, Size, TensorMeta};
use crate::torch::dtype_name;

/// A tensor that a program takes.
#[derive(Debug)]
pub(super) struct UserInput {
    pub(super) name: String,
    dtype: Kind,
    sizes: Vec<Dimension>,
}

/// What a program asks of the size of a dimension.
#[derive(Debug)]
enum Dimension {
    Fixed(i64),
    /// Dimensions of one name have one size, from `min` to `max`.
    Named {
        name: String,
        min: i64,
        max: i64,
    },
    /// A size that follows from others, which the guards check.
    Computed,
}

impl UserInput {
    pub(super) fn new(
        name: &str,
        meta: Option<&TensorMeta>,
        ranges: &HashMap<String, Range>,
    ) -> Result<UserInput> {
        let meta = meta.with_context(|| format!("the input {name} has no shape"))?;
        let sizes = meta.sizes.iter().map(|size| match size {
            Size::AsInt(size) => Dimension::Fixed(*size),
            Size::AsExpr(expression) => match symbol(&expression.expr_str) {
                None => Dimension::Computed,
                Some(symbol) => {
                    let range = ranges.get(symbol);
                    // A least size of 2 is the default, with which torch.export tells sizes from constants:
                    // PyTorch checks no such one.
                    // https://github.com/pytorch/pytorch/blob/v2.13.0/torch/_export/utils.py
                    let min = range.and_then(|range| range.min_val).filter(|min| *min > 2);
                    let min = min.unwrap_or(0);
                    let max = range.and_then(|range| range.max_val).unwrap_or(i64::MAX);
                    Dimension::Named { name: symbol.to_owned(), min, max }
                }
            },
        });
        let sizes = sizes.collect();
        Ok(UserInput { name: name.to_owned(), dtype: dtype(meta.dtype)?.1, sizes })
    }
}

/// Returns the symbol of an expression that is nothing else: `s77` or `Symbol('s77', positive=True, integer=True)`.
fn symbol(expression: &str) -> Option<&str> {
    let quoted = expression.strip_prefix("Symbol('").and_then(|rest| rest.split_once('\''));
    let symbol = match quoted {
        Some((symbol, rest)) if !rest.trim_end_matches(')').contains(['(', ')']) => symbol,
        Some(_) => return None,
        None => expression,
    };
    symbol.chars().all(|c| c.is_ascii_alphanumeric() || c == '_').then_some(symbol)
}

/// Checks the tensors that a program is given.
///
/// # Errors
/// Returns an error that names the input of which the number, the dtype or a size is not as the program asks for.
pub(super) fn check(inputs: &[UserInput], given: &[Tensor]) -> Result<()> {
    let names = || inputs.iter().map(|input| &*input.name).collect::<Vec<_>>().join(", ");
    ensure!(
        inputs.len() == given.len(),
        "the program takes {} tensors ({}), and {} are given",
        inputs.len(),
        names(),
        given.len()
    );
    let mut known = HashMap::<&str, i64>::new();
    for (input, tensor) in inputs.iter().zip(given) {
        let name = &input.name;
        let (kind, expected) = (tensor.f_kind()?, input.dtype);
        ensure!(
            kind == expected,
            "the input {name} is of dtype {}, not {}",
            dtype_name(kind),
            dtype_name(expected)
        );
        let sizes = tensor.size();
        let (found, rank) = (sizes.len(), input.sizes.len());
        ensure!(found == rank, "the input {name} has {found} dimensions, not {rank}");
        for (at, (&size, dimension)) in sizes.iter().zip(&input.sizes).enumerate() {
            let of = format!("the size of dimension {at} of the input {name} is {size}");
            match dimension {
                Dimension::Fixed(expected) => ensure!(size == *expected, "{of}, not {expected}"),
                Dimension::Named { name, min, max } => {
                    ensure!(size >= *min, "{of}, and at least {min} is allowed");
                    ensure!(size <= *max, "{of}, and at most {max} is allowed");
                    let first = *known.entry(name).or_insert(size);
                    ensure!(size == first, "{of}, and an equal dimension has size {first}");
                }
                Dimension::Computed => {}
            }
        }
    }
    Ok(())
}

//! Expressions of Rust as text, and what is known of them.

use std::f64::consts;

use crate::program::numbers;

/// An expression, and what a reader of it has to do to have its value.
#[derive(Clone, Debug)]
pub(super) struct Expression {
    pub(super) text: String,
    pub(super) kind: Kind,
    /// Whether it is a `Result`.
    pub(super) fallible: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Kind {
    /// A tensor of its own, such as what a method returns.
    New,
    /// A variable or a field that is a tensor.
    Place,
    /// A `&Tensor`.
    Reference,
    /// Nothing: what a method is called on is changed.
    Nothing,
    /// An integer.
    Int,
    /// A float.
    Float,
    /// A `Vec` or a tuple of tensors.
    Several,
    /// An array of tensors.
    Array,
    /// What tch's LSTM returns: the output, and the two parts of its state.
    OfLstm,
    /// What tch's GRU returns: the output and its state.
    OfGru,
}

impl Expression {
    pub(super) fn new(text: String, kind: Kind, fallible: bool) -> Expression {
        Expression { text, kind, fallible }
    }

    /// The value itself.
    pub(super) fn value(&self) -> String {
        if self.fallible { format!("{}?", self.text) } else { self.text.clone() }
    }

    /// As a `&Tensor`.
    pub(super) fn reference(&self) -> String {
        match self.kind {
            Kind::New | Kind::Place => format!("&{}", self.value()),
            _ => self.value(),
        }
    }

    /// As a tensor of one's own.
    pub(super) fn owned(&self) -> String {
        match self.kind {
            Kind::Reference | Kind::Place => format!("{}.shallow_clone()", self.value()),
            _ => self.value(),
        }
    }

    /// As a float, if it is a number.
    pub(super) fn as_float(&self) -> String {
        let value = self.value();
        match self.kind {
            Kind::Int if value.contains(' ') => format!("({value}) as f64"),
            Kind::Int => format!("{value} as f64"),
            _ => value,
        }
    }

    /// As a `Result`, for the end of a function.
    pub(super) fn result(&self) -> String {
        if self.fallible { self.text.clone() } else { format!("Ok({})", self.owned()) }
    }
}

/// Numbers that Rust has names for; clippy asks for these.
const CONSTANTS: [(&str, f64); 19] = [
    ("E", consts::E),
    ("FRAC_1_PI", consts::FRAC_1_PI),
    ("FRAC_1_SQRT_2", consts::FRAC_1_SQRT_2),
    ("FRAC_2_PI", consts::FRAC_2_PI),
    ("FRAC_2_SQRT_PI", consts::FRAC_2_SQRT_PI),
    ("FRAC_PI_2", consts::FRAC_PI_2),
    ("FRAC_PI_3", consts::FRAC_PI_3),
    ("FRAC_PI_4", consts::FRAC_PI_4),
    ("FRAC_PI_6", consts::FRAC_PI_6),
    ("FRAC_PI_8", consts::FRAC_PI_8),
    ("LN_2", consts::LN_2),
    ("LN_10", consts::LN_10),
    ("LOG2_E", consts::LOG2_E),
    ("LOG2_10", consts::LOG2_10),
    ("LOG10_E", consts::LOG10_E),
    ("LOG10_2", consts::LOG10_2),
    ("PI", consts::PI),
    ("SQRT_2", consts::SQRT_2),
    ("TAU", consts::TAU),
];

/// Returns whether a source has a number that is nearly one that Rust has a name for, of which clippy asks whether it is
/// that one.
pub(super) fn has_near_constant(source: &str) -> bool {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '.' || c == '_';
    source.split(|c| !is_part(c)).any(|word| {
        let number = word.trim_end_matches("f32").trim_end_matches("f64");
        let digits = number.split_once('.').map_or(0, |(_, digits)| digits.len());
        let is_near = |(_, constant): &(&str, f64)| {
            format!("{constant:.digits$}") == number || constant.to_string().starts_with(number)
        };
        digits >= 2 && number.parse::<f64>().is_ok() && CONSTANTS.iter().any(is_near)
    })
}

/// Writes a float as a person does, such as `1e-5` and `0.1`.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "f64::NAN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0. { "f64::INFINITY" } else { "f64::NEG_INFINITY" }.to_owned();
    }
    if let Some(name) = named(value, |constant| constant) {
        return name;
    }
    let (text, short) = (format!("{value:?}"), format!("{value:e}"));
    if short.len() + 3 < text.len() {
        return short;
    }
    text.strip_suffix(".0").map_or(text.clone(), |whole| format!("{whole}."))
}

/// Returns Rust's name for a number; `rounded` is a constant as a number of its type has it.
pub(super) fn named(value: f64, rounded: impl Fn(f64) -> f64) -> Option<String> {
    let (name, _) = CONSTANTS.iter().find(|(_, constant)| rounded(*constant) == value.abs())?;
    let sign = if value < 0. { "-" } else { "" };
    Some(format!("{sign}std::f64::consts::{name}"))
}

/// The number of float32, the dtype of the variables that tch makes by itself, in PyTorch's schema of programs.
pub(super) const FLOAT: i64 = 7;

/// Returns whether a dtype is one of floats, by its number in PyTorch's schema of programs.
pub(super) fn is_float(dtype: i64) -> bool {
    numbers::dtype(dtype).is_ok_and(|(_, kind)| {
        matches!(kind, tch::Kind::Half | tch::Kind::Float | tch::Kind::Double | tch::Kind::BFloat16)
    })
}

/// Returns tch's word for a dtype, by its number in PyTorch's schema of programs.
pub(super) fn kind(dtype: i64) -> Option<String> {
    numbers::dtype(dtype).ok().map(|(_, kind)| format!("Kind::{kind:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_clippy_asks() {
        assert_eq!(float(0.5_f64.sqrt()), "std::f64::consts::FRAC_1_SQRT_2");
        assert_eq!(float(-consts::PI), "-std::f64::consts::PI");
        assert_eq!([1e-5, 2.0, 0.1].map(float), ["1e-5", "2.", "0.1"]);
        assert_eq!([-1e9, 1000.0, 123456.0].map(float), ["-1e9", "1000.", "123456."]);
        assert_eq!(float(f64::NEG_INFINITY), "f64::NEG_INFINITY");
        assert!(has_near_constant("f_from_slice(&[2.71828f32])") && has_near_constant("x + 3.14"));
        assert!(!has_near_constant("f_mul_scalar(0.5)?.f_add_scalar(3.)? + 31.415 + a.3"));
    }
}

//! Expressions of Rust as text, and what is known of them.

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
    /// An integer.
    Int,
    /// A `Vec` or a tuple of tensors.
    Several,
    /// An array of tensors.
    Array,
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
            Kind::Reference | Kind::Int | Kind::Several | Kind::Array => self.value(),
            Kind::New | Kind::Place => format!("&{}", self.value()),
        }
    }

    /// As a tensor of one's own.
    pub(super) fn owned(&self) -> String {
        match self.kind {
            Kind::Reference | Kind::Place => format!("{}.shallow_clone()", self.value()),
            Kind::New | Kind::Int | Kind::Several | Kind::Array => self.value(),
        }
    }

    /// As a `Result`, for the end of a function.
    pub(super) fn result(&self) -> String {
        if self.fallible { self.text.clone() } else { format!("Ok({})", self.owned()) }
    }
}

/// Writes a float as a person does, such as `1e-5` and `0.1`.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "f64::NAN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0. { "f64::INFINITY" } else { "f64::NEG_INFINITY" }.to_owned();
    }
    let text = format!("{value:?}");
    text.strip_suffix(".0").map_or(text.clone(), |whole| format!("{whole}."))
}

/// Returns tch's word for a dtype, by its number in PyTorch's schema of programs.
pub(super) fn kind(dtype: i64) -> Option<String> {
    numbers::dtype(dtype).ok().map(|(_, kind)| format!("Kind::{kind:?}"))
}

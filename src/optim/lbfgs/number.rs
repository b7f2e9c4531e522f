//! A number of Python's, or a tensor of one element: an operation with a tensor rounds to the tensor's dtype.

use std::cmp::Ordering;
use std::ops::{Add, Mul, Neg, Sub};

use anyhow::Result;
use tch::{Device, Kind, Tensor};

#[derive(Clone, Copy, Debug)]
pub(super) struct Number {
    pub(super) value: f64,
    /// The tensor's dtype, or `None` for a number of Python's.
    kind: Option<Kind>,
}

impl From<f64> for Number {
    fn from(value: f64) -> Number {
        Number { value, kind: None }
    }
}

impl Number {
    /// Reads a tensor of one element.
    pub(super) fn read(tensor: &Tensor) -> Result<Number> {
        Ok(Number { value: tensor.f_double_value(&[])?, kind: Some(tensor.f_kind()?) })
    }

    /// Returns a number that was kept as a tensor of `kind`. A number of Python's is kept in float64, in which it
    /// computes as a tensor does.
    pub(super) fn kept(value: f64, kind: Kind) -> Number {
        Number { value, kind: (kind == Kind::Float).then_some(kind) }
    }

    /// Returns the dtype in which the number is kept.
    pub(super) fn kind(self) -> Kind {
        self.kind.unwrap_or(Kind::Double)
    }

    fn rounded(value: f64, kind: Option<Kind>) -> f64 {
        if kind == Some(Kind::Float) { f64::from(value as f32) } else { value }
    }

    /// Computes in the dtype of the tensor, if one of the two is one. The result of an operation in float64 on two
    /// float32 that is rounded to float32 is that of the operation in float32.
    fn with(self, other: Number, operation: impl Fn(f64, f64) -> f64) -> Number {
        let kind = self.kind.or(other.kind);
        let (a, b) = (Number::rounded(self.value, kind), Number::rounded(other.value, kind));
        Number { value: Number::rounded(operation(a, b), kind), kind }
    }

    /// Computes `self / other`. A number of Python's that is divided by a tensor is the tensor's reciprocal times the
    /// number.
    pub(super) fn over(self, other: Number) -> Number {
        match (self.kind, other.kind) {
            (None, Some(_)) => Number::from(1.).with(other, |a, b| a / b) * self,
            _ => self.with(other, |a, b| a / b),
        }
    }

    /// Computes the square root as libtorch does, whose root is not always the nearest number to the true one.
    pub(super) fn sqrt(self) -> Result<Number> {
        let tensor = Tensor::f_full(&[0i64; 0][..], self.value, (self.kind(), Device::Cpu))?;
        Ok(Number { kind: self.kind, ..Number::read(&tensor.f_sqrt()?)? })
    }

    pub(super) fn abs(self) -> Number {
        Number { value: self.value.abs(), ..self }
    }

    /// Returns Python's `min(self, other)`.
    pub(super) fn min(self, other: Number) -> Number {
        if other < self { other } else { self }
    }

    /// Returns Python's `max(self, other)`.
    pub(super) fn max(self, other: Number) -> Number {
        if other > self { other } else { self }
    }
}

impl Neg for Number {
    type Output = Number;

    fn neg(self) -> Number {
        Number { value: -self.value, ..self }
    }
}

macro_rules! operator {
    ($($trait:ident $function:ident $operator:tt)*) => {$(
        impl $trait for Number {
            type Output = Number;

            fn $function(self, other: Number) -> Number {
                self.with(other, |a, b| a $operator b)
            }
        }

        impl $trait<Number> for f64 {
            type Output = Number;

            fn $function(self, other: Number) -> Number {
                Number::from(self).with(other, |a, b| a $operator b)
            }
        }
    )*};
}

operator! {
    Add add +
    Sub sub -
    Mul mul *
}

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}

impl PartialOrd for Number {
    /// Compares in the dtype of the tensor, if one of the two is one.
    fn partial_cmp(&self, other: &Number) -> Option<Ordering> {
        let kind = self.kind.or(other.kind);
        Number::rounded(self.value, kind).partial_cmp(&Number::rounded(other.value, kind))
    }
}

//! The numbers in the source of a class, and where they stand in it.

/// A number of the source that may differ between the modules of a class.
#[derive(Clone, Debug)]
pub(super) struct Hole {
    /// What it could be called.
    pub(super) hint: String,
    pub(super) number: Number,
}

#[derive(Clone, Debug)]
pub(super) enum Number {
    Int(i64),
    Float(f64),
    Bool(bool),
    /// Those of the modules of a list.
    Series(Vec<Number>),
    /// That of a part which a module does not have.
    Any,
}

impl Number {
    /// Returns whether it is a single number.
    pub(super) fn is_one(&self) -> bool {
        !matches!(self, Number::Series(_))
    }

    /// Returns those of the modules of a list.
    pub(super) fn series(&self) -> &[Number] {
        if let Number::Series(series) = self { series } else { &[] }
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Number) -> bool {
        match (self, other) {
            (Number::Int(a), Number::Int(b)) => a == b,
            (Number::Float(a), Number::Float(b)) => a.to_bits() == b.to_bits(),
            (Number::Bool(a), Number::Bool(b)) => a == b,
            (Number::Series(a), Number::Series(b)) => a == b,
            (Number::Any, _) | (_, Number::Any) => true,
            _ => false,
        }
    }
}

impl Hole {
    pub(super) fn int(hint: &str, number: i64) -> Hole {
        Hole { hint: hint.to_owned(), number: Number::Int(number) }
    }
}

/// The place of a number in the source of a class.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// In an argument of the operator that is the n-th item of `forward`.
    Forward { item: usize, argument: String, at: usize },
    /// In a field that `new` makes. The numbers of a list have several parts.
    New { field: String, at: usize, part: usize },
    /// How many modules a list has.
    Count { field: String },
    /// Whether a call has the n-th part that some leave out.
    Has { part: usize },
}

impl Place {
    /// Returns the field that it is in.
    pub(super) fn field(&self) -> Option<&str> {
        match self {
            Place::New { field, .. } | Place::Count { field } => Some(field),
            Place::Forward { .. } | Place::Has { .. } => None,
        }
    }
}

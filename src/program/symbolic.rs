//! Arithmetic on sizes, as Python's integers compute it.

use anyhow::{Context, Result, bail};

use crate::torch::Value;

/// An operation on sizes, which Python computes and no operator of PyTorch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Arithmetic {
    Add,
    Sub,
    Mul,
    FloorDiv,
    TrueDiv,
    Mod,
    Neg,
    Max,
    Min,
    Not,
    And,
    Or,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    Trunc,
    Float,
    Pow,
    Sqrt,
}

/// The operations by the names that programs have for them.
const NAMES: [(&str, Arithmetic); 22] = [
    ("_operator.add", Arithmetic::Add),
    ("_operator.sub", Arithmetic::Sub),
    ("_operator.mul", Arithmetic::Mul),
    ("_operator.floordiv", Arithmetic::FloorDiv),
    ("_operator.truediv", Arithmetic::TrueDiv),
    ("_operator.mod", Arithmetic::Mod),
    ("_operator.neg", Arithmetic::Neg),
    ("torch.sym_max", Arithmetic::Max),
    ("torch.sym_min", Arithmetic::Min),
    ("torch.sym_not", Arithmetic::Not),
    ("_operator.and_", Arithmetic::And),
    ("_operator.or_", Arithmetic::Or),
    ("_operator.eq", Arithmetic::Eq),
    ("_operator.ne", Arithmetic::Ne),
    ("_operator.lt", Arithmetic::Lt),
    ("_operator.le", Arithmetic::Le),
    ("_operator.gt", Arithmetic::Gt),
    ("_operator.ge", Arithmetic::Ge),
    ("math.trunc", Arithmetic::Trunc),
    ("torch.sym_float", Arithmetic::Float),
    ("_operator.pow", Arithmetic::Pow),
    ("torch.sym_sqrt", Arithmetic::Sqrt),
];

impl Arithmetic {
    pub(super) fn of(target: &str) -> Option<Arithmetic> {
        // Programs of some versions name the functions of `torch` with the module that defines them.
        let target = target.strip_prefix("torch.ops.higher_order.").unwrap_or(target);
        NAMES.iter().find(|(name, _)| *name == target).map(|(_, arithmetic)| *arithmetic)
    }

    /// Computes the operation.
    ///
    /// # Errors
    /// Returns an error if the operands are of other types, if an integer overflows, and at a division by zero.
    pub(super) fn compute(self, operands: &[Value]) -> Result<Value> {
        let wrong = || format!("{self:?} of {operands:?} is not computed");
        Ok(match operands {
            [one] => match (self, one) {
                (Arithmetic::Neg, Value::Int(a)) => {
                    Value::Int(a.checked_neg().with_context(wrong)?)
                }
                (Arithmetic::Not, Value::Bool(a)) => Value::Bool(!a),
                (Arithmetic::Trunc, Value::Float(a)) if a.is_finite() => Value::Int(*a as i64),
                (Arithmetic::Trunc, Value::Int(a)) => Value::Int(*a),
                (Arithmetic::Neg, Value::Float(a)) => Value::Float(-a),
                (Arithmetic::Float, Value::Int(a)) => Value::Float(*a as f64),
                (Arithmetic::Float, Value::Float(a)) => Value::Float(*a),
                (Arithmetic::Sqrt, Value::Int(a)) if *a >= 0 => Value::Float((*a as f64).sqrt()),
                (Arithmetic::Sqrt, Value::Float(a)) if *a >= 0. => Value::Float(a.sqrt()),
                _ => bail!(wrong()),
            },
            [Value::Bool(a), Value::Bool(b)] => match self {
                Arithmetic::And => Value::Bool(*a && *b),
                Arithmetic::Or => Value::Bool(*a || *b),
                _ => bail!(wrong()),
            },
            [Value::Int(a), Value::Int(b)] => self.integers(*a, *b).with_context(wrong)?,
            [a, b] => {
                let float = |value: &Value| match value {
                    Value::Int(value) => Some(*value as f64),
                    Value::Float(value) => Some(*value),
                    _ => None,
                };
                let (a, b) = float(a).zip(float(b)).with_context(wrong)?;
                self.floats(a, b).with_context(wrong)?
            }
            _ => bail!(wrong()),
        })
    }

    fn integers(self, a: i64, b: i64) -> Option<Value> {
        Some(Value::Int(match self {
            Arithmetic::Add => a.checked_add(b)?,
            Arithmetic::Sub => a.checked_sub(b)?,
            Arithmetic::Mul => a.checked_mul(b)?,
            // Rust rounds to zero, and Python down.
            Arithmetic::FloorDiv => {
                let quotient = a.checked_div(b)?;
                quotient - i64::from(quotient * b != a && (a < 0) != (b < 0))
            }
            Arithmetic::Mod => {
                let rest = a.checked_rem(b)?;
                if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }
            }
            Arithmetic::Max => a.max(b),
            Arithmetic::Min => a.min(b),
            Arithmetic::Pow if b >= 0 => a.checked_pow(b.try_into().ok()?)?,
            Arithmetic::Pow if a != 0 => return Some(Value::Float((a as f64).powf(b as f64))),
            Arithmetic::TrueDiv if b != 0 => return Some(Value::Float(a as f64 / b as f64)),
            _ => return self.compared(a, b),
        }))
    }

    fn floats(self, a: f64, b: f64) -> Option<Value> {
        Some(Value::Float(match self {
            Arithmetic::Add => a + b,
            Arithmetic::Sub => a - b,
            Arithmetic::Mul => a * b,
            Arithmetic::TrueDiv if b != 0. => a / b,
            Arithmetic::Max => a.max(b),
            Arithmetic::Min => a.min(b),
            // Of a negative number Python computes a complex one.
            Arithmetic::Pow if a > 0. || a == 0. && b >= 0. => a.powf(b),
            _ => return self.compared(a, b),
        }))
    }

    fn compared<T: PartialOrd>(self, a: T, b: T) -> Option<Value> {
        Some(Value::Bool(match self {
            Arithmetic::Eq => a == b,
            Arithmetic::Ne => a != b,
            Arithmetic::Lt => a < b,
            Arithmetic::Le => a <= b,
            Arithmetic::Gt => a > b,
            Arithmetic::Ge => a >= b,
            _ => return None,
        }))
    }
}

//! An operator that tch does not bind: a call by its name.

use anyhow::{Context, Result, bail};

use super::flat::{Argument, Results, Step};
use super::operator::{Scope, Written, by_mode};
use super::rust::{Expression, Kind, float, kind};
use crate::program::numbers;

impl Written {
    /// Writes a call by the operator's name.
    pub(super) fn by_name(&self, scope: &mut dyn Scope) -> Result<Expression> {
        let Step { operator, arguments, results, .. } = &self.step;
        scope.needs_call();
        let (name, overload) = operator.split_once('.').unwrap_or((operator, ""));
        let mut texts = Vec::new();
        for (name, argument) in arguments {
            let value = match argument {
                Argument::Value(id) => match scope.read(*id) {
                    int if int.kind == Kind::Int => format!("Value::Int({})", int.value()),
                    float if float.kind == Kind::Float => {
                        format!("Value::Float({})", float.value())
                    }
                    tensor => format!("Value::Tensor({})", tensor.owned()),
                },
                Argument::List(list) => {
                    let tensors = list.iter().map(|id| match id {
                        Some(id) => format!("Some({})", scope.read(*id).owned()),
                        None => "None".to_owned(),
                    });
                    format!("Value::Tensors(vec![{}])", tensors.collect::<Vec<_>>().join(", "))
                }
                Argument::ByMode(sides) => {
                    let (kind, [train, eval]) = match &**sides {
                        (Argument::Bool(a), Argument::Bool(b)) => {
                            ("Bool", [a, b].map(bool::to_string))
                        }
                        (Argument::Int(a), Argument::Int(b)) => ("Int", [a, b].map(i64::to_string)),
                        (Argument::Float(a), Argument::Float(b)) => {
                            ("Float", [a, b].map(|v| float(*v)))
                        }
                        other => bail!("{other:?} cannot be written"),
                    };
                    let [train, eval] = [(0, train), (1, eval)].map(|(at, text)| match kind {
                        "Bool" => text,
                        _ => scope.number(name, at, text),
                    });
                    format!("Value::{kind}({})", by_mode(&train, &eval))
                }
                Argument::None => "Value::None".to_owned(),
                Argument::Int(int) => {
                    format!("Value::Int({})", scope.number(name, 0, int.to_string()))
                }
                Argument::Ints(ints) => {
                    format!("Value::Ints(vec!{})", self.ints(name, ints, scope))
                }
                Argument::Float(value) => {
                    format!("Value::Float({})", scope.number(name, 0, float(*value)))
                }
                Argument::Floats(floats) => {
                    let texts = floats.iter().map(|value| float(*value)).collect::<Vec<_>>();
                    format!("Value::Floats(vec![{}])", texts.join(", "))
                }
                Argument::Complex(real, imag) => {
                    format!("Value::Complex({}, {})", float(*real), float(*imag))
                }
                Argument::Bool(bool) => format!("Value::Bool({bool})"),
                Argument::Bools(bools) => format!("Value::Bools(vec!{bools:?})"),
                Argument::Text(text) => format!("Value::Text({text:?}.to_owned())"),
                Argument::Dtype(dtype) => {
                    let kind = kind(*dtype).with_context(|| format!("dtype {dtype}"))?;
                    format!("Value::Int({kind}.c_int().into())")
                }
                Argument::MemoryFormat(format) => {
                    format!("Value::Int({})", numbers::memory_format(*format)?)
                }
                Argument::Layout => "Value::Int(0)".to_owned(),
                Argument::Device(_) => continue,
            };
            texts.push(format!("({name:?}, {value})"));
        }
        let call =
            format!("({:?}, {overload:?}, &[{}])", format!("aten::{name}"), texts.join(", "));
        Ok(match results {
            Results::One(_) => Expression::new(format!("operator{call}"), Kind::New, true),
            Results::Tuple(_) | Results::List(_) => {
                let count = results.ids().len();
                Expression::new(format!("operators::<{count}>{call}"), Kind::Array, true)
            }
        })
    }
}

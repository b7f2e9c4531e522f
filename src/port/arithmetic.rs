//! Arithmetic on sizes.

use super::flat::{self, Argument, Step};
use super::forward::Writer;
use super::operator::Scope;
use super::rust::{Expression, Kind, float};

impl Writer<'_> {
    /// Writes an operator on sizes.
    pub(super) fn arithmetic(&mut self, step: &Step) -> Expression {
        let result = step.results.ids().first().map(|id| self.port.flat.values[*id].kind);
        let is_float = result == Some(flat::Kind::Float);
        let mut operands = Vec::new();
        for (_, argument) in &step.arguments {
            operands.push(match argument {
                Argument::Value(id) => {
                    let value = self.read(*id);
                    let is_int = is_float && value.kind == Kind::Int;
                    if is_int { value.as_float() } else { value.value() }
                }
                Argument::Int(int) if is_float => float(*int as f64),
                Argument::Int(int) => int.to_string(),
                Argument::Float(value) => float(*value),
                _ => String::new(),
            });
        }
        let kind = if is_float { Kind::Float } else { Kind::Int };
        let [first, second] = [0, 1].map(|at| operands.get(at).cloned().unwrap_or_default());
        // The receiver of a method, which may be a conversion or a literal.
        let receiver = match first.parse::<f64>() {
            Ok(_) if is_float => format!("{}_f64", first.trim_end_matches('.')),
            Ok(_) => format!("{first}_i64"),
            Err(_) if first.contains(' ') => format!("({first})"),
            Err(_) => first.clone(),
        };
        let text = match step.operator.trim_start_matches("_operator.") {
            "add" => format!("{} + {}", term(&first), term(&second)),
            "sub" => format!("{} - {}", term(&first), factor(&second)),
            "mul" => format!("{} * {}", factor(&first), factor(&second)),
            // Sizes are not negative.
            "floordiv" | "truediv" => format!("{} / {}", factor(&first), factor(&second)),
            "mod" => format!("{} % {}", factor(&first), factor(&second)),
            "torch.sym_max" => format!("{receiver}.max({second})"),
            "torch.sym_min" => format!("{receiver}.min({second})"),
            "pow" if is_float => format!("{receiver}.powf({second})"),
            "pow" if second.parse::<u32>().is_ok() => format!("{receiver}.pow({second})"),
            "pow" => format!("{receiver}.pow({} as u32)", factor(&second)),
            "torch.sym_sqrt" => format!("{receiver}.sqrt()"),
            "torch.sym_float" => first,
            "math.trunc" => format!("{receiver} as i64"),
            _ => format!("-{receiver}"),
        };
        Expression::new(text, kind, false)
    }
}

/// Returns an expression as the operand of an addition.
fn term(text: &str) -> String {
    if text.contains(['+', '-']) { factor(text) } else { text.to_owned() }
}

/// Returns an expression as the operand of a multiplication.
fn factor(text: &str) -> String {
    let is_one = !text.trim_end_matches(" as f64").contains(' ');
    if is_one { text.to_owned() } else { format!("({text})") }
}

/// Returns whether a step is an operator on sizes.
pub(super) fn is_arithmetic(step: &Step) -> bool {
    is_arithmetic_operator(&step.operator)
}

/// Returns whether a name in a program is that of an operator on sizes.
pub(super) fn is_arithmetic_operator(name: &str) -> bool {
    name.starts_with("_operator.") || name.starts_with("torch.sym_") || name == "math.trunc"
}

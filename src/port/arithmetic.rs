//! Arithmetic on sizes.

use super::flat::{Argument, Step};
use super::forward::Writer;
use super::operator::Scope;
use super::rust::{Expression, Kind};

impl Writer<'_> {
    /// Writes an operator on sizes.
    pub(super) fn arithmetic(&mut self, step: &Step) -> Expression {
        let mut operands = Vec::new();
        for (_, argument) in &step.arguments {
            operands.push(match argument {
                Argument::Value(id) => self.read(*id).value(),
                Argument::Int(int) => int.to_string(),
                _ => String::new(),
            });
        }
        let sign = match step.operator.trim_start_matches("_operator.") {
            "add" => "+",
            "sub" => "-",
            "mul" => "*",
            // Sizes are not negative.
            "floordiv" => "/",
            "mod" => "%",
            "torch.sym_max" => {
                return Expression::new(
                    format!("{}.max({})", operands[0], operands[1]),
                    Kind::Int,
                    false,
                );
            }
            "torch.sym_min" => {
                return Expression::new(
                    format!("{}.min({})", operands[0], operands[1]),
                    Kind::Int,
                    false,
                );
            }
            _ => return Expression::new(format!("-{}", operands[0]), Kind::Int, false),
        };
        Expression::new(operands.join(&format!(" {sign} ")), Kind::Int, false)
    }
}

/// Returns whether a step is an operator on sizes.
pub(super) fn is_arithmetic(step: &Step) -> bool {
    step.operator.starts_with("_operator.") || step.operator.starts_with("torch.sym_")
}

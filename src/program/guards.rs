//! The guards of a program: what the sizes of its inputs have to be for its graph to be the computation.
//!
//! They are comparisons in Python, such as `L['x'].size()[0] % 4 == 0`.

use anyhow::{Context, Result, ensure};
use tch::Tensor;

use super::symbolic::Arithmetic;
use crate::torch::Value;

/// The longest guard that is read, and how deep its operands may be nested: each level takes room on the stack.
const MAX_LENGTH: usize = 2000;
const MAX_DEPTH: usize = 50;

/// The operators of Python, each kind with those that bind less tightly before it.
const OPERATORS: [&[(&str, Arithmetic)]; 5] = [
    &[("or", Arithmetic::Or)],
    &[("and", Arithmetic::And)],
    &[
        ("==", Arithmetic::Eq),
        ("!=", Arithmetic::Ne),
        ("<=", Arithmetic::Le),
        (">=", Arithmetic::Ge),
        ("<", Arithmetic::Lt),
        (">", Arithmetic::Gt),
    ],
    &[("+", Arithmetic::Add), ("-", Arithmetic::Sub)],
    &[
        ("*", Arithmetic::Mul),
        ("//", Arithmetic::FloorDiv),
        ("/", Arithmetic::TrueDiv),
        ("%", Arithmetic::Mod),
    ],
];

/// A guard.
#[derive(Debug)]
pub(super) struct Guard {
    code: String,
    holds: Expression,
}

#[derive(Debug)]
enum Expression {
    Number(i64),
    Float(f64),
    /// The size of a dimension of an input, by their numbers.
    Size(usize, usize),
    Computed(Arithmetic, Vec<Expression>),
}

impl Guard {
    /// Reads a guard on the sizes of inputs, which have these names. Others are on values that are no tensors, which a
    /// program does not take.
    ///
    /// # Errors
    /// Returns an error if it cannot be read.
    pub(super) fn read(code: &str, inputs: &[&str]) -> Result<Option<Guard>> {
        if !code.contains(".size()") {
            return Ok(None);
        }
        let unreadable = || format!("the guard {code:?} on its sizes is not supported");
        ensure!(code.len() <= MAX_LENGTH, "a guard on its sizes is longer than {MAX_LENGTH} bytes");
        let mut reader = Reader { rest: code, inputs, depth: 0 };
        let holds = reader.binary(0).with_context(unreadable)?;
        ensure!(reader.rest.trim().is_empty(), unreadable());
        Ok(Some(Guard { code: code.to_owned(), holds }))
    }

    /// Checks the tensors that a program is given.
    ///
    /// # Errors
    /// Returns an error with the guard that does not hold.
    pub(super) fn check(&self, given: &[Tensor]) -> Result<()> {
        let holds = self.holds.compute(given).with_context(|| self.code.clone())?;
        ensure!(
            matches!(holds, Value::Bool(true)),
            "the program was not exported for these sizes of its inputs: {} has to hold",
            self.code
        );
        Ok(())
    }
}

impl Expression {
    fn compute(&self, given: &[Tensor]) -> Result<Value> {
        match self {
            Expression::Number(number) => Ok(Value::Int(*number)),
            Expression::Float(number) => Ok(Value::Float(*number)),
            Expression::Size(input, dimension) => {
                let size =
                    given.get(*input).and_then(|tensor| tensor.size().get(*dimension).copied());
                Ok(Value::Int(size.context("an input has no such dimension")?))
            }
            Expression::Computed(operation, operands) => {
                let operands = operands.iter().map(|one| one.compute(given));
                operation.compute(&operands.collect::<Result<Vec<_>>>()?)
            }
        }
    }
}

/// What is left to read of a guard.
struct Reader<'a> {
    rest: &'a str,
    inputs: &'a [&'a str],
    /// How many operands it is within.
    depth: usize,
}

impl Reader<'_> {
    /// Reads operands of the operators of a kind.
    fn binary(&mut self, kind: usize) -> Result<Expression> {
        let Some(operators) = OPERATORS.get(kind) else { return self.operand() };
        let mut left = self.binary(kind + 1)?;
        while let Some((_, operation)) = operators.iter().find(|(text, _)| self.next_is(text)) {
            left = Expression::Computed(*operation, vec![left, self.binary(kind + 1)?]);
        }
        Ok(left)
    }

    fn operand(&mut self) -> Result<Expression> {
        self.depth += 1;
        ensure!(self.depth <= MAX_DEPTH, "it is nested more than {MAX_DEPTH} deep");
        let operand = self.within_operand()?;
        self.depth -= 1;
        Ok(operand)
    }

    fn within_operand(&mut self) -> Result<Expression> {
        for (text, operation) in [("-", Arithmetic::Neg), ("not ", Arithmetic::Not)] {
            if self.next_is(text) {
                return Ok(Expression::Computed(operation, vec![self.operand()?]));
            }
        }
        for (text, operation) in [
            ("max(", Arithmetic::Max),
            ("Max(", Arithmetic::Max),
            ("min(", Arithmetic::Min),
            ("Min(", Arithmetic::Min),
        ] {
            if self.next_is(text) {
                let first = self.binary(0)?;
                ensure!(self.next_is(","), "a comma is missing");
                let both = vec![first, self.binary(0)?];
                ensure!(self.next_is(")"), "a parenthesis is missing");
                return Ok(Expression::Computed(operation, both));
            }
        }
        if self.next_is("math.trunc(") {
            let inner = self.binary(0)?;
            ensure!(self.next_is(")"), "a parenthesis is missing");
            return Ok(Expression::Computed(Arithmetic::Trunc, vec![inner]));
        }
        // An integer is taken as a float where it meets one.
        if self.next_is("torch.sym_float(") || self.next_is("(") {
            let inner = self.binary(0)?;
            ensure!(self.next_is(")"), "a parenthesis is missing");
            return Ok(inner);
        }
        if self.next_is("L") {
            return self.size();
        }
        let whole = self.number()?;
        let Some(rest) = self.rest.strip_prefix('.') else { return Ok(Expression::Number(whole)) };
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (decimals, rest) = rest.split_at(end);
        self.rest = rest;
        Ok(Expression::Float(format!("{whole}.{decimals}").parse()?))
    }

    /// Reads a size after its `L`: `['d']['k'].size()[0]` is that of the input `d_k`.
    fn size(&mut self) -> Result<Expression> {
        let mut path = Vec::new();
        while self.next_is("[") {
            let (key, rest) = self.rest.split_once(']').context("a bracket is missing")?;
            path.push(key.trim_matches(['\'', '"']));
            self.rest = rest;
        }
        ensure!(self.next_is(".size()["), "it is not a size");
        let dimension = self.number()?.try_into()?;
        ensure!(self.next_is("]"), "a bracket is missing");
        let name = path.join("_").replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let input = self.inputs.iter().position(|input| *input == name);
        Ok(Expression::Size(input.with_context(|| format!("no input is named {name}"))?, dimension))
    }

    fn number(&mut self) -> Result<i64> {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        ensure!(!digits.is_empty(), "a number is missing");
        self.rest = rest;
        Ok(digits.parse()?)
    }

    /// Reads a text, if it comes next.
    fn next_is(&mut self, text: &str) -> bool {
        let next = self.rest.trim_start();
        // `*` is not the half of `**`, nor `/` that of `//`.
        let whole = |rest: &str| !(matches!(text, "*" | "/") && rest.starts_with(text));
        match next.strip_prefix(text).filter(|rest| whole(rest)) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::{Device, Kind};

    fn holds(code: &str) -> Result<bool> {
        let given = [[6, 2], [3, 12]].map(|sizes| Tensor::zeros(sizes, (Kind::Float, Device::Cpu)));
        let guard = Guard::read(code, &["a_0", "d_k"])?.context("it is on no size")?;
        Ok(guard.check(&given).is_ok())
    }

    #[test]
    fn guards_are_what_python_computes() {
        let (six, three) = ("L['a'][0].size()[0]", "L['d']['k'].size()[0]");
        for (code, expected) in [
            (format!("{six} == 2*{three}"), true),
            (format!("{six} != 2*{three}"), false),
            (format!("({six} % 4) == 0"), false),
            (format!("{six} - {three} - 1 == 2 and {three} <= 3"), true),
            (format!("{six} // 4 + {three} >= 5 or not {six} > 5"), false),
            (format!("-{six} // 4 == -2"), true),
            (format!("Max({six}, L['d']['k'].size()[1]) < 13"), true),
            (format!("math.trunc(1.7*torch.sym_float((-2) + {six})) >= 7"), false),
        ] {
            assert_eq!(holds(&code).ok(), Some(expected), "{code}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for code in [
            "L['b'].size()[0] > 1",
            "L['a'][0].size()[0] ** 2 == 4",
            "L['a'][0].size()[0] > 1e9",
            "(L['a'][0].size()[0] > 1",
            "L['a'][0].size()[0] > ",
            "f(L['a'][0].size()[0])",
        ] {
            assert!(Guard::read(code, &["a_0"]).is_err(), "{code}");
        }
        let deep = "(".repeat(1900) + "L['a'][0].size()[0]";
        assert!(Guard::read(&deep, &["a_0"]).is_err());
        assert!(matches!(Guard::read("L['scale'] == 3.0", &["a_0"]), Ok(None)));
    }
}

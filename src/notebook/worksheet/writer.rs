//! Formulas as text: in symbols, or in the numbers of one element.

use anyhow::Result;

use super::evaluate::{Grid, Values};
use super::formula::{Axis, Equation, Expr, LocalDerivative, Quantity};
use super::notation::Notation;

/// The largest number of terms that are written in full. Longer sums are cut, as the tensor printer cuts rows.
pub(crate) const MAX_TERMS: i64 = 8;

/// The number of terms that are written at each end of a sum that is cut.
const EDGE_TERMS: i64 = 3;

/// The index of an element along each of the [`AXES`](super::formula::AXES), counted from 0.
pub(crate) type Index = [i64; 4];

/// What is written for a quantity.
#[derive(Clone, Copy)]
enum In<'a> {
    Symbols,
    /// Symbols, with every local derivative replaced by its formula.
    Formulas,
    Numbers(&'a Index),
}

/// Writes the formulas of one worksheet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Writer<'a> {
    pub(crate) notation: Notation,
    pub(crate) values: &'a Values,
}

impl Writer<'_> {
    /// Writes a quantity, such as `z⁽²⁾ⱼ`. If the batch has one row, the index of the row is left out.
    pub(crate) fn quantity(&self, quantity: &Quantity) -> String {
        self.symbol(quantity, |axis| axis.letter().to_owned())
    }

    /// Writes an element of a quantity, such as `z⁽²⁾₁`, counted from 1.
    pub(crate) fn element(&self, quantity: &Quantity, index: &Index) -> String {
        self.symbol(quantity, |axis| (index[axis as usize] + 1).to_string())
    }

    fn symbol(&self, quantity: &Quantity, subscript: impl Fn(Axis) -> String) -> String {
        let written = quantity.axes.iter().filter(|&&axis| axis != Axis::N || !self.one_row());
        let subscripts = written.map(|&axis| subscript(axis)).collect::<Vec<_>>();
        // Without a comma, 111 could be 1 and 11, or 11 and 1.
        let comma = if subscripts.iter().any(|subscript| subscript.len() > 1) { "," } else { "" };
        self.notation.symbol(quantity.letter, quantity.layer, &subscripts.join(comma))
    }

    /// Writes the gradient of the loss, `∂L/∂quantity`.
    pub(crate) fn gradient(&self, quantity: &Quantity) -> String {
        self.notation.derivative("L", &self.quantity(quantity))
    }

    /// Writes the gradient of the loss with respect to one element of a quantity.
    pub(crate) fn gradient_element(&self, quantity: &Quantity, index: &Index) -> String {
        self.notation.derivative("L", &self.element(quantity, index))
    }

    /// Writes a local derivative, `∂of/∂by`.
    pub(crate) fn local(&self, derivative: &LocalDerivative) -> String {
        self.notation.derivative(&self.quantity(derivative.of), &self.quantity(derivative.by))
    }

    /// Writes both sides of an equation, in symbols.
    pub(crate) fn equation(&self, equation: &Equation) -> Result<String> {
        let right = self.symbols(&equation.formula)?;
        Ok(format!("{} = {right}", self.quantity(equation.of)))
    }

    /// Writes a local derivative and its formula as an equation, in symbols.
    pub(crate) fn local_equation(&self, derivative: &LocalDerivative) -> Result<String> {
        let right = self.symbols(&derivative.formula)?;
        Ok(format!("{} = {right}", self.local(derivative)))
    }

    pub(crate) fn symbols(&self, expr: &Expr) -> Result<String> {
        Ok(self.write(expr, In::Symbols)?.text)
    }

    /// Writes an expression in symbols, with every local derivative replaced by its formula.
    pub(crate) fn formulas(&self, expr: &Expr) -> Result<String> {
        Ok(self.write(expr, In::Formulas)?.text)
    }

    /// Writes an expression in the numbers that give the element at `index`.
    pub(crate) fn numbers(&self, expr: &Expr, index: &Index) -> Result<String> {
        Ok(self.write(expr, In::Numbers(index))?.text)
    }

    fn one_row(&self) -> bool {
        self.values.size(Axis::N) == 1
    }

    fn write(&self, expr: &Expr, mode: In) -> Result<Written> {
        let notation = self.notation;
        let number = |value: f64| {
            let level = if value.is_sign_negative() { Level::Sum } else { Level::Atom };
            Written { text: notation.number(value), level }
        };
        Ok(match (expr, mode) {
            (Expr::Number(value), _) => number(*value),
            (Expr::Value(quantity), In::Numbers(index)) => {
                number(at(self.values.quantity(quantity)?, index)?)
            }
            (Expr::Gradient(quantity), In::Numbers(index)) => {
                number(at(self.values.gradient(quantity)?, index)?)
            }
            (Expr::Local(derivative), In::Numbers(index)) => {
                number(at(self.values.local(derivative)?, index)?)
            }
            (Expr::Gradient(quantity), In::Formulas)
                if quantity.name == self.values.loss_derivative.by.name =>
            {
                self.write(&self.values.loss_derivative.formula, mode)?
            }
            (Expr::Local(derivative), In::Formulas) => self.write(&derivative.formula, mode)?,
            (Expr::Value(quantity), _) => atom(self.quantity(quantity)),
            (Expr::Gradient(quantity), _) => atom(self.gradient(quantity)),
            (Expr::Local(derivative), In::Symbols) => atom(self.local(derivative)),

            (Expr::Over(Axis::N, of) | Expr::Share(of), _) if self.one_row() => {
                self.write(of, mode)?
            }
            (Expr::Over(axis, of), In::Numbers(index)) => self.terms(*axis, of, index)?,
            (Expr::Over(axis, of), _) => {
                let sign = notation.sum(axis.letter());
                sum(format!("{sign} {}", self.bracketed(of, mode)?))
            }
            (Expr::Share(of), _) => {
                let rows = self.values.size(Axis::N).to_string();
                let share = notation.fraction("1", &rows);
                product(format!("{share} {}", self.bracketed(of, mode)?))
            }
            (Expr::Negative(of), _) => {
                sum(format!("{}{}", notation.minus(), self.bracketed(of, mode)?))
            }
            (Expr::Sum(terms), _) => {
                let terms = terms.iter().map(|term| Ok(self.write(term, mode)?.text));
                sum(terms.collect::<Result<Vec<_>>>()?.join(" + "))
            }
            (Expr::Difference([a, b]), _) => {
                let a = self.write(a, mode)?.text;
                sum(format!("{a} {} {}", notation.minus(), self.factor(b, mode)?))
            }
            (Expr::Product(factors), _) => self.product(factors, mode)?,
            (Expr::Quotient([a, b]), _) => {
                let part = |expr| {
                    let Written { text, level } = self.write(expr, mode)?;
                    let whole = level == Level::Atom || notation == Notation::Latex;
                    anyhow::Ok(if whole { text } else { notation.parenthesized(&text) })
                };
                product(notation.fraction(&part(a)?, &part(b)?))
            }
            (Expr::Max([a, b]), _) => {
                atom(notation.max(&self.write(a, mode)?.text, &self.write(b, mode)?.text))
            }
            (Expr::Positive(of), _) => atom(notation.positive(&self.write(of, mode)?.text)),
            (Expr::Sigmoid(of), _) => atom(notation.sigmoid(&self.write(of, mode)?.text)),
            (Expr::Log(of), _) => atom(notation.log(&self.factor(of, mode)?)),
        })
    }

    fn product(&self, factors: &[Expr], mode: In) -> Result<Written> {
        // Letters are multiplied by juxtaposition; numbers and derivatives need a sign between them.
        let apart = |factor| matches!(factor, &Expr::Local(_) | &Expr::Gradient(_));
        let apart = matches!(mode, In::Numbers(_)) || factors.iter().any(apart);
        let times = if apart { self.notation.times() } else { " " };
        let mut texts = Vec::new();
        for factor in factors {
            let leads = texts.is_empty() && matches!(factor, Expr::Gradient(_));
            let text =
                if leads { self.write(factor, mode)?.text } else { self.factor(factor, mode)? };
            texts.push(text);
        }
        Ok(product(texts.join(times)))
    }

    /// Writes a sum over `axis` term by term; of many terms, only the first and the last ones.
    fn terms(&self, axis: Axis, of: &Expr, index: &Index) -> Result<Written> {
        let n = self.values.size(axis);
        let mut terms = Vec::new();
        for at in shown(n) {
            let Some(at) = at else {
                terms.push(self.notation.dots().to_owned());
                continue;
            };
            let mut index = *index;
            index[axis as usize] = at;
            let term = self.write(of, In::Numbers(&index))?;
            let bare = terms.is_empty()
                || term.level != Level::Sum && !term.text.starts_with(self.notation.minus());
            terms.push(if bare { term.text } else { self.notation.parenthesized(&term.text) });
        }
        Ok(if terms.is_empty() { atom("0".to_owned()) } else { sum(terms.join(" + ")) })
    }

    fn factor(&self, expr: &Expr, mode: In) -> Result<String> {
        let Written { text, level } = self.write(expr, mode)?;
        Ok(if level == Level::Sum { self.notation.parenthesized(&text) } else { text })
    }

    /// Writes the operand of a prefix, such as a sum's sign, in brackets if it is a sum of terms. A sum over an
    /// axis needs no brackets, since it begins with a sign of its own.
    fn bracketed(&self, expr: &Expr, mode: In) -> Result<String> {
        let Written { text, level } = self.write(expr, mode)?;
        let sums_up = matches!(expr, Expr::Over(axis, _) if *axis != Axis::N || !self.one_row());
        let bare = level != Level::Sum || sums_up;
        Ok(if bare { text } else { self.notation.bracketed(&text) })
    }
}

/// Lists the indices below `n` that are shown. A `None` stands for all those that are left out.
pub(crate) fn shown(n: i64) -> impl Iterator<Item = Option<i64>> {
    let cut = n > MAX_TERMS;
    let kept = move |at: &i64| !cut || *at <= EDGE_TERMS || *at >= n - EDGE_TERMS;
    (0..n).filter(kept).map(move |at| (!cut || at != EDGE_TERMS).then_some(at))
}

/// Returns the element of a grid at `index`. An axis of size 1 is broadcast to every index.
pub(crate) fn at(grid: &Grid, index: &Index) -> Result<f64> {
    let sizes = grid.value.size();
    let index = index.iter().zip(sizes).map(|(&at, size)| if size == 1 { 0 } else { at });
    Ok(grid.value.f_double_value(&index.collect::<Vec<_>>())?)
}

/// A written formula, and its precedence.
struct Written {
    text: String,
    level: Level,
}

/// The precedence of the outermost operation of a formula, which decides whether it needs parentheses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Sum,
    Product,
    Atom,
}

fn sum(text: String) -> Written {
    Written { text, level: Level::Sum }
}

fn product(text: String) -> Written {
    Written { text, level: Level::Product }
}

fn atom(text: String) -> Written {
    Written { text, level: Level::Atom }
}

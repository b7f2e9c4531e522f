//! The evaluation of formulas in float64 with plain tensor operations, and a bound on the rounding errors of a
//! run that computes the same in its own dtype.

use std::collections::HashMap;

use anyhow::{Context, Result};
use tch::{Kind, Tensor};

use super::formula::{AXES, Axis, Expr, LocalDerivative, Quantity};

/// A value as a tensor with the four [`AXES`]. An axis that the value does not depend on has size 1.
#[derive(Debug)]
pub(crate) struct Grid {
    /// The value, in float64.
    pub(crate) value: Tensor,
    /// A bound on the error of the value where every operation rounds its result, in units of the unit roundoff.
    /// It is the running error bound of N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed.,
    /// §3.3.
    pub(crate) error: Tensor,
}

impl Grid {
    fn shallow_clone(&self) -> Grid {
        Grid { value: self.value.shallow_clone(), error: self.error.shallow_clone() }
    }

    /// Returns a value without a rounding error, such as a tensor of the run.
    fn exact(value: Tensor) -> Result<Grid> {
        Ok(Grid { error: value.f_zeros_like()?, value })
    }

    /// Returns the `value` of an operation that inherits `error` from its operands and rounds `roundings` times.
    fn rounded(value: Tensor, error: Tensor, roundings: f64) -> Result<Grid> {
        let error = error.f_add(&value.f_abs()?.f_mul_scalar(roundings)?)?;
        Ok(Grid { value, error })
    }

    fn number(value: f64) -> Result<Grid> {
        Grid::exact(Tensor::from_slice(&[value]).f_view([1, 1, 1, 1])?)
    }

    fn negative(self) -> Result<Grid> {
        Ok(Grid { value: self.value.f_neg()?, error: self.error })
    }

    fn plus(&self, other: &Grid) -> Result<Grid> {
        Grid::rounded(self.value.f_add(&other.value)?, self.error.f_add(&other.error)?, 1.)
    }

    fn times(&self, other: &Grid) -> Result<Grid> {
        let error = self.error.f_mul(&other.value.f_abs()?)?;
        let error = error.f_add(&self.value.f_abs()?.f_mul(&other.error)?)?;
        Grid::rounded(self.value.f_mul(&other.value)?, error, 1.)
    }

    /// Keeps the elements where `alive` is 1, and sets the others to 0.
    ///
    /// The backward of a ReLU selects and does not multiply. So its zeros are never -0., and where it is off, an
    /// infinity becomes 0 and not nan.
    fn selected(&self, alive: &Grid) -> Result<Grid> {
        let (alive, zero) = (alive.value.f_gt(0.)?, Grid::number(0.)?);
        let value = self.value.f_where_self(&alive, &zero.value)?;
        Ok(Grid { value, error: self.error.f_where_self(&alive, &zero.error)? })
    }

    fn over(&self, divisor: &Grid) -> Result<Grid> {
        let value = self.value.f_div(&divisor.value)?;
        let error = self.error.f_add(&value.f_abs()?.f_mul(&divisor.error)?)?;
        Grid::rounded(value, error.f_div(&divisor.value.f_abs()?)?, 1.)
    }

    /// Returns the sum over an axis of size `n`.
    fn sum(&self, axis: Axis, n: i64) -> Result<Grid> {
        if n == 1 {
            return Ok(self.shallow_clone()); // a sum would turn -0. into 0.
        }
        let sum = |tensor: &Tensor| tensor.f_sum_dim_intlist(axis as i64, true, Kind::Double);
        let error = sum(&self.error)?.f_add(&sum(&self.value.f_abs()?)?.f_mul_scalar(n as f64)?)?;
        Ok(Grid { value: sum(&self.value)?, error })
    }

    /// Returns the sum of the product over an axis of size `n`, without ever holding the whole product.
    fn contracted(&self, other: &Grid, axis: Axis, n: i64) -> Result<Grid> {
        if n == 1 {
            return self.times(other);
        }
        let letters = AXES.map(Axis::letter).concat();
        let out = letters.replace(axis.letter(), "");
        let sum = |a: &Tensor, b: &Tensor| {
            let product =
                Tensor::f_einsum(&format!("{letters},{letters}->{out}"), &[a, b], None::<&[i64]>)?;
            product.f_unsqueeze(axis as i64)
        };
        let (a, b) = (self.value.f_abs()?, other.value.f_abs()?);
        let error = sum(&self.error, &b)?.f_add(&sum(&a, &other.error)?)?;
        let error = error.f_add(&sum(&a, &b)?.f_mul_scalar(n as f64 + 1.)?)?;
        Ok(Grid { value: sum(&self.value, &other.value)?, error })
    }
}

/// The values from which formulas are evaluated.
#[derive(Debug)]
pub(crate) struct Values {
    /// The sizes of [`AXES`].
    pub(crate) sizes: [i64; 4],
    quantities: HashMap<&'static str, Grid>,
    gradients: HashMap<&'static str, Grid>,
    /// The local derivatives ∂of/∂by, by the names of `of` and `by`.
    locals: HashMap<(&'static str, &'static str), Grid>,
    /// The derivative of the loss, which alone has two formulas: with and without a clamped divisor.
    pub(crate) loss_derivative: &'static LocalDerivative,
}

impl Values {
    pub(crate) fn new(sizes: [i64; 4], loss_derivative: &'static LocalDerivative) -> Values {
        let (quantities, gradients, locals) = (HashMap::new(), HashMap::new(), HashMap::new());
        Values { sizes, quantities, gradients, locals, loss_derivative }
    }

    pub(crate) fn size(&self, axis: Axis) -> i64 {
        self.sizes[axis as usize]
    }

    /// Converts a tensor of the run to float64 and to all four axes.
    pub(crate) fn grid(&self, quantity: &Quantity, tensor: &Tensor) -> Result<Grid> {
        let size = |axis| if quantity.axes.contains(&axis) { self.size(axis) } else { 1 };
        Grid::exact(tensor.f_to_kind(Kind::Double)?.f_reshape(AXES.map(size))?)
    }

    pub(crate) fn set(&mut self, quantity: &'static Quantity, grid: Grid) {
        self.quantities.insert(quantity.name, grid);
    }

    pub(crate) fn set_gradient(&mut self, quantity: &'static Quantity, grid: Grid) {
        self.gradients.insert(quantity.name, grid);
    }

    pub(crate) fn set_local(&mut self, derivative: &'static LocalDerivative, grid: Grid) {
        self.locals.insert((derivative.of.name, derivative.by.name), grid);
    }

    pub(crate) fn quantity(&self, quantity: &Quantity) -> Result<&Grid> {
        self.quantities.get(quantity.name).with_context(|| format!("no {}", quantity.name))
    }

    pub(crate) fn gradient(&self, quantity: &Quantity) -> Result<&Grid> {
        let grid = self.gradients.get(quantity.name);
        grid.with_context(|| format!("no gradient of {}", quantity.name))
    }

    pub(crate) fn local(&self, derivative: &LocalDerivative) -> Result<&Grid> {
        let (of, by) = (derivative.of.name, derivative.by.name);
        self.locals.get(&(of, by)).with_context(|| format!("no derivative of {of} by {by}"))
    }

    pub(crate) fn evaluate(&self, expr: &Expr) -> Result<Grid> {
        match expr {
            Expr::Number(value) => Grid::number(*value),
            Expr::Value(quantity) => Ok(self.quantity(quantity)?.shallow_clone()),
            Expr::Gradient(quantity) => Ok(self.gradient(quantity)?.shallow_clone()),
            Expr::Local(derivative) => Ok(self.local(derivative)?.shallow_clone()),
            Expr::Negative(of) => self.evaluate(of)?.negative(),
            Expr::Sum([first, others @ ..]) => others
                .iter()
                .try_fold(self.evaluate(first)?, |sum, term| sum.plus(&self.evaluate(term)?)),
            Expr::Sum([]) => Grid::number(0.),
            Expr::Difference([a, b]) => self.evaluate(a)?.plus(&self.evaluate(b)?.negative()?),
            Expr::Product(factors) => self.product(factors),
            Expr::Quotient([a, b]) => self.evaluate(a)?.over(&self.evaluate(b)?),
            Expr::Over(axis, Expr::Product([factors @ .., last])) if !selects(last) => {
                self.product(factors)?.contracted(&self.evaluate(last)?, *axis, self.size(*axis))
            }
            Expr::Over(axis, of) => self.evaluate(of)?.sum(*axis, self.size(*axis)),
            Expr::Share(of) => {
                let rows = Grid::number(self.size(Axis::N) as f64)?;
                self.evaluate(of)?.over(&rows)
            }
            Expr::Max([a, b]) => {
                let (a, b) = (self.evaluate(a)?, self.evaluate(b)?);
                let takes_a = a.value.f_ge_tensor(&b.value)?;
                let error = a.error.f_where_self(&takes_a, &b.error)?;
                Ok(Grid { value: a.value.f_maximum(&b.value)?, error })
            }
            Expr::Positive(of) => {
                Grid::exact(self.evaluate(of)?.value.f_gt(0.)?.f_to_kind(Kind::Double)?)
            }
            Expr::Sigmoid(of) => {
                let of = self.evaluate(of)?;
                let value = of.value.f_sigmoid()?;
                let slope = value.f_mul(&value.f_neg()?.f_add_scalar(1.)?)?;
                Grid::rounded(value, of.error.f_mul(&slope)?, 4.)
            }
            Expr::Log(of) => {
                let of = self.evaluate(of)?;
                Grid::rounded(of.value.f_log()?, of.error.f_div(&of.value.f_abs()?)?, 2.)
            }
        }
    }

    fn product(&self, factors: &[Expr]) -> Result<Grid> {
        let [first, others @ ..] = factors else { return Grid::number(1.) };
        others.iter().try_fold(self.evaluate(first)?, |product, factor| {
            let grid = self.evaluate(factor)?;
            if selects(factor) { product.selected(&grid) } else { product.times(&grid) }
        })
    }

    /// Applies one step of the chain rule: returns the gradient of the loss with respect to `derivative.by`, from
    /// `gradient`, the one with respect to `derivative.of`, and `local`, the values of the derivative.
    pub(crate) fn step_back(
        &self,
        derivative: &LocalDerivative,
        local: &Grid,
        gradient: &Grid,
    ) -> Result<Grid> {
        let LocalDerivative { of, by, formula, .. } = derivative;
        match of.axes.iter().find(|axis| !by.axes.contains(axis)) {
            _ if is_positive(formula) => gradient.selected(local),
            Some(&axis) => gradient.contracted(local, axis, self.size(axis)),
            None => gradient.times(local),
        }
    }
}

/// Returns whether a factor is the derivative of a ReLU, which selects elements of the other factors.
fn selects(factor: &Expr) -> bool {
    matches!(factor, Expr::Local(derivative) if is_positive(&derivative.formula))
}

fn is_positive(formula: &Expr) -> bool {
    matches!(formula, Expr::Positive(_))
}

//! The notebook's worksheet, filled in: every value computed from its formula, beside the value of the run.

mod blocks;
mod check;
mod document;
mod evaluate;
mod figure;
mod formula;
mod html;
mod jupyter;
mod markdown;
mod notation;
mod remarks;
mod svg;
mod text;
mod writer;

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor};

use crate::notebook::Replay;
use check::Check;
use evaluate::Values;
use formula::{
    BACKWARD, CHAIN, CLAMPED_L, CLAMPED_L_BY_Y_HAT, COPY, Equation, FORWARD, L, L_BY_Y_HAT,
    LEAST_DIVISOR, LEAST_LOG, LocalDerivative, QUANTITIES, Quantity, W1, W2, X, Y_HAT,
};

/// The notebook's worksheet filled in for a run, as plain data that each format renders.
///
/// ```
/// use tch_parity::Replay;
/// use tch_parity::worksheet::Worksheet;
///
/// let recorded = Replay::load("tests/data/notebook.safetensors")?;
/// let sheet = Worksheet::new("my run", recorded)?;
/// assert!(sheet.agrees());
/// assert!(sheet.text()?.contains("ŷ = σ(z)"));
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Debug)]
pub struct Worksheet {
    /// The name of what was run, for a headline.
    pub title: String,
    /// The run, whose first step the worksheet shows.
    replay: Replay,
    /// The values from which the formulas are evaluated, and the gradients that they give.
    values: Values,
    /// The formulas of the forward pass.
    forward: Vec<Row<&'static Equation>>,
    /// The local derivatives.
    backward: Vec<Row<&'static LocalDerivative>>,
    /// The gradients of the loss.
    chain: Vec<Row<&'static Equation>>,
}

/// A line of the worksheet.
#[derive(Debug)]
struct Row<Formula> {
    formula: Formula,
    /// The value that the formula gives, in float64 and in the shape that it has in PyTorch.
    value: Tensor,
    /// The tensor of the run, checked by means of the formula.
    run: Check,
}

impl Worksheet {
    /// Computes every row from the run's forward values, in float64.
    ///
    /// A derivative is never computed from a gradient of autograd's, since that is what it is compared with.
    ///
    /// # Errors
    /// Returns an error if the batch has no rows, and libtorch's errors.
    pub fn new(title: impl Into<String>, replay: Replay) -> Result<Worksheet> {
        let trace = &replay.case.trace;
        let run = |section: &str, of: &Quantity| trace.tensor(&format!("{section}/{}", of.name));
        let size = |of: &Quantity, dim: usize| {
            let size = run(of.section, of)?.size();
            size.get(dim).copied().with_context(|| format!("no size of {}", of.name))
        };
        let sizes = [size(&X, 0)?, size(&W2, 0)?, size(&W1, 0)?, size(&X, 1)?]; // those of N, K, J, I
        ensure!(sizes[0] > 0, "a batch without rows leaves nothing to be filled in");
        let y_hat = run(Y_HAT.section, &Y_HAT)?.f_to_kind(Kind::Double)?;
        let y_hat = Vec::<f64>::try_from(y_hat.f_reshape(-1)?)?;
        let mut values = Values::new(sizes, loss_derivative(&y_hat));
        for of in QUANTITIES {
            values.set(of, values.grid(of, &run(of.section, of)?)?);
        }

        let mut forward = Vec::new();
        for equation in [&COPY].into_iter().chain(&FORWARD) {
            let equation = in_force(equation, &y_hat);
            let of = equation.of;
            let grid = values.evaluate(&equation.formula)?;
            let run = Check::new(of.section, of, run(of.section, of)?, &grid)?;
            if !std::ptr::eq(equation, &COPY) || run.disagreement.is_some() {
                forward.push(Row { formula: equation, value: run.by_hand.shallow_clone(), run });
            }
        }

        let mut backward = Vec::new();
        for derivative in BACKWARD {
            let of_loss = derivative.of.name == L.name;
            let formula = if of_loss { values.loss_derivative } else { derivative };
            let grid = values.evaluate(&formula.formula)?;
            let like = run(formula.like.section, formula.like)?;
            let value = grid.value.f_reshape(like.size())?;
            let autograd = run("grad", formula.by)?;
            let run = if of_loss {
                Check::new("grad", formula.by, autograd, &grid)?
            } else {
                // Autograd keeps no local derivative. But a step of the chain rule with this one leads from
                // one of autograd's gradients to another.
                let gradient = values.grid(formula.of, &run("grad", formula.of)?)?;
                let by_hand = values.step_back(formula, &grid, &gradient)?;
                Check::new("grad", formula.by, autograd, &by_hand)?
            };
            backward.push(Row { formula, value, run });
            if of_loss {
                values.set_gradient(formula.by, grid);
            } else {
                values.set_local(formula, grid);
            }
        }

        let mut chain = Vec::new();
        for equation in &CHAIN {
            let grid = values.evaluate(&equation.formula)?;
            let run = Check::new("grad", equation.of, run("grad", equation.of)?, &grid)?;
            chain.push(Row { formula: equation, value: run.by_hand.shallow_clone(), run });
            values.set_gradient(equation.of, grid);
        }
        Ok(Worksheet { title: title.into(), replay, values, forward, backward, chain })
    }

    /// Returns whether every tensor of the run agrees with the formulas.
    pub fn agrees(&self) -> bool {
        self.disagreeing().next().is_none()
    }

    /// Lists the names of the tensors of the run that disagree with a formula, such as `grad/fc1.weight`. A name
    /// is listed once for each such formula.
    pub fn disagreeing(&self) -> impl Iterator<Item = &str> {
        let disagreeing = self.checks().filter(|check| check.disagreement.is_some());
        disagreeing.map(|check| check.name.as_str())
    }

    /// Returns the gradient of the loss, computed by hand in float64, with respect to the tensor of this name in
    /// the notebook, such as `h` or `fc1.weight`.
    pub fn gradient(&self, name: &str) -> Option<&Tensor> {
        let [.., by_y_hat] = &self.backward[..] else { return None };
        let by_y_hat = (by_y_hat.formula.by.name == name).then_some(&by_y_hat.value);
        let chain = self.chain.iter().find(|row| row.formula.of.name == name);
        by_y_hat.or(chain.map(|row| &row.value))
    }

    fn checks(&self) -> impl Iterator<Item = &Check> {
        let forward = self.forward.iter().map(|row| &row.run);
        let backward = self.backward.iter().map(|row| &row.run);
        forward.chain(backward).chain(self.chain.iter().map(|row| &row.run))
    }
}

/// Returns the derivative of the loss, with a clamped divisor if BCELoss clamps it for an output in `y_hat`.
fn loss_derivative(y_hat: &[f64]) -> &'static LocalDerivative {
    let clamps = y_hat.iter().any(|y_hat| y_hat * (1. - y_hat) < LEAST_DIVISOR);
    if clamps { &CLAMPED_L_BY_Y_HAT } else { &L_BY_Y_HAT }
}

/// Returns `equation`, or what replaces it if BCELoss clamps a logarithm of the outputs `y_hat`.
fn in_force(equation: &'static Equation, y_hat: &[f64]) -> &'static Equation {
    let clamps =
        |y_hat: &f64| [*y_hat, 1. - y_hat].iter().any(|argument| argument.ln() < LEAST_LOG);
    if equation.of.name == L.name && y_hat.iter().any(clamps) { &CLAMPED_L } else { equation }
}

//! The worksheet as headings, paragraphs, tables and equations, in either notation.

use anyhow::Result;

use super::blocks::{Block, Line, Piece, line, values};
use super::formula::{AXES, Expr, Quantity, W1};
use super::notation::Notation;
use super::remarks::remarks;
use super::writer::{Index, Writer, at, shown};
use super::{Check, Worksheet};
use crate::compare::ROUNDINGS_BY_HAND;
use crate::repr::float::exponential;

impl Worksheet {
    fn writer(&self, notation: Notation) -> Writer<'_> {
        Writer { notation, values: &self.values }
    }

    /// Returns the whole worksheet, without the title and the figure.
    pub(crate) fn document(&self, notation: Notation) -> Result<Vec<Block>> {
        let mut blocks = self.introduction(notation);
        blocks.extend(self.forward_table(notation)?);
        blocks.extend(self.backward_table(notation)?);
        blocks.extend(self.derivations(notation)?);
        blocks.extend(self.remark_list(notation)?);
        blocks.push(self.conclusion());
        Ok(blocks)
    }

    /// Says what was run, and what the columns mean.
    pub(crate) fn introduction(&self, notation: Notation) -> Vec<Block> {
        let weight = self.writer(notation).quantity(&W1);
        let [rows, d3, d2, d1] = self.values.sizes;
        let rows = if rows == 1 { "1 row".to_owned() } else { format!("{rows} rows") };
        let steps = match self.replay.run.steps {
            1 => String::new(),
            steps => format!(", step 1 of {steps}"),
        };
        let dtype = if self.is_float64() { "float64" } else { "float32" };
        vec![Block::Paragraph(line(&format!(
            "ThreeLayerNet({d1}, {d2}, {d3}), a batch of {rows}, {dtype}{steps}. Every value is computed from the \
             formula beside it, in float64; next to it stands what the run has, and whether the two agree: \
             whether they differ by no more than {ROUNDINGS_BY_HAND} times what {dtype} may round in that \
             formula. Tensors are as PyTorch stores them: ${weight}$ is row j, column i of fc1.weight.",
        )))]
    }

    /// Lists every formula of the net with its derivatives.
    pub(crate) fn formula_table(&self, notation: Notation) -> Result<Vec<Block>> {
        let write = self.writer(notation);
        let mut rows = Vec::new();
        for equation in self.forward.iter().map(|row| row.formula) {
            let mut row = vec![write.equation(equation)?];
            for derivative in self.backward.iter().map(|row| row.formula) {
                if derivative.of.name == equation.of.name {
                    row.push(write.local_equation(derivative)?);
                }
            }
            let mut row = row.into_iter().map(|math| vec![Piece::Math(math)]).collect::<Vec<_>>();
            row.resize(3, Vec::new());
            rows.push(row);
        }
        let head = ["Forward formula", "Backward formula", ""];
        Ok(vec![Block::Table { head: head.map(line).into(), rows }])
    }

    /// Returns the table of the forward pass.
    pub(crate) fn forward_table(&self, notation: Notation) -> Result<Vec<Block>> {
        let write = self.writer(notation);
        let mut rows = Vec::new();
        for row in &self.forward {
            let formula = vec![Piece::Math(write.equation(row.formula)?)];
            let run = vec![values(&row.run.tensor)?];
            rows.push(vec![formula, vec![values(&row.value)?], run, verdict(&row.run)?]);
        }
        let head = ["Forward formula", "Value(s)", "In the run", ""];
        Ok(vec![
            Block::Heading("Forward computation"),
            Block::Table { head: head.map(line).into(), rows },
        ])
    }

    /// Returns the table of the local derivatives.
    pub(crate) fn backward_table(&self, notation: Notation) -> Result<Vec<Block>> {
        let write = self.writer(notation);
        let mut rows = Vec::new();
        for row in &self.backward {
            let formula = vec![Piece::Math(write.local_equation(row.formula)?)];
            let gradient = write.gradient(row.formula.by);
            let run = vec![
                Piece::Math(gradient),
                Piece::Text(" = ".to_owned()),
                values(&row.run.tensor)?,
            ];
            rows.push(vec![formula, vec![values(&row.value)?], run, verdict(&row.run)?]);
        }
        let head = ["Backward formula", "Value(s)", "Autograd in the run", ""];
        Ok(vec![
            Block::Heading("Backward computation"),
            Block::Paragraph(line(
                "Autograd keeps no local derivative, but what it keeps has come by way of them: a row agrees \
                 where the gradient that autograd gave on one side of the operation, times this derivative, \
                 is the one that it gave on the other.",
            )),
            Block::Table { head: head.map(line).into(), rows },
        ])
    }

    /// Derives each gradient of the loss by the chain rule.
    pub(crate) fn derivations(&self, notation: Notation) -> Result<Vec<Block>> {
        let write = self.writer(notation);
        let mut blocks = vec![Block::Heading("Applying the chain rule")];
        for row in &self.chain {
            let (of, formula) = (row.formula.of, &row.formula.formula);
            let gradient = write.gradient(of);
            let (symbols, formulas) = (write.symbols(formula)?, write.formulas(formula)?);
            let same = symbols == formulas;
            let mut equations = vec![[gradient, symbols]];
            equations.extend((!same).then_some([String::new(), formulas]));
            equations.extend(self.elements_of(of, formula, notation)?);
            let head = ["By hand", &format!("{}.grad in the run", of.name), ""];
            let cells =
                vec![vec![values(&row.value)?], vec![values(&row.run.tensor)?], verdict(&row.run)?];
            blocks.push(Block::Equations(equations));
            blocks.push(Block::Table { head: head.map(line).into(), rows: vec![cells] });
        }
        Ok(blocks)
    }

    /// Writes how each element is computed; of many elements, only the first and the last ones.
    fn elements_of(
        &self,
        of: &'static Quantity,
        formula: &Expr,
        notation: Notation,
    ) -> Result<Vec<[String; 2]>> {
        let write = self.writer(notation);
        let axes = AXES.iter().filter(|axis| of.axes.contains(axis)).collect::<Vec<_>>();
        let numel = axes.iter().map(|&&axis| self.values.size(axis)).product();
        let mut lines = Vec::new();
        for place in shown(numel) {
            let Some(mut rest) = place else {
                lines.push([String::new(), notation.dots().to_owned()]);
                continue;
            };
            let mut index: Index = [0; 4];
            for &&axis in axes.iter().rev() {
                index[axis as usize] = rest % self.values.size(axis);
                rest /= self.values.size(axis);
            }
            let result = at(self.values.gradient(of)?, &index)?;
            let left = if numel == 1 { String::new() } else { write.gradient_element(of, &index) };
            let numbers = write.numbers(formula, &index)?;
            let result = notation.number(result);
            let right = if numbers == result { result } else { format!("{numbers} = {result}") };
            lines.push([left, right]);
        }
        Ok(lines)
    }

    /// Lists the remarks, below their heading.
    pub(crate) fn remark_list(&self, notation: Notation) -> Result<Vec<Block>> {
        let remarks = remarks(self, &self.writer(notation))?;
        Ok(vec![Block::Heading("Remarks"), Block::List(remarks)])
    }

    /// Says how many rows agree with the run.
    pub(crate) fn conclusion(&self) -> Block {
        let (rows, differ) = (self.checks().count(), self.disagreeing().count());
        Block::Paragraph(line(&match differ {
            0 => format!("All {rows} rows agree with the run."),
            differ => format!("{differ} of {rows} rows DIFFER from the run."),
        }))
    }

    pub(crate) fn is_float64(&self) -> bool {
        self.forward.first().is_some_and(|row| row.run.tensor.kind() == tch::Kind::Double)
    }
}

fn verdict(check: &Check) -> Result<Line> {
    let Some(found) = &check.disagreement else { return Ok(line("agree")) };
    let (difference, allowed) = (exponential(found.difference, 1), exponential(found.allowed, 1));
    Ok(vec![
        Piece::Alarm(format!(
            "DIFFER by {difference} at {:?}, where {allowed} is allowed; by hand ",
            found.index
        )),
        values(&check.by_hand)?,
    ])
}

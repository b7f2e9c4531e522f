//! The parts of a document, as plain data that the formats render.

use anyhow::Result;
use tch::Tensor;

use super::writer::MAX_TERMS;
use crate::torch::elements;

/// A part of a line.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    Text(String),
    /// Text that must not be missed, such as a disagreement.
    Alarm(String),
    /// A formula, in the notation that was asked for.
    Math(String),
    /// A tensor as PyTorch prints it, on one or more lines.
    Values(String),
}

pub(crate) type Line = Vec<Piece>;

#[derive(Debug)]
pub(crate) enum Block {
    Heading(&'static str),
    Paragraph(Line),
    List(Vec<Line>),
    Table {
        head: Vec<Line>,
        rows: Vec<Vec<Line>>,
    },
    /// The left side, which may be empty, and the right side of each equation.
    Equations(Vec<[String; 2]>),
}

/// Splits text whose formulas stand between dollar signs into pieces.
pub(crate) fn line(text: &str) -> Line {
    let part = |(at, part): (usize, &str)| match at % 2 {
        0 => Piece::Text(part.to_owned()),
        _ => Piece::Math(part.to_owned()),
    };
    text.split('$').enumerate().map(part).collect()
}

/// Prints a tensor as PyTorch does, but summarizes it as soon as a dimension exceeds [`MAX_TERMS`].
pub(crate) fn values(tensor: &Tensor) -> Result<Piece> {
    let summarize = tensor.size().iter().any(|&n| n > MAX_TERMS);
    Ok(Piece::Values(elements(tensor, 0, summarize)?))
}

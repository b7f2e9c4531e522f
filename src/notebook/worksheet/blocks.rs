//! What a document is made of: plain data, which the formats render.

use anyhow::Result;
use tch::Tensor;

use super::writer::MAX_TERMS;
use crate::torch::elements;

/// A part of a line.
#[derive(Clone, Debug)]
pub(crate) enum Piece {
    Text(String),
    /// Text not to be missed.
    Alarm(String),
    /// In the notation that was asked for.
    Math(String),
    /// A tensor as it is printed, in as many lines as that takes.
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
    /// Of each the left side, which may be empty, and the right.
    Equations(Vec<[String; 2]>),
}

/// Text, with formulas between dollar signs.
pub(crate) fn line(text: &str) -> Line {
    let part = |(at, part): (usize, &str)| match at % 2 {
        0 => Piece::Text(part.to_owned()),
        _ => Piece::Math(part.to_owned()),
    };
    text.split('$').enumerate().map(part).collect()
}

/// As PyTorch prints it, summarized from fewer elements on.
pub(crate) fn values(tensor: &Tensor) -> Result<Piece> {
    let summarize = tensor.size().iter().any(|&n| n > MAX_TERMS);
    Ok(Piece::Values(elements(tensor, 0, summarize)?))
}

//! The worksheet as text for a terminal.

use anyhow::Result;

use super::Worksheet;
use super::blocks::{Block, Line, Piece};
use super::notation::Notation;
use crate::report::text::aligned;

/// The number of columns at which paragraphs are wrapped. Tables are not wrapped.
const WIDTH: usize = 100;

/// The number of spaces between the columns of a table.
const GAP: u16 = 3;

impl Worksheet {
    /// Renders the worksheet for a terminal, with formulas in Unicode.
    ///
    /// # Errors
    /// Returns libtorch's errors.
    pub fn text(&self) -> Result<String> {
        let title = format!("Worksheet of {}\n\n", self.title);
        let blocks = self.document(Notation::Unicode)?;
        Ok(title + &blocks.iter().map(block).collect::<String>())
    }
}

fn block(block: &Block) -> String {
    match block {
        Block::Heading(text) => format!("{text}\n{}\n\n", "-".repeat(text.len())),
        Block::Paragraph(line) => format!("{}\n\n", wrapped(&cell(line).join(" "), "")),
        Block::List(items) => {
            let item = |item| format!("- {}\n", wrapped(&cell(item).join(" "), "  "));
            items.iter().map(item).collect::<String>() + "\n"
        }
        Block::Table { head, rows } => table(head, rows),
        Block::Equations(equations) => {
            let width = equations.iter().map(|[left, _]| columns(left)).max().unwrap_or(0);
            let line = |[left, right]: &[String; 2]| format!("{} = {right}\n", padded(left, width));
            equations.iter().map(line).collect::<String>() + "\n"
        }
    }
}

fn table(head: &[Line], rows: &[Vec<Line>]) -> String {
    let rows = [head].into_iter().chain(rows.iter().map(Vec::as_slice));
    let cells = rows.map(|row| row.iter().map(|line| cell(line).join("\n")));
    aligned(cells, GAP) + "\n\n"
}

/// Returns the lines of a cell. The lines of a tensor are aligned below each other.
fn cell(line: &Line) -> Vec<String> {
    let mut lines = vec![String::new()];
    for piece in line {
        let (Piece::Text(text) | Piece::Alarm(text) | Piece::Math(text) | Piece::Values(text)) =
            piece;
        let indent = lines.last().map_or(0, |last| columns(last));
        for (at, text) in text.lines().enumerate() {
            match lines.last_mut() {
                Some(last) if at == 0 => *last += text,
                _ => lines.push(" ".repeat(indent) + text),
            }
        }
    }
    lines
}

fn wrapped(text: &str, indent: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(last) if last.is_empty() => *last += word,
            Some(last) if columns(last) + 1 + columns(word) + indent.len() <= WIDTH => {
                *last += " ";
                *last += word;
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join(&format!("\n{indent}"))
}

fn padded(text: &str, width: usize) -> String {
    text.to_owned() + &" ".repeat(width.saturating_sub(columns(text)))
}

/// Returns the width of `text` in columns. Every character that is used here takes one column.
fn columns(text: &str) -> usize {
    text.chars().count()
}

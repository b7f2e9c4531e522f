//! The worksheet in Markdown, with LaTeX as GitHub and Jupyter render it.

use anyhow::Result;

use super::Worksheet;
use super::blocks::{Block, Line, Piece};
use super::notation::Notation;

impl Worksheet {
    /// Renders the worksheet as Markdown, for GitHub and Jupyter.
    ///
    /// # Errors
    /// Returns libtorch's errors.
    pub fn markdown(&self) -> Result<String> {
        let title = format!("# Worksheet of {}\n\n", escape(&self.title));
        Ok(title + &markdown(&self.document(Notation::Latex)?))
    }
}

/// Renders blocks as Markdown, with an empty line after each.
pub(super) fn markdown(blocks: &[Block]) -> String {
    blocks.iter().map(block).collect()
}

fn block(block: &Block) -> String {
    match block {
        Block::Heading(text) => format!("## {text}\n\n"),
        Block::Paragraph(line) => format!("{}\n\n", inline(line)),
        Block::List(items) => {
            items.iter().map(|item| format!("- {}\n", inline(item))).collect::<String>() + "\n"
        }
        Block::Table { head, rows } => {
            let row = |cells: &[Line]| {
                let cells = cells.iter().map(inline).collect::<Vec<_>>();
                format!("| {} |\n", cells.join(" | "))
            };
            let rule = format!("|{}\n", "---|".repeat(head.len()));
            row(head) + &rule + &rows.iter().map(|cells| row(cells)).collect::<String>() + "\n"
        }
        Block::Equations(equations) => {
            let line = |[left, right]: &[String; 2]| match left.as_str() {
                "" => format!(r"$\quad = {right}$"),
                left => format!("${left} = {right}$"),
            };
            equations.iter().map(line).collect::<Vec<_>>().join("<br>\n") + "\n\n"
        }
    }
}

fn inline(line: &Line) -> String {
    let piece = |piece: &Piece| match piece {
        Piece::Text(text) => text.clone(),
        Piece::Alarm(text) => format!("**{text}**"),
        Piece::Math(latex) => format!("${latex}$"),
        Piece::Values(text) => {
            let lines = text.lines().map(|line| format!("`{}`", line.trim()));
            lines.collect::<Vec<_>>().join("<br>")
        }
    };
    line.iter().map(piece).collect()
}

/// Escapes the characters of a name that have a meaning in Markdown.
pub(super) fn escape(text: &str) -> String {
    let escape =
        |c: char| if r"\`*_{}[]<>#|$&~!".contains(c) { format!("\\{c}") } else { c.to_string() };
    text.chars().map(escape).collect()
}

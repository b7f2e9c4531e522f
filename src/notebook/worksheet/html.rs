//! The worksheet as one self-contained HTML page, with formulas in MathML and the figure inline.

use anyhow::{Context, Result};
use pulldown_latex::{Parser, RenderConfig, Storage, push_mathml};

use super::Worksheet;
use super::blocks::{Block, Line, Piece};
use super::notation::Notation;
use crate::report::xml::{escape, escape_lines};

const STYLE: &str = "
:root { color-scheme: light dark; --page: #ffffff; --line: #d0d7de; --faint: #f6f8fa;
  --bad: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --page: #0d1117; --line: #3d444d; --faint: #161b22; --bad: #ff7b72; } }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem;
  background: var(--page); }
figure { margin: 1.5rem 0; }
figure svg { width: 100%; height: auto; }
div { overflow-x: auto; }
table { border-collapse: collapse; margin: 0.8rem 0; }
th { text-align: left; background: var(--faint); }
th, td { border: 1px solid var(--line); padding: 0.4rem 0.7rem; vertical-align: top; }
td math { math-style: normal; }
table.equations td { border: 0; padding: 0.3rem 0.2rem; white-space: nowrap; vertical-align: baseline; }
table.equations td:first-child { text-align: right; }
code { font: 0.85em ui-monospace, monospace; white-space: pre; display: inline-block; vertical-align: top; }
strong { color: var(--bad); }
";

impl Worksheet {
    /// Renders the worksheet as a page for a browser.
    ///
    /// # Errors
    /// Returns libtorch's errors.
    pub fn html(&self) -> Result<String> {
        let title = escape(&format!("Worksheet of {}", self.title));
        let figure = match self.figure() {
            Ok(svg) => format!("<figure>\n{svg}</figure>\n"),
            Err(too_large) => format!("<p>No figure: {}.</p>\n", escape(&format!("{too_large:#}"))),
        };
        let blocks = self.document(Notation::Latex)?;
        let blocks = blocks.iter().map(block).collect::<Result<String>>()?;
        Ok(format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<link rel=\"icon\" href=\"data:,\">\n\
             <title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n\
             {figure}{blocks}</body>\n</html>\n"
        ))
    }
}

fn block(block: &Block) -> Result<String> {
    Ok(match block {
        Block::Heading(text) => format!("<h2>{text}</h2>\n"),
        Block::Paragraph(line) => format!("<p>{}</p>\n", inline(line)?),
        Block::List(items) => {
            let item = |item| anyhow::Ok(format!("<li>{}</li>\n", inline(item)?));
            format!("<ul>\n{}</ul>\n", items.iter().map(item).collect::<Result<String>>()?)
        }
        Block::Table { head, rows } => {
            let row = |tag: &str, cells: &[Line]| {
                let cell = |line| anyhow::Ok(format!("<{tag}>{}</{tag}>", inline(line)?));
                let cells = cells.iter().map(cell).collect::<Result<String>>()?;
                anyhow::Ok(format!("<tr>{cells}</tr>\n"))
            };
            let rows = rows.iter().map(|cells| row("td", cells)).collect::<Result<String>>()?;
            format!("<div><table>\n{}{rows}</table></div>\n", row("th", head)?)
        }
        Block::Equations(equations) => {
            let row = |[left, right]: &[String; 2]| {
                let (left, right) = (mathml(left)?, mathml(&format!("= {right}"))?);
                anyhow::Ok(format!("<tr><td>{left}</td><td>{right}</td></tr>\n"))
            };
            let rows = equations.iter().map(row).collect::<Result<String>>()?;
            format!("<div><table class=\"equations\">\n{rows}</table></div>\n")
        }
    })
}

fn inline(line: &Line) -> Result<String> {
    let piece = |piece: &Piece| {
        Ok(match piece {
            Piece::Text(text) => escape(text),
            Piece::Alarm(text) => format!("<strong>{}</strong>", escape(text)),
            Piece::Math(latex) => mathml(latex)?,
            Piece::Values(text) => format!("<code>{}</code>", escape_lines(text)),
        })
    };
    line.iter().map(piece).collect()
}

fn mathml(latex: &str) -> Result<String> {
    let mut mathml = String::new();
    if !latex.is_empty() {
        let storage = Storage::new();
        push_mathml(&mut mathml, Parser::new(latex, &storage), RenderConfig::default())
            .with_context(|| latex.to_owned())?;
    }
    Ok(mathml)
}

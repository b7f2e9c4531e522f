//! The elements in brackets, with as many on a line as fit.

use super::LINEWIDTH;
use super::column::Column;

const EDGEITEMS: usize = 3;

/// Returns whether only the first and last three of `n` slices or elements are shown.
pub(crate) fn is_cut(n: usize, summarize: bool) -> bool {
    summarize && n > 2 * EDGEITEMS
}

impl Column {
    /// Writes `cells` in brackets, as PyTorch's `_tensor_str_with_formatter` does. The cells are the elements of a
    /// tensor of `shape`, or of its edges.
    pub(super) fn nested(
        &self,
        cells: &[String],
        shape: &[usize],
        indent: usize,
        summarize: bool,
    ) -> String {
        let (n, inner) = match shape {
            [] => return cells.concat(),
            [n] => return self.vector(cells, *n, indent, summarize),
            [n, inner @ ..] => (*n, inner),
        };
        let cut = is_cut(n, summarize);
        let shown = if cut { 2 * EDGEITEMS } else { n };
        let mut slices = cells
            .chunks(cells.len() / shown)
            .map(|cells| self.nested(cells, inner, indent + 1, summarize))
            .collect::<Vec<_>>();
        if cut {
            slices.insert(EDGEITEMS, "...".to_owned());
        }
        let separator = format!(",{}{}", "\n".repeat(inner.len()), " ".repeat(indent + 1));
        format!("[{}]", slices.join(&separator))
    }

    /// Writes the cells of a vector, with as many on a line as fit, as PyTorch's `_vector_str` does.
    fn vector(&self, cells: &[String], n: usize, indent: usize, summarize: bool) -> String {
        let per_line = (LINEWIDTH.saturating_sub(indent) / (self.width + 2)).max(1);
        let mut cells = cells.iter().map(String::as_str).collect::<Vec<_>>();
        if is_cut(n, summarize) {
            cells.insert(EDGEITEMS, " ...");
        }
        let lines = cells.chunks(per_line).map(|line| line.join(", ")).collect::<Vec<_>>();
        format!("[{}]", lines.join(&format!(",\n{}", " ".repeat(indent + 1))))
    }
}

//! What plots have in common, and histograms, in SVG.

use std::fmt::Write;

use crate::report::xml::escape;

pub(super) const WIDTH: f64 = 640.;
pub(super) const HEIGHT: f64 = 220.;
/// The room for the labels of the axis below.
pub(super) const BOTTOM: f64 = 30.;
pub(super) const TOP: f64 = 12.;
/// The width of the widest bar.
const MAX_BAR: f64 = 64.;

/// Draws bars, whose heights are logarithmic, with their labels below.
pub(super) fn bars(title: &str, bars: &[(String, usize)]) -> String {
    let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(0);
    if most == 0 {
        return String::new();
    }
    let mut svg = begin(title);
    let width = ((WIDTH - 12.) / bars.len() as f64).min(MAX_BAR);
    let height = |count: usize| {
        ((count + 1) as f64).ln() / ((most + 1) as f64).ln() * (HEIGHT - 2. * BOTTOM)
    };
    // One shape for all of them, since a page has many histograms.
    let mut outlines = String::new();
    for (at, (label, count)) in bars.iter().enumerate() {
        let (left, tall) = (at as f64 * width + 6., height(*count));
        let (top, middle) = (HEIGHT - BOTTOM - tall, left + width / 2.);
        let _ = write!(
            outlines,
            "M{left:.1} {top:.1}h{:.1}v{tall:.1}H{left:.1}z",
            (width - 2.).max(1.)
        );
        let _ = write!(
            svg,
            "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{count}</text>\
             <text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            top - 4.,
            HEIGHT - 12.,
            escape(label),
        );
    }
    svg + &format!("<path class=\"bar\" d=\"{outlines}\"/></svg>")
}

pub(super) fn begin(title: &str) -> String {
    let title = escape(title);
    format!(
        "<svg role=\"img\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\"><title>{title}</title>"
    )
}

//! The lines, text and symbols that the figure consists of, in SVG, and the room that they take.

use crate::report::xml::escape;
use std::fmt::Write;

/// The width of a character, as a share of the font size. It is a little more than in common monospaced fonts.
const ADVANCE: f64 = 0.62;

/// The height of a line, as a share of the font size.
pub(super) const LINE: f64 = 1.4;

/// The font size of superscripts and subscripts, as a share of that of the symbol.
const SCRIPT: f64 = 0.75;

pub(super) const STYLE: &str = "
svg.net { --paper: #ffffff; --ink: #1f2328; --gradient: #a0206e; --dead: #767e87; --card: #f6f8fa;
  --plus: #0969da; --minus: #bc4c00; font-family: 'DejaVu Sans Mono', ui-monospace, monospace; }
@media (prefers-color-scheme: dark) { svg.net { --paper: #0d1117; --ink: #e6edf3; --gradient: #ff80c8;
  --dead: #7d8590; --card: #161b22; --plus: #58a6ff; --minus: #f0883e; } }
.net .paper { fill: var(--paper); }
.net .card { fill: var(--card); stroke: var(--ink); }
.net .edge { fill: none; stroke: var(--ink); }
.net .edge.plus { stroke: var(--plus); }
.net .edge.minus { stroke: var(--minus); stroke-dasharray: 6 3; }
.net .card.dead, .net .edge.dead { stroke: var(--dead); }
.net text { fill: var(--ink); }
.net text.gradient { fill: var(--gradient); }
.net text.dead { fill: var(--dead); }
.net text.label { stroke: var(--paper); stroke-width: 5px; paint-order: stroke; text-anchor: middle; }
.net text.end { text-anchor: end; }
";

/// A letter with a superscript and a subscript.
pub(super) struct Symbol {
    pub(super) letter: &'static str,
    pub(super) above: String,
    pub(super) below: String,
}

impl Symbol {
    pub(super) fn width(&self, font: f64) -> f64 {
        let script = (self.above.len() + self.below.len()) as f64;
        (self.letter.chars().count() as f64 + SCRIPT * script) * ADVANCE * font
    }

    pub(super) fn draw(&self, svg: &mut String, class: &str, font: f64, [x, y]: [f64; 2]) {
        let Symbol { letter, above, below } = self;
        let (script, up, down) = (SCRIPT * font, 0.4 * font, 0.2 * font);
        let _ = writeln!(
            svg,
            "<text class=\"{}\" font-size=\"{font}\" x=\"{x:.1}\" y=\"{y:.1}\">{letter}\
             <tspan font-size=\"{script:.1}\" dy=\"-{up:.1}\">{above}</tspan>\
             <tspan font-size=\"{script:.1}\" dy=\"{:.1}\">{below}</tspan></text>",
            class.trim(),
            if above.is_empty() { down } else { up + down },
        );
    }
}

pub(super) fn width(text: &str, font: f64) -> f64 {
    text.chars().count() as f64 * ADVANCE * font
}

pub(super) fn text(svg: &mut String, class: &str, font: f64, [x, y]: [f64; 2], words: &str) {
    let (class, words) = (class.trim(), escape(words));
    let _ = writeln!(
        svg,
        "<text class=\"{class}\" font-size=\"{font}\" x=\"{x:.1}\" y=\"{y:.1}\">{words}</text>"
    );
}

/// A straight line, from left to right.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    pub(super) from: [f64; 2],
    pub(super) to: [f64; 2],
}

impl Segment {
    /// Returns the point at a share of the segment's length.
    pub(super) fn point(&self, share: f64) -> [f64; 2] {
        let ([x1, y1], [x2, y2]) = (self.from, self.to);
        [x1 + share * (x2 - x1), y1 + share * (y2 - y1)]
    }

    /// Draws the segment. A browser shows the title, unless it is empty, while the pointer is on the segment.
    pub(super) fn draw(&self, svg: &mut String, class: &str, width: f64, title: &str) {
        let ([x1, y1], [x2, y2]) = (self.from, self.to);
        let title =
            if title.is_empty() { String::new() } else { format!("<title>{title}</title>") };
        let _ = writeln!(
            svg,
            "<path class=\"{class}\" stroke-width=\"{width:.1}\" d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\">{title}</path>"
        );
    }

    pub(super) fn crosses(&self, area: &Area) -> bool {
        let length = self.to[0] - self.from[0];
        let share = |x: f64| ((x - self.from[0]) / length).clamp(0., 1.);
        let (a, b) =
            (self.point(share(area.left))[1], self.point(share(area.left + area.width))[1]);
        a.max(b) >= area.top && a.min(b) <= area.top + area.height
    }
}

/// A rectangle.
#[derive(Clone, Copy)]
pub(super) struct Area {
    pub(super) left: f64,
    pub(super) top: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

impl Area {
    pub(super) fn overlaps(&self, other: &Area) -> bool {
        self.left < other.left + other.width
            && other.left < self.left + self.width
            && self.top < other.top + other.height
            && other.top < self.top + self.height
    }

    /// Returns the middles of the left and of the right side, moved down by the share `down` of the
    /// height.
    pub(super) fn sides(&self, down: f64) -> [[f64; 2]; 2] {
        let y = self.top + (0.5 + down) * self.height;
        [[self.left, y], [self.left + self.width, y]]
    }

    pub(super) fn draw(&self, svg: &mut String, class: &str) {
        let Area { left, top, width, height } = self;
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{left:.1}\" y=\"{top:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             rx=\"4\"/>"
        );
    }
}

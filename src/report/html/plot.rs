//! Line plots and histograms in SVG.

use std::fmt::Write;

use crate::report::text::number;
use crate::report::xml::escape;
use crate::repr::float::exponential;

const WIDTH: f64 = 640.;
const HEIGHT: f64 = 220.;
/// The room for the labels of the axes.
const LEFT: f64 = 76.;
const BOTTOM: f64 = 30.;
const TOP: f64 = 12.;
/// The most labels of an axis.
const LABELS: i32 = 6;
/// The most points of a line, which is about as many as it has pixels.
const MAX_POINTS: usize = 600;
/// The number of colours that lines have.
const COLOURS: usize = 6;

/// A line of a plot: points by their step.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(u32, f64)>,
}

/// Draws lines over the steps. The axis of values is logarithmic if all are positive or `zeros` is set; then values of
/// zero are drawn at the bottom.
pub(super) fn lines(title: &str, lines: &[Line], zeros: bool) -> String {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let finite = || points().map(|(_, value)| value).filter(|value| value.is_finite());
    let positive = || finite().filter(|value| *value > 0.);
    let logarithmic = zeros || finite().all(|value| value > 0.);
    let scale = |value: f64| if logarithmic { value.log10() } else { value };
    let range = |values: &mut dyn Iterator<Item = f64>| {
        values.map(scale).fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), value| {
            (least.min(value), most.max(value))
        })
    };
    let (least, most) = if logarithmic { range(&mut positive()) } else { range(&mut finite()) };
    let (Some(first), Some(last)) =
        (points().map(|(step, _)| step).min(), points().map(|(step, _)| step).max())
    else {
        return String::new();
    };
    if !least.is_finite() {
        return String::new();
    }
    // Whole powers of ten, unless there are none between.
    let is_wide = zeros || logarithmic && most - least > 1.;
    let (low, high) = match is_wide {
        true => (least.floor() - f64::from(u8::from(zeros)), most.ceil().max(least.floor() + 1.)),
        false if least < most => (least, most),
        false => (least - 0.05, least + 0.05),
    };
    let x = |step: u32| {
        let steps = f64::from(last - first).max(1.);
        LEFT + f64::from(step - first) / steps * (WIDTH - LEFT - 12.)
    };
    let y = |value: f64| {
        let at = if logarithmic && value <= 0. { low } else { scale(value).clamp(low, high) };
        TOP + (high - at) / (high - low) * (HEIGHT - TOP - BOTTOM)
    };
    let mut svg = begin(title);
    let by = ((high - low) / f64::from(LABELS)).ceil().max(1.);
    let labels = if is_wide { ((high - low) / by) as i32 } else { LABELS };
    for at in 0..=labels {
        let part = if is_wide { by } else { (high - low) / f64::from(labels) };
        let value = high - f64::from(at) * part;
        let value = if logarithmic { 10f64.powf(value) } else { value };
        // Values that are near each other need more digits to be told apart.
        let label = if is_wide { number(value) } else { exponential(value, 4) };
        let height = y(value);
        grid(&mut svg, height, &label);
    }
    if zeros && points().any(|(_, value)| value == 0.) {
        grid(&mut svg, y(0.), "bitwise");
    }
    for (step, anchor) in [(first, "start"), (last, "end")] {
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">step {step}</text>",
            x(step),
            HEIGHT - 12.
        );
    }
    for (at, line) in lines.iter().enumerate() {
        let every = line.points.len().div_ceil(MAX_POINTS).max(1);
        let drawn = line.points.iter().step_by(every).filter(|(_, value)| value.is_finite());
        let drawn = drawn.map(|&(step, value)| format!("{:.1},{:.1}", x(step), y(value)));
        let drawn = drawn.collect::<Vec<_>>();
        let class = at % COLOURS;
        match &drawn[..] {
            [] => {}
            [point] => {
                let (x, y) = point.split_once(',').unwrap_or_default();
                let _ =
                    write!(svg, "<circle class=\"mark c{class}\" cx=\"{x}\" cy=\"{y}\" r=\"3\"/>");
            }
            several => {
                let points = several.join(" ");
                let _ = write!(svg, "<polyline class=\"c{class}\" points=\"{points}\"/>");
            }
        }
    }
    svg += "</svg><p class=\"key\">";
    for (at, line) in lines.iter().enumerate() {
        let (class, name) = (at % COLOURS, escape(&line.name));
        let _ = write!(
            svg,
            "<span><svg width=\"24\" height=\"8\"><polyline class=\"c{class}\" points=\"0,4 24,4\"/></svg> \
             {name}</span>"
        );
    }
    svg + "</p>"
}

/// Draws bars, whose heights are logarithmic, with their labels below.
pub(super) fn bars(title: &str, bars: &[(String, usize)]) -> String {
    let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(0);
    if most == 0 {
        return String::new();
    }
    let mut svg = begin(title);
    let width = (WIDTH - 12.) / bars.len() as f64;
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

fn begin(title: &str) -> String {
    let title = escape(title);
    format!(
        "<svg role=\"img\" width=\"{WIDTH}\" height=\"{HEIGHT}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\"><title>{title}</title>"
    )
}

fn grid(svg: &mut String, y: f64, label: &str) {
    let (end, right, below) = (WIDTH - 12., LEFT - 6., y + 4.);
    let _ = write!(
        svg,
        "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{end}\"/>\
         <text x=\"{right}\" y=\"{below:.1}\" text-anchor=\"end\">{label}</text>"
    );
}

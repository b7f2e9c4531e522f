//! Line plots in SVG, with the places where a line has no number.

use std::fmt::Write;

use super::axis::Axis;
use super::plot::{BOTTOM, HEIGHT, TOP, WIDTH, begin};
use crate::report::xml::escape;

/// The room on the right.
const RIGHT: f64 = 12.;
/// The width of a character of a label, and the least room for labels.
const CHARACTER: f64 = 6.6;
const LEAST_LEFT: f64 = 52.;
/// The most points of a line, which is about as many as it has pixels.
const MAX_POINTS: usize = 600;
/// The most places of a line that are marked as no number.
const MAX_MARKS: usize = 20;
/// The most of them that the key names.
const MAX_WORDS: usize = 3;
/// The number of colours that lines have.
const COLOURS: usize = 6;
/// The height of a row of marks.
const MARK: f64 = 13.;

/// A line of a plot: points by their step. A value that is no finite number interrupts the line.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(u32, f64)>,
}

/// Draws lines over the steps. Where they are of `errors`, zeros are drawn at the bottom of a logarithmic axis.
pub(super) fn lines(title: &str, lines: &[Line], errors: bool) -> String {
    let points = || lines.iter().flat_map(|line| line.points.iter().copied());
    let steps = points().map(|(step, _)| step);
    let (Some(first), Some(last)) = (steps.clone().min(), steps.max()) else {
        return String::new();
    };
    let Some(axis) = Axis::of(points().map(|(_, value)| value), errors) else {
        return format!("<p>{}: no value is a finite number.</p>", escape(title));
    };
    let longest = axis.labels.iter().map(|(_, label)| label.chars().count()).max().unwrap_or(0);
    let left = (longest as f64 * CHARACTER + 10.).max(LEAST_LEFT);
    // The marks stand in rows above the lines, a row for each line that has some.
    let has_marks = |line: &&Line| line.points.iter().any(|(_, value)| !value.is_finite());
    let top = TOP + MARK * lines.iter().filter(has_marks).count() as f64;
    let x = |step: u32| {
        let steps = f64::from(last - first).max(1.);
        left + f64::from(step - first) / steps * (WIDTH - left - RIGHT)
    };
    let height = |part: f64| top + (1. - part) * (HEIGHT - top - BOTTOM);
    let mut svg = begin(title);
    for (at, label) in &axis.labels {
        let (y, end, right) = (height(axis.part(*at)), WIDTH - RIGHT, left - 6.);
        let _ = write!(
            svg,
            "<path class=\"grid\" d=\"M{left:.1} {y:.1}H{end}\"/>\
             <text x=\"{right:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            y + 4.,
        );
    }
    for (step, anchor) in [(first, "start"), (last, "end")] {
        let _ = write!(
            svg,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">step {step}</text>",
            x(step),
            HEIGHT - 12.
        );
    }
    let mut row = TOP;
    for (at, line) in lines.iter().enumerate() {
        let class = at % COLOURS;
        for piece in pieces(&line.points) {
            draw(&mut svg, class, piece, |(step, value)| (x(step), height(axis.place(value))));
        }
        let marks = marks(&line.points);
        for &mark in marks.iter().take(MAX_MARKS) {
            draw_mark(&mut svg, class, mark, x, row);
        }
        row += if marks.is_empty() { 0. } else { MARK };
    }
    svg += "</svg><p class=\"key\">";
    for (at, line) in lines.iter().enumerate() {
        let (class, name) = (at % COLOURS, escape(&line.name));
        let marks = in_words(&marks(&line.points));
        let _ = write!(
            svg,
            "<span><svg width=\"24\" height=\"8\"><polyline class=\"c{class}\" points=\"0,4 24,4\"/></svg> \
             {name}{marks}</span>"
        );
    }
    svg + "</p>"
}

/// Returns the points between those that are no finite numbers.
fn pieces(points: &[(u32, f64)]) -> impl Iterator<Item = &[(u32, f64)]> {
    points.split(|(_, value)| !value.is_finite()).filter(|piece| !piece.is_empty())
}

fn draw(
    svg: &mut String,
    class: usize,
    points: &[(u32, f64)],
    place: impl Fn((u32, f64)) -> (f64, f64),
) {
    if let [point] = points {
        let (x, y) = place(*point);
        let _ =
            write!(svg, "<circle class=\"mark c{class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\"/>");
        return;
    }
    let every = points.len().div_ceil(MAX_POINTS).max(1);
    let drawn = points.iter().step_by(every).chain(points.last()).map(|point| {
        let (x, y) = place(*point);
        format!("{x:.1},{y:.1}")
    });
    let drawn = drawn.collect::<Vec<_>>().join(" ");
    let _ = write!(svg, "<polyline class=\"c{class}\" points=\"{drawn}\"/>");
}

/// The steps from the first to the last of which a line has no finite number, and how the first one is written.
type Mark = (u32, u32, &'static str);

fn marks(points: &[(u32, f64)]) -> Vec<Mark> {
    let mut marks = Vec::<Mark>::new();
    let mut goes_on = false;
    for &(step, value) in points {
        let word = match value {
            value if value.is_finite() => {
                goes_on = false;
                continue;
            }
            value if value.is_nan() => "nan",
            value if value > 0. => "inf",
            _ => "-inf",
        };
        match marks.last_mut().filter(|_| goes_on) {
            Some(mark) if mark.2 == word => mark.1 = step,
            _ => marks.push((step, step, word)),
        }
        goes_on = true;
    }
    marks
}

/// Draws a cross at the first step, and a bar over all of them.
fn draw_mark(svg: &mut String, class: usize, mark: Mark, x: impl Fn(u32) -> f64, top: f64) {
    let (from, to, y) = (x(mark.0), x(mark.1), top + MARK / 2. - 2.);
    let _ = write!(
        svg,
        "<path class=\"nan c{class}\" d=\"M{:.1} {:.1}l6 6m0 -6l-6 6M{from:.1} {y:.1}H{to:.1}\"/>",
        from - 3.,
        y - 3.,
    );
}

/// Says for the key where a line has no finite number.
fn in_words(marks: &[Mark]) -> String {
    let shown = marks.iter().take(MAX_WORDS).map(|(first, last, word)| match first == last {
        true => format!("{word} in step {first}"),
        false => format!("{word} in steps {first} to {last}"),
    });
    let shown = shown.collect::<Vec<_>>().join(", ");
    match marks.len() {
        0 => shown,
        1..=MAX_WORDS => format!(": {shown}"),
        more => format!(": {shown} and {} times more", more - MAX_WORDS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(values: &[f64]) -> Line {
        Line { name: "loss".to_owned(), points: (1..).zip(values.iter().copied()).collect() }
    }

    #[test]
    fn a_line_does_not_run_over_what_is_no_number() {
        let (nan, inf) = (f64::NAN, f64::INFINITY);
        let svg = lines("t", &[line(&[3., 2., inf, nan, nan, 1., 2.])], false);
        assert!(svg.contains("loss: inf in step 3, nan in steps 4 to 5</span>"), "{svg}");
        let svg = svg.split("</svg>").next().unwrap_or_default();
        assert_eq!(svg.matches("<polyline").count(), 2, "{svg}");
        assert_eq!(svg.matches("class=\"nan c0\"").count(), 2, "{svg}");
        let one = lines("t", &[line(&[3., nan, 2., 1.])], false);
        assert!(one.contains("<circle") && one.contains("loss: nan in step 2<"), "{one}");
        assert!(!lines("t", &[line(&[3., 2., 1.])], false).contains("class=\"nan"));
        let none = lines("The loss", &[line(&[nan, -inf])], false);
        assert_eq!(none, "<p>The loss: no value is a finite number.</p>");
    }

    /// Points are left out where a line has more than pixels, and never the numbers that it does not have.
    #[test]
    fn a_long_line_is_interrupted_as_well() {
        let mut values = vec![1.; 5000];
        values[1234] = f64::NAN;
        let svg = lines("t", &[line(&values)], true);
        assert!(svg.contains(": nan in step 1235<") && svg.len() < 30_000, "{}", svg.len());
    }
}

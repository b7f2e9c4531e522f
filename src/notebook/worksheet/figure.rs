//! The picture of the net: units with their values, edges with their weights, gradients beside both.

use anyhow::{Result, ensure};

use super::Worksheet;
use super::formula::{Axis, H2, H3, L, Quantity, W1, W2, W3, X, Y, Y_HAT, Z, Z2, Z3};
use super::notation::Notation;
use super::svg::{Area, LINE, STYLE, Segment, Symbol, text, width};
use super::writer::{Index, Writer, at};
use crate::report::xml::escape;
use crate::repr::float::exponential;

/// The largest number of units in a layer for which the net is drawn.
const MAX_UNITS: i64 = 64;

/// The largest number of edges between two layers that have labels. With more, labels could not be told apart.
const MAX_LABELS: usize = 12;

/// The width of the figure in pixels. The lengths that follow are in pixels, too.
const WIDTH: f64 = 900.;
const MARGIN: f64 = 12.;
const THINNEST: f64 = 0.6;
const LEGEND_FONT: f64 = 11.;
const LEGEND_LINE: f64 = 22.;

/// The share of the free width that follows each layer. The edge to the loss has no weight that needs room.
const SHARES: [f64; 5] = [0.3, 0.32, 0.3, 0.08, 0.];

/// The share of a unit's height over which its edges spread.
const SPREAD: f64 = 0.8;

/// The places along an edge where its label may stand, as shares of its length, the best first.
const PLACES: [f64; 9] = [0.5, 0.42, 0.58, 0.34, 0.66, 0.26, 0.74, 0.18, 0.82];

/// The amount of detail in which units are shown. It depends on the number of units in the largest layer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Detail {
    /// Both z and h of every hidden unit.
    Full,
    /// Only h of every hidden unit.
    Units,
    /// Only h of every hidden unit, with its gradient on the same line.
    Lines,
}

impl Detail {
    fn of(units: i64) -> Detail {
        match units {
            ..=8 => Detail::Full,
            9..=16 => Detail::Units,
            _ => Detail::Lines,
        }
    }

    fn font(self) -> f64 {
        match self {
            Detail::Full => 12.,
            Detail::Units => 10.5,
            Detail::Lines => 9.,
        }
    }

    /// Returns the width of the thickest edge.
    fn thickest(self) -> f64 {
        match self {
            Detail::Full => 4.,
            Detail::Units => 2.,
            Detail::Lines => 1.2,
        }
    }

    /// Returns the least gap between one unit and the next.
    fn gap(self) -> f64 {
        match self {
            Detail::Full => 30.,
            Detail::Units => 8.,
            Detail::Lines => 2.,
        }
    }
}

/// A unit of a layer, as the figure shows it.
struct Unit {
    rows: Vec<Row>,
    /// Whether the unit's ReLU is off, so that it lets nothing through.
    dead: bool,
}

struct Row {
    symbol: Symbol,
    value: f64,
    /// The gradient of the loss with respect to the value, which y and the loss itself do not have.
    gradient: Option<f64>,
}

/// A weight between two layers.
struct Edge {
    name: String,
    weight: f64,
    /// The gradient of the loss with respect to the weight, over the whole batch.
    gradient: f64,
    line: Segment,
}

struct Layer {
    axis: Option<Axis>,
    units: Vec<Unit>,
    /// The areas that the units take, in the same order.
    areas: Vec<Area>,
    /// Whether gradients stand below the values; otherwise they stand beside them.
    stacked: bool,
}

impl Worksheet {
    /// Draws the net with the first row of the batch, as an SVG document.
    ///
    /// # Errors
    /// Returns an error if a layer has more than 64 units, and libtorch's errors.
    pub fn figure(&self) -> Result<String> {
        let [_, d3, d2, d1] = self.values.sizes;
        let largest = d1.max(d2).max(d3);
        ensure!(
            largest <= MAX_UNITS,
            "a layer of {largest} units is too large to be drawn: the limit is {MAX_UNITS}"
        );
        let detail = Detail::of(largest);
        let hidden: [&[_]; 2] = match detail {
            Detail::Full => [&[&Z2, &H2], &[&Z3, &H3]],
            _ => [&[&H2], &[&H3]],
        };
        let mut layers = [
            self.layer(detail, Some(Axis::I), &[&X], None)?,
            self.layer(detail, Some(Axis::J), hidden[0], Some(&Z2))?,
            self.layer(detail, Some(Axis::K), hidden[1], Some(&Z3))?,
            self.layer(detail, None, &[&Z, &Y_HAT], None)?,
            self.layer(detail, None, &[&Y, &L], None)?,
        ];
        let height = arrange(&mut layers, detail);

        let mut edges = Vec::new();
        for (weight, pair) in [&W1, &W2, &W3].into_iter().zip(layers.windows(2)) {
            edges.push(self.edges(weight, &pair[0], &pair[1])?);
        }
        let sizes = edges.iter().flatten().map(|edge| edge.weight.abs());
        let greatest = sizes.filter(|size| size.is_finite()).fold(0., f64::max);
        let mut svg = String::new();
        for edge in edges.iter().flatten() {
            edge.draw(greatest, detail.thickest(), &mut svg);
        }
        let [.., output, loss] = &layers;
        let line = Segment { from: output.areas[0].sides(0.)[1], to: loss.areas[0].sides(0.)[0] };
        line.draw(&mut svg, "edge", 1., "");
        let mut taken = layers.iter().flat_map(|layer| &layer.areas).copied().collect();
        for edges in edges.iter().filter(|edges| edges.len() <= MAX_LABELS) {
            label(edges, detail.font() - 1., &mut taken, &mut svg);
        }
        for layer in &layers {
            for (unit, area) in layer.units.iter().zip(&layer.areas) {
                unit.draw(area, layer.gradients_beside(detail.font()), detail.font(), &mut svg);
            }
        }
        let height = self.legend(height, greatest, detail.thickest(), &mut svg);
        let title = escape(&format!("The net of {}", self.title));
        Ok(format!(
            "<svg class=\"net\" xmlns=\"http://www.w3.org/2000/svg\" role=\"img\" width=\"{WIDTH}\" \
             height=\"{height:.0}\" viewBox=\"0 0 {WIDTH} {height:.0}\">\n<title>{title}</title>\n\
             <style>{STYLE}</style>\n<rect class=\"paper\" width=\"100%\" height=\"100%\"/>\n{svg}</svg>\n"
        ))
    }

    /// Returns a layer with a unit for each index along `axis`, or with a single unit if there is no axis.
    ///
    /// Each unit shows `quantities`. A unit is dead where `z`, the argument of its ReLU, is 0 or less.
    fn layer(
        &self,
        detail: Detail,
        axis: Option<Axis>,
        quantities: &[&'static Quantity],
        z: Option<&Quantity>,
    ) -> Result<Layer> {
        let values = &self.values;
        let mut units = Vec::new();
        for place in 0..axis.map_or(1, |axis| values.size(axis)) {
            let index = index([(axis, place)]);
            let mut rows = Vec::new();
            for &quantity in quantities {
                let below = axis.map_or(String::new(), |_| (place + 1).to_string());
                let above = quantity.layer.map_or(String::new(), |layer| format!("({layer})"));
                let symbol = Symbol { letter: quantity.letter, above, below };
                let gradient = values.gradient(quantity).ok().map(|grid| at(grid, &index));
                let value = at(values.quantity(quantity)?, &index)?;
                rows.push(Row { symbol, value, gradient: gradient.transpose()? });
            }
            let z = z.map(|z| at(values.quantity(z)?, &index)).transpose()?;
            units.push(Unit { rows, dead: z.is_some_and(|z| z <= 0.) });
        }
        let stacked = detail != Detail::Lines || axis.is_none();
        Ok(Layer { axis, units, areas: Vec::new(), stacked })
    }

    fn edges(&self, weight: &Quantity, from: &Layer, to: &Layer) -> Result<Vec<Edge>> {
        let write = Writer { notation: Notation::Unicode, values: &self.values };
        let (weights, gradients) = (self.values.quantity(weight)?, self.values.gradient(weight)?);
        // At a unit, edges stand side by side, in the order of the units that they lead to.
        let share = |place: usize, of: usize| SPREAD * ((place as f64 + 0.5) / of as f64 - 0.5);
        let mut edges = Vec::new();
        for (a, start) in from.areas.iter().enumerate() {
            for (b, end) in to.areas.iter().enumerate() {
                let index = index([(from.axis, a as i64), (to.axis, b as i64)]);
                let line = Segment {
                    from: start.sides(share(b, to.areas.len()))[1],
                    to: end.sides(share(a, from.areas.len()))[0],
                };
                let name = write.element(weight, &index);
                let (weight, gradient) = (at(weights, &index)?, at(gradients, &index)?);
                edges.push(Edge { name, weight, gradient, line });
            }
        }
        Ok(edges)
    }

    /// Draws the legend from `top` downwards, and returns where it ends.
    fn legend(&self, top: f64, greatest: f64, thickest: f64, svg: &mut String) -> f64 {
        let samples = [
            ("edge plus", format!("weight > 0; this thick is {}", short(greatest))),
            ("edge minus", "weight < 0".to_owned()),
            ("edge dead", "weight whose gradient is 0".to_owned()),
        ];
        let (mut x, mut y) = (MARGIN, top);
        for (class, words) in samples {
            Segment { from: [x, y], to: [x + 36., y] }.draw(svg, class, thickest, "");
            text(svg, "", LEGEND_FONT, [x + 44., y + 4.], &words);
            x += 68. + width(&words, LEGEND_FONT);
        }
        let rows = self.values.size(Axis::N);
        let row = format!(
            "Of {rows} rows the first; the gradients of the weights are those of all rows."
        );
        let grey = match rows {
            1 => "grey: a dead unit (z ≤ 0), a gradient of 0",
            _ => "grey: a unit that is off in this row (z ≤ 0), a gradient of 0",
        };
        let mut lines = vec![
            vec![
                ("", "value of a unit or weight"),
                ("gradient", "gradient of the loss with respect to it"),
            ],
            vec![("dead", grey)],
        ];
        lines.extend((rows != 1).then(|| vec![("", row.as_str())]));
        let differs = "The run DIFFERS from these values: see its worksheet.";
        lines.extend((!self.agrees()).then(|| vec![("gradient", differs)]));
        for line in lines {
            (x, y) = (MARGIN, y + LEGEND_LINE);
            for (class, words) in line {
                text(svg, class, LEGEND_FONT, [x, y + 4.], words);
                x += width(words, LEGEND_FONT) + 2. * LEGEND_FONT;
            }
        }
        y + LEGEND_LINE
    }
}

impl Layer {
    fn width(&self, font: f64) -> f64 {
        let rows = || self.units.iter().flat_map(|unit| &unit.rows);
        let widest = |widths: &mut dyn Iterator<Item = f64>| widths.fold(0., f64::max);
        let symbol = widest(&mut rows().map(|row| row.symbol.width(font)));
        let values = widest(&mut rows().map(|row| width(&short(row.value), font)));
        let gradients = self.gradients(font);
        let numbers =
            self.gradients_beside(font).map_or(values.max(gradients), |beside| values + beside);
        symbol + numbers + 2. * font
    }

    fn gradients(&self, font: f64) -> f64 {
        let gradients =
            self.units.iter().flat_map(|unit| &unit.rows).filter_map(|row| row.gradient);
        gradients.map(|gradient| width(&short(gradient), font)).fold(0., f64::max)
    }

    /// Returns the width that gradients take beside the values; `None` if they stand below the values.
    fn gradients_beside(&self, font: f64) -> Option<f64> {
        (!self.stacked).then(|| font + self.gradients(font))
    }

    fn height(&self, font: f64) -> f64 {
        let lines = |row: &Row| 1 + usize::from(self.stacked && row.gradient.is_some());
        let unit = self.units.first();
        let lines = unit.map_or(0, |unit| unit.rows.iter().map(lines).sum::<usize>());
        lines as f64 * LINE * font + font / 2.
    }
}

/// Sets the area of every unit, and returns the height that all of them take.
fn arrange(layers: &mut [Layer], detail: Detail) -> f64 {
    let font = detail.font();
    let pitch = |layer: &Layer| layer.height(font) + detail.gap();
    let tallest =
        layers.iter().map(|layer| layer.units.len() as f64 * pitch(layer)).fold(0., f64::max);
    let taken = layers.iter().map(|layer| layer.width(font)).sum::<f64>();
    let mut left = MARGIN;
    for (layer, share) in layers.iter_mut().zip(SHARES) {
        let (width, height) = (layer.width(font), layer.height(font));
        let pitch = tallest / layer.units.len() as f64;
        let top = |place: usize| MARGIN + (place as f64 + 0.5) * pitch - height / 2.;
        let area = |place| Area { left, top: top(place), width, height };
        layer.areas = (0..layer.units.len()).map(area).collect();
        left += width + share * (WIDTH - 2. * MARGIN - taken);
    }
    tallest + 3. * MARGIN
}

impl Unit {
    fn draw(&self, area: &Area, beside: Option<f64>, font: f64, svg: &mut String) {
        let dead = if self.dead { "dead" } else { "" };
        area.draw(svg, &format!("card {dead}"));
        let (left, right) = (area.left + font / 2., area.left + area.width - font / 2.);
        let mut y = area.top + 1.2 * font;
        for Row { symbol, value, gradient } in &self.rows {
            symbol.draw(svg, dead, font, [left, y]);
            let end = right - beside.unwrap_or(0.);
            text(svg, &format!("end {dead}"), font, [end, y], &short(*value));
            if let Some(gradient) = gradient {
                y += if beside.is_some() { 0. } else { LINE * font };
                text(
                    svg,
                    &format!("end {}", class(*gradient)),
                    font,
                    [right, y],
                    &short(*gradient),
                );
            }
            y += LINE * font;
        }
    }
}

impl Edge {
    fn draw(&self, greatest: f64, thickest: f64, svg: &mut String) {
        let sign = match self.weight {
            weight if weight > 0. => " plus",
            weight if weight < 0. => " minus",
            _ => "",
        };
        let dead = if self.gradient == 0. { " dead" } else { "" };
        let share = if greatest > 0. { (self.weight.abs() / greatest).min(1.) } else { 0. };
        let width = THINNEST + (thickest - THINNEST) * share;
        let (name, weight, gradient) = (&self.name, short(self.weight), short(self.gradient));
        let title = format!("{name} = {weight}, gradient {gradient}");
        self.line.draw(svg, &format!("edge{sign}{dead}"), width, &title);
    }
}

/// Writes each weight and its gradient onto its edge, at the free place that the fewest other edges cross. An
/// edge without a free place has no label.
fn label(edges: &[Edge], font: f64, taken: &mut Vec<Area>, svg: &mut String) {
    for (at, edge) in edges.iter().enumerate() {
        let (weight, gradient) = (short(edge.weight), short(edge.gradient));
        let size = [width(&weight, font).max(width(&gradient, font)) + 4., 2. * LINE * font];
        let areas = PLACES.map(|place| {
            let [x, y] = edge.line.point(place);
            Area { left: x - size[0] / 2., top: y - size[1] / 2., width: size[0], height: size[1] }
        });
        let free = areas.iter().filter(|area| !taken.iter().any(|taken| area.overlaps(taken)));
        let crossings = |area: &&Area| {
            let others = edges.iter().enumerate().filter(|(other, _)| *other != at);
            others.filter(|(_, other)| other.line.crosses(area)).count()
        };
        let Some(&area) = free.min_by_key(crossings) else { continue };
        taken.push(area);
        let (x, y) = (area.left + area.width / 2., area.top + font);
        let dead = if edge.gradient == 0. { "dead" } else { "" };
        text(svg, &format!("label {dead}"), font, [x, y], &weight);
        text(
            svg,
            &format!("label {}", class(edge.gradient)),
            font,
            [x, y + LINE * font],
            &gradient,
        );
    }
}

/// Returns the CSS class of a gradient.
fn class(gradient: f64) -> &'static str {
    if gradient == 0. { "dead" } else { "gradient" }
}

fn index<const N: usize>(places: [(Option<Axis>, i64); N]) -> Index {
    let mut index = [0; 4];
    for (axis, place) in places {
        if let Some(axis) = axis {
            index[axis as usize] = place;
        }
    }
    index
}

/// Writes a number in few characters.
fn short(value: f64) -> String {
    let size = value.abs();
    let text = if value == value.round() && size < 1e5 {
        format!("{:.0}", value + 0.) // no -0
    } else if (1e-4..100.).contains(&size) {
        format!("{value:.4}")
    } else if (100.0..1e5).contains(&size) {
        format!("{value:.1}")
    } else {
        exponential(value, 1)
    };
    text.replacen('-', "−", usize::from(value < 0.))
}

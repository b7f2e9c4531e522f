//! The vertical axis of a plot: its range, and the values that are labelled.

/// The most labels of an axis.
const LABELS: f64 = 6.;

/// The least range of an axis, as a part of its values: a double has no more digits.
const LEAST_RANGE: f64 = 1e-12;

/// The largest magnitude on an axis, of which the range is finite.
const MOST: f64 = 1e300;

/// An axis from `low` to `high`, which are exponents of ten where it is logarithmic.
pub(super) struct Axis {
    logarithmic: bool,
    low: f64,
    high: f64,
    /// The places of the labels, in the unit of `low` and `high`, and the labels.
    pub(super) labels: Vec<(f64, String)>,
}

impl Axis {
    /// Returns the axis of these values, or `None` if none is finite.
    ///
    /// It is logarithmic if all are positive and they span a power of ten, or if `errors` is set. Errors are not
    /// negative, and those of zero, which are no rounding at all, have a place of their own at the bottom.
    pub(super) fn of(values: impl Iterator<Item = f64>, errors: bool) -> Option<Axis> {
        let finite = values.filter(|value| value.is_finite()).collect::<Vec<_>>();
        let range = |values: &mut dyn Iterator<Item = f64>| {
            values.fold(None, |range: Option<(f64, f64)>, value| match range {
                Some((least, most)) => Some((least.min(value), most.max(value))),
                None => Some((value, value)),
            })
        };
        let (least, most) = range(&mut finite.iter().map(|value| value.clamp(-MOST, MOST)))?;
        let positive = range(&mut finite.iter().copied().filter(|value| *value > 0.));
        Some(match positive {
            Some((least, most)) if errors => Axis::of_powers(least, most, finite.contains(&0.)),
            Some((_, most)) if least > 0. && (most / least).log10() > 1. => {
                Axis::of_powers(least, most, false)
            }
            _ => Axis::linear(least, most),
        })
    }

    fn of_powers(least: f64, most: f64, with_zero: bool) -> Axis {
        let low = least.log10().floor();
        let high = most.log10().ceil().max(low + 1.);
        let by = ((high - low) / LABELS).ceil().max(1.);
        let powers = (0..).map(|at| high - f64::from(at) * by).take_while(|power| *power >= low);
        let mut labels = powers.map(|power| (power, format!("1e{power}"))).collect::<Vec<_>>();
        let low = if with_zero { low - by } else { low };
        if with_zero {
            labels.push((low, "bitwise".to_owned()));
        }
        Axis { logarithmic: true, low, high, labels }
    }

    fn linear(least: f64, most: f64) -> Axis {
        let size = least.abs().max(most.abs());
        let range = (most - least).max(size * LEAST_RANGE);
        let range = if range > 0. { range } else { 1. };
        // The least step that is one, two or five times a power of ten and has few enough labels.
        let power = (range / LABELS).log10().floor();
        let steps = [1., 2., 5., 10.].map(|digit| digit * 10f64.powf(power));
        let step = steps.into_iter().find(|step| range / step <= LABELS).unwrap_or(range);
        let low = (least / step).floor();
        let high = (most / step).ceil().max(low + 1.);
        let count = (high - low) as u32;
        // The number of digits that tell two labels apart.
        let is_short = (1e-4..1e5).contains(&size);
        let digits = |largest: f64| (largest - step.log10().floor()).clamp(0., 17.) as usize;
        let labels = (0..=count).map(|at| {
            let value = (low + f64::from(at)) * step;
            let label = match is_short {
                _ if value == 0. => "0".to_owned(),
                true => format!("{value:.0$}", digits(0.)),
                false => format!("{value:.0$e}", digits(value.abs().log10().floor())),
            };
            (value, label)
        });
        Axis { logarithmic: false, low: low * step, high: high * step, labels: labels.collect() }
    }

    /// Returns the place of a finite value, from 0 at the bottom to 1 at the top.
    pub(super) fn place(&self, value: f64) -> f64 {
        match self.logarithmic {
            true if value <= 0. => 0.,
            true => self.part(value.log10()),
            false => self.part(value),
        }
    }

    /// Returns the place of a label, in the same unit.
    pub(super) fn part(&self, of: f64) -> f64 {
        ((of - self.low) / (self.high - self.low)).clamp(0., 1.)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: &[f64], errors: bool) -> Vec<String> {
        let Some(axis) = Axis::of(values.iter().copied(), errors) else { return Vec::new() };
        let labels = axis.labels.iter().map(|(_, label)| label.clone()).collect::<Vec<_>>();
        // No two are at one place, or so near that one is over the other.
        let mut places = axis.labels.iter().map(|(at, _)| axis.part(*at)).collect::<Vec<_>>();
        places.sort_by(f64::total_cmp);
        assert!(places.windows(2).all(|two| two[1] - two[0] > 0.08), "{values:?}: {labels:?}");
        assert!(values.iter().filter(|v| v.is_finite()).all(|v| axis.place(*v).is_finite()));
        labels
    }

    #[test]
    fn labels_are_round_numbers() {
        assert_eq!(
            labels(&[-0.31, 0.12, 0.44], false),
            ["-0.4", "-0.2", "0.0", "0.2", "0.4", "0.6"].map(|label| if label == "0.0" {
                "0"
            } else {
                label
            },)
        );
        assert_eq!(labels(&[1.25, 1.25], false).len(), 2);
        assert_eq!(labels(&[0., 0.], false)[0], "0");
        assert_eq!(labels(&[2e-9, -2e-9], false)[0], "-2e-9");
        assert_eq!(
            labels(&[3e-5, 2.], false),
            ["1e1", "1e0", "1e-1", "1e-2", "1e-3", "1e-4", "1e-5"]
        );
    }

    #[test]
    fn what_is_bitwise_has_a_label_of_its_own() {
        let found = labels(&[0., 3e-9, 4e-2, f64::INFINITY], true);
        assert_eq!(found.iter().filter(|label| *label == "bitwise").count(), 1);
        assert_eq!(found.last().map(String::as_str), Some("bitwise"));
        for least in -300..0 {
            labels(&[0., 10f64.powi(least) * 3., 1e-2], true);
        }
        assert!(!labels(&[3e-9, 4e-2], true).contains(&"bitwise".to_owned()));
        assert!(Axis::of([f64::NAN, f64::INFINITY].into_iter(), true).is_none());
    }

    #[test]
    fn every_range_has_few_labels() {
        for least in [-f64::MAX, -1e300, -12345.6, -1., -1e-9, 0., 1e-300, 0.1, 1., 7e10, f64::MAX]
        {
            for by in [0., 1e-300, 1e-15, 1e-3, 1., 5., 1e12, f64::MAX] {
                let count = labels(&[least, (least + by).min(f64::MAX)], false).len();
                assert!((2..=9).contains(&count), "{least} {by}: {count}");
            }
        }
    }
}

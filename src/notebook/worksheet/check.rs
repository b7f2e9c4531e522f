//! Whether a tensor of the run is what it has to be by hand.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::evaluate::Grid;
use super::formula::Quantity;
use crate::compare::ROUNDINGS_BY_HAND;
use crate::compare::statistics::unravel;

/// What the run has, beside what it has to be by hand.
#[derive(Debug)]
pub(crate) struct Check {
    /// Its name in the run's trace.
    pub(crate) name: String,
    /// In the run's dtype.
    pub(crate) tensor: Tensor,
    /// In float64.
    pub(crate) by_hand: Tensor,
    /// Where they differ by more than rounding, if they do.
    pub(crate) disagreement: Option<Disagreement>,
}

/// The element that is furthest off, the first nan before all others.
#[derive(Debug)]
pub(crate) struct Disagreement {
    pub(crate) index: Vec<usize>,
    pub(crate) difference: f64,
    pub(crate) allowed: f64,
}

impl Check {
    /// Compares `tensor`, which the run has of `quantity` or of its gradient.
    pub(crate) fn new(
        section: &str,
        quantity: &Quantity,
        tensor: Tensor,
        by_hand: &Grid,
    ) -> Result<Check> {
        let (size, kind) = (tensor.size(), tensor.f_kind()?);
        let (unit, least) = match kind {
            Kind::Double => (f64::EPSILON / 2., f64::MIN_POSITIVE),
            _ => (f64::from(f32::EPSILON) / 2., f64::from(f32::MIN_POSITIVE)),
        };
        let numbers = |tensor: &Tensor| {
            anyhow::Ok(Vec::<f64>::try_from(tensor.f_to_kind(Kind::Double)?.f_reshape(-1)?)?)
        };
        let value = numbers(&by_hand.value)?;
        let rounded = numbers(&by_hand.value.f_to_kind(kind)?)?; // to an infinity, it may be
        let error = numbers(&by_hand.error)?;
        let mut worst: Option<(usize, f64, f64)> = None;
        for (at, run) in numbers(&tensor)?.into_iter().enumerate() {
            let difference = (value[at] - run).abs();
            // Below the smallest normal float, rounding is no longer in proportion.
            let allowed = ROUNDINGS_BY_HAND * unit * error[at] + least;
            let same = run == rounded[at] || run.is_nan() && rounded[at].is_nan();
            let agrees = same || difference <= allowed && allowed.is_finite();
            let further = worst.is_none_or(|(_, most, _)| {
                difference > most || difference.is_nan() && !most.is_nan()
            });
            if !agrees && further {
                worst = Some((at, difference, allowed));
            }
        }
        let disagreement = worst.map(|(at, difference, allowed)| {
            let shape = size.iter().map(|&n| n as usize).collect::<Vec<_>>();
            Disagreement { index: unravel(at, &shape), difference, allowed }
        });
        let name = format!("{section}/{}", quantity.name);
        let by_hand = by_hand.value.f_reshape(&size)?;
        Ok(Check { name, tensor, by_hand, disagreement })
    }
}

//! The check of a tensor of the run against the value computed by hand, that is, from its formula in float64.

use anyhow::Result;
use tch::{Kind, Tensor};

use super::evaluate::Grid;
use super::formula::Quantity;
use crate::compare::ROUNDINGS_BY_HAND;
use crate::compare::statistics::unravel;

/// A tensor of the run, beside the value computed by hand.
#[derive(Debug)]
pub(crate) struct Check {
    /// The name of the tensor in the run's trace.
    pub(crate) name: String,
    /// The tensor of the run, in the run's dtype.
    pub(crate) tensor: Tensor,
    /// The value computed by hand, in float64.
    pub(crate) by_hand: Tensor,
    /// The disagreement, if the two differ by more than rounding can explain.
    pub(crate) disagreement: Option<Disagreement>,
}

/// The element with the greatest difference. A nan counts as the greatest; of equals, the first is taken.
#[derive(Debug)]
pub(crate) struct Disagreement {
    pub(crate) index: Vec<usize>,
    pub(crate) difference: f64,
    pub(crate) allowed: f64,
}

impl Check {
    /// Compares `tensor`, the run's value of `quantity` or of its gradient, with `by_hand`.
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
        let rounded = numbers(&by_hand.value.f_to_kind(kind)?)?; // may overflow to infinity
        let error = numbers(&by_hand.error)?;
        let mut worst: Option<(usize, f64, f64)> = None;
        for (at, run) in numbers(&tensor)?.into_iter().enumerate() {
            let difference = (value[at] - run).abs();
            // Below the smallest normal float, a rounding error is no longer proportional to the value.
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

//! The line search for a step that satisfies the strong Wolfe conditions:
//! [`_strong_wolfe`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/optim/lbfgs.py#L44).

use anyhow::{Context, Result};
use tch::Tensor;

use super::number::Number;

/// The objective at a step along the direction: its value, its gradient, and the gradient along the direction.
#[derive(Debug)]
pub(super) struct Point {
    pub(super) t: Number,
    pub(super) f: f64,
    pub(super) g: Tensor,
    pub(super) gtd: Number,
}

impl Point {
    fn copy(&self) -> Point {
        Point { g: self.g.shallow_clone(), ..*self }
    }
}

const C1: f64 = 1e-4;
const C2: f64 = 0.9;
const TOLERANCE_CHANGE: f64 = 1e-9;

/// Returns the minimum of the cubic through two points with their slopes, within bounds.
fn cubic_interpolate(a: &Point, b: &Point, bounds: Option<(Number, Number)>) -> Result<Number> {
    let (min_bound, max_bound) = bounds.unwrap_or(if a.t <= b.t { (a.t, b.t) } else { (b.t, a.t) });
    let difference = Number::from(3. * (a.f - b.f)).over(a.t - b.t);
    let d1 = a.gtd + b.gtd - difference;
    let d2_square = d1 * d1 - a.gtd * b.gtd;
    if d2_square >= 0f64.into() {
        let d2 = d2_square.sqrt()?;
        let min_pos = if a.t <= b.t {
            b.t - (b.t - a.t) * (b.gtd + d2 - d1).over(b.gtd - a.gtd + 2. * d2)
        } else {
            a.t - (a.t - b.t) * (a.gtd + d2 - d1).over(a.gtd - b.gtd + 2. * d2)
        };
        Ok(min_pos.max(min_bound).min(max_bound))
    } else {
        Ok((min_bound + max_bound).over(2f64.into()))
    }
}

/// Searches from `start`, whose `t` is 0, with `t` as the first step. Returns the point found and the number of
/// evaluations.
pub(super) fn strong_wolfe(
    mut evaluate: impl FnMut(Number) -> Result<Point>,
    start: Point,
    t: Number,
    d_norm: Number,
    max_ls: i64,
) -> Result<(Point, i64)> {
    let (f, gtd) = (start.f, start.gtd);
    // `f + c1 * t * gtd`, which is a tensor.
    let too_high = |point: &Point| Number::from(point.f) > f + (C1 * point.t) * gtd;
    let flat = |point: &Point| point.gtd.abs() <= -C2 * gtd;
    let mut previous = start.copy();
    let mut new = evaluate(t)?;
    let mut evaluations = 1;
    let mut iterations = 0;
    let mut done = false;
    let mut bracket = Vec::new();
    while iterations < max_ls {
        if too_high(&new) || iterations > 1 && new.f >= previous.f {
            bracket = vec![previous.copy(), new.copy()];
            break;
        }
        if flat(&new) {
            bracket = vec![new.copy()];
            done = true;
            break;
        }
        if new.gtd >= 0f64.into() {
            bracket = vec![previous.copy(), new.copy()];
            break;
        }
        let min_step = new.t + 0.01 * (new.t - previous.t);
        let max_step = new.t * 10f64.into();
        let t = cubic_interpolate(&previous, &new, Some((min_step, max_step)))?;
        previous = new;
        new = evaluate(t)?;
        evaluations += 1;
        iterations += 1;
    }
    if iterations == max_ls {
        bracket = vec![start, new];
    }
    let lower = |bracket: &[Point]| match bracket {
        [first, .., last] if first.f <= last.f => (0, 1),
        [_] => (0, 1),
        _ => (1, 0),
    };
    let (mut low, mut high) = lower(&bracket);
    let mut insufficient = false;
    while !done && iterations < max_ls {
        let [first, second] = &bracket[..] else { break };
        if (second.t - first.t).abs() * d_norm < TOLERANCE_CHANGE.into() {
            break;
        }
        let mut t = cubic_interpolate(first, second, None)?;
        let (largest, smallest) = (first.t.max(second.t), first.t.min(second.t));
        let eps = 0.1 * (largest - smallest);
        if (largest - t).min(t - smallest) < eps {
            if insufficient || t >= largest || t <= smallest {
                let near_largest = (t - largest).abs() < (t - smallest).abs();
                t = if near_largest { largest - eps } else { smallest + eps };
                insufficient = false;
            } else {
                insufficient = true;
            }
        } else {
            insufficient = false;
        }
        let new = evaluate(t)?;
        evaluations += 1;
        iterations += 1;
        if too_high(&new) || new.f >= bracket[low].f {
            bracket[high] = new;
            (low, high) = lower(&bracket);
        } else {
            if flat(&new) {
                done = true;
            } else if new.gtd * (bracket[high].t - bracket[low].t) >= 0f64.into() {
                bracket[high] = bracket[low].copy();
            }
            bracket[low] = new;
        }
    }
    let found = bracket.into_iter().nth(low);
    let found = found.context("max_eval leaves no evaluation for the line search")?;
    Ok((found, evaluations))
}

//! L-BFGS, which evaluates the loss several times in a step.

mod number;
mod strong_wolfe;

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, no_grad, with_grad};

use super::formula::{Options, require_lr};
use super::optimizer::{Optimizer, Parameter};
use super::state::State;
use crate::torch::Scaled;
use number::Number;
use strong_wolfe::{Point, strong_wolfe};

/// The optimizer L-BFGS, which is
/// [`torch.optim.LBFGS`](https://github.com/pytorch/pytorch/blob/v2.13.0/torch/optim/lbfgs.py#L224).
///
/// ```text
/// d = -H grad, where H is built from the last history_size changes y of the gradient and s of the parameters
/// p = p + t * d, where t is lr or what the line search finds; up to max_iter times
/// ```
///
/// It has one group. Its step takes a closure that computes the loss and the gradients:
///
/// ```
/// use tch::{Device, Kind, Tensor};
/// use tch_parity::optim::{LBFGS, LineSearch};
///
/// let x = Tensor::ones([2], (Kind::Float, Device::Cpu)).set_requires_grad(true);
/// let options = LBFGS { line_search_fn: Some(LineSearch::StrongWolfe), ..Default::default() };
/// let mut optimizer = options.build_from([("x", &x)])?;
/// let first = optimizer.step_with(|optimizer| {
///     optimizer.zero_grad()?;
///     let loss = (&x * &x).sum(Kind::Float);
///     loss.f_backward()?;
///     Ok(loss)
/// })?;
/// assert_eq!((first.double_value(&[]), x.abs().max().double_value(&[])), (2., 0.));
/// # Ok::<(), anyhow::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LBFGS {
    /// The learning rate.
    pub lr: f64,
    /// The most iterations of a step.
    pub max_iter: i64,
    /// The most evaluations of a step; `None` is `max_iter * 5 / 4`.
    pub max_eval: Option<i64>,
    /// The largest element of the gradient at which a step ends.
    pub tolerance_grad: f64,
    /// The change of the loss or of the parameters at which a step ends.
    pub tolerance_change: f64,
    /// The number of changes that are remembered.
    pub history_size: usize,
    /// The line search; `None` takes `lr` as the length of a step.
    pub line_search_fn: Option<LineSearch>,
}

/// A line search of [`LBFGS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LineSearch {
    /// Searches for a step that satisfies the strong Wolfe conditions.
    StrongWolfe,
}

impl Default for LBFGS {
    fn default() -> LBFGS {
        LBFGS {
            lr: 1.,
            max_iter: 20,
            max_eval: None,
            tolerance_grad: 1e-7,
            tolerance_change: 1e-9,
            history_size: 100,
            line_search_fn: None,
        }
    }
}

impl Options for LBFGS {
    const NAME: &'static str = "LBFGS";

    fn check(&self) -> Result<()> {
        require_lr(self.lr)
    }

    fn lr(&mut self) -> &mut f64 {
        &mut self.lr
    }

    fn state(&self, _p: &Tensor) -> Result<State> {
        Ok(State::default())
    }

    fn restored(&self, recorded: &[(String, Tensor)], _p: &Tensor) -> Result<State> {
        let mut state = State::default();
        for (name, value) in recorded {
            match value.dim() {
                0 => state.set_number(name.clone(), value.f_double_value(&[])?, value.f_kind()?),
                _ => state.set(name.clone(), value.f_detach_copy()?),
            }
        }
        Memory::read(&state)?;
        Ok(state)
    }
}

/// What is remembered from iteration to iteration, and from step to step.
#[derive(Debug)]
struct Memory {
    func_evals: i64,
    n_iter: i64,
    last: Option<Last>,
    /// The last changes of the gradient and of the parameters, and the reciprocals of their products.
    changes: Vec<(Tensor, Tensor, Number)>,
    h_diag: Number,
}

/// The last iteration.
#[derive(Debug)]
struct Last {
    d: Tensor,
    t: Number,
    flat_grad: Tensor,
    loss: f64,
}

impl Memory {
    fn read(state: &State) -> Result<Memory> {
        let number = |name: &str| -> Result<Number> {
            let (value, kind) = state.number(name)?;
            Ok(Number::kept(value, kind))
        };
        let count = |name: &str| state.number(name).map_or(0, |(value, _)| value as i64);
        let there = |name: &str| state.names().any(|there| there == name);
        let last = match there("d") {
            true => Some(Last {
                d: state.tensor("d")?,
                t: number("t")?,
                flat_grad: state.tensor("prev_flat_grad")?,
                loss: number("prev_loss")?.value,
            }),
            false => None,
        };
        let n = state.names().filter(|name| name.starts_with("ro[")).count();
        let changes = (0..n).map(|i| {
            let of = |name: &str| state.tensor(&format!("{name}[{i}]"));
            Ok((of("old_dirs")?, of("old_stps")?, number(&format!("ro[{i}]"))?))
        });
        Ok(Memory {
            func_evals: count("func_evals"),
            n_iter: count("n_iter"),
            changes: changes.collect::<Result<_>>()?,
            h_diag: if last.is_some() { number("H_diag")? } else { 1f64.into() },
            last,
        })
    }

    fn write(&self) -> State {
        let mut state = State::default();
        state.set_number("func_evals", self.func_evals as f64, Kind::Int64);
        state.set_number("n_iter", self.n_iter as f64, Kind::Int64);
        let Some(last) = &self.last else { return state };
        state.set("d", last.d.shallow_clone());
        state.set_number("t", last.t.value, last.t.kind());
        for (i, (y, s, ro)) in self.changes.iter().enumerate() {
            state.set(format!("old_dirs[{i}]"), y.shallow_clone());
            state.set(format!("old_stps[{i}]"), s.shallow_clone());
            state.set_number(format!("ro[{i}]"), ro.value, ro.kind());
        }
        state.set_number("H_diag", self.h_diag.value, self.h_diag.kind());
        state.set("prev_flat_grad", last.flat_grad.shallow_clone());
        state.set_number("prev_loss", last.loss, Kind::Double);
        state
    }

    /// Returns the next direction: the inverse Hessian, as far as it is known, times the gradient.
    fn direction(&mut self, flat_grad: &Tensor, history_size: usize) -> Result<Tensor> {
        let Some(last) = &self.last else { return Ok(flat_grad.f_neg()?) };
        let y = flat_grad.f_sub(&last.flat_grad)?;
        let s = last.d.f_mul_scalar(last.t.value)?;
        let ys = Number::read(&y.f_dot(&s)?)?;
        if ys > 1e-10.into() {
            if self.changes.len() == history_size {
                ensure!(history_size > 0, "pop from empty list");
                drop(self.changes.remove(0));
            }
            let y_y = Number::read(&y.f_dot(&y)?)?;
            self.changes.push((y, s, Number::from(1.).over(ys)));
            self.h_diag = ys.over(y_y);
        }
        let mut q = flat_grad.f_neg()?;
        let mut al = Vec::new();
        for (y, s, ro) in self.changes.iter().rev() {
            let share = Number::read(&s.f_dot(&q)?)? * *ro;
            q.add_scaled_(y, -share.value)?;
            al.push(share);
        }
        let mut r = q.f_mul_scalar(self.h_diag.value)?;
        for ((y, s, ro), al) in self.changes.iter().zip(al.into_iter().rev()) {
            let be = Number::read(&y.f_dot(&r)?)? * *ro;
            r.add_scaled_(s, (al - be).value)?;
        }
        Ok(r)
    }
}

fn flat_grad(parameters: &[Parameter]) -> Result<Tensor> {
    let flat = |p: &Parameter| -> Result<Tensor> {
        let grad = p.tensor.f_grad()?;
        Ok(match grad.defined() {
            false => p.tensor.f_zeros_like()?.f_reshape([-1])?,
            true if grad.is_sparse() => grad.f_to_dense(None, false)?.f_reshape([-1])?,
            true => grad.f_reshape([-1])?,
        })
    };
    Ok(Tensor::f_cat(&parameters.iter().map(flat).collect::<Result<Vec<_>>>()?, 0)?)
}

/// Adds `t * update` to the parameters.
fn add(parameters: &mut [Parameter], update: &Tensor, t: Number) -> Result<()> {
    let mut offset = 0;
    for p in parameters {
        let n = p.tensor.numel() as i64;
        let part = update.f_narrow(0, offset, n)?.f_view_as(&p.tensor)?;
        p.tensor.add_scaled_(&part, t.value)?;
        offset += n;
    }
    Ok(())
}

fn largest(tensor: &Tensor) -> Result<Number> {
    Number::read(&tensor.f_abs()?.f_max()?)
}

impl Optimizer<LBFGS> {
    /// Takes a step. `closure` clears the gradients, computes the loss and its gradients, and returns the loss; it is
    /// called as often as the step needs it. Returns the first loss.
    ///
    /// # Errors
    /// Returns the errors of `closure`, libtorch's errors, and an error if there is more than one group.
    pub fn step_with(
        &mut self,
        mut closure: impl FnMut(&Optimizer<LBFGS>) -> Result<Tensor>,
    ) -> Result<Tensor> {
        ensure!(
            self.groups.len() == 1,
            "LBFGS doesn't support per-parameter options (parameter groups)"
        );
        let first = self.groups[0].parameters.first().context("no parameters")?;
        let mut memory = Memory::read(first.state.as_ref().unwrap_or(&State::default()))?;
        let result = no_grad(|| self.iterate(&mut closure, &mut memory));
        self.groups[0].parameters[0].state = Some(memory.write());
        result
    }

    /// Computes the loss and the flat gradient.
    fn evaluate(
        &self,
        closure: &mut impl FnMut(&Optimizer<LBFGS>) -> Result<Tensor>,
    ) -> Result<(Tensor, f64, Tensor)> {
        let loss = with_grad(|| closure(self))?;
        let value = loss.f_reshape([-1])?.f_double_value(&[0])?;
        Ok((loss, value, flat_grad(&self.groups[0].parameters)?))
    }

    fn iterate(
        &mut self,
        closure: &mut impl FnMut(&Optimizer<LBFGS>) -> Result<Tensor>,
        memory: &mut Memory,
    ) -> Result<Tensor> {
        let options = self.groups[0].options.clone();
        let max_eval = options.max_eval.unwrap_or_else(|| (options.max_iter * 5).div_euclid(4));
        let (orig_loss, mut loss, mut flat_grad) = self.evaluate(closure)?;
        let mut evals = 1;
        memory.func_evals += 1;
        let optimal =
            |grad: &Tensor| Ok::<_, anyhow::Error>(largest(grad)? <= options.tolerance_grad.into());
        if optimal(&flat_grad)? {
            return Ok(orig_loss);
        }
        for n_iter in 1..=options.max_iter {
            memory.n_iter += 1;
            let d = memory.direction(&flat_grad, options.history_size)?;
            let mut t = Number::from(options.lr);
            if memory.n_iter == 1 {
                let sum = Number::read(&flat_grad.f_abs()?.f_sum(None)?)?;
                t = Number::from(1.).min(Number::from(1.).over(sum)) * t;
            }
            let prev_loss = loss;
            let last = Last { d, t, flat_grad: flat_grad.f_detach_copy()?, loss };
            let d = last.d.shallow_clone();
            memory.last = Some(last);
            let gtd = Number::read(&flat_grad.f_dot(&d)?)?;
            if gtd > (-options.tolerance_change).into() {
                break;
            }
            let mut optimum = false;
            let mut more = 0;
            if options.line_search_fn == Some(LineSearch::StrongWolfe) {
                let start = Point { t: 0f64.into(), f: loss, g: flat_grad.f_detach_copy()?, gtd };
                let (found, count) = self.search(closure, start, t, &d, max_eval - evals)?;
                add(&mut self.groups[0].parameters, &d, found.t)?;
                (loss, flat_grad, t, more) = (found.f, found.g, found.t, count);
                optimum = optimal(&flat_grad)?;
            } else {
                add(&mut self.groups[0].parameters, &d, t)?;
                if n_iter != options.max_iter {
                    (_, loss, flat_grad) = self.evaluate(closure)?;
                    optimum = optimal(&flat_grad)?;
                    more = 1;
                }
            }
            if let Some(last) = &mut memory.last {
                last.t = t;
            }
            evals += more;
            memory.func_evals += more;
            let change = Number::read(&d.f_mul_scalar(t.value)?.f_abs()?.f_max()?)?;
            if n_iter == options.max_iter
                || evals >= max_eval
                || optimum
                || change <= options.tolerance_change.into()
                || (loss - prev_loss).abs() < options.tolerance_change
            {
                break;
            }
        }
        Ok(orig_loss)
    }

    fn search(
        &mut self,
        closure: &mut impl FnMut(&Optimizer<LBFGS>) -> Result<Tensor>,
        start: Point,
        t: Number,
        d: &Tensor,
        max_ls: i64,
    ) -> Result<(Point, i64)> {
        let parameters = &self.groups[0].parameters;
        let initial = parameters.iter().map(|p| p.tensor.f_detach_copy());
        let initial = initial.collect::<Result<Vec<_>, _>>()?;
        let evaluate = |t: Number| {
            add(&mut self.groups[0].parameters, d, t)?;
            let (_, f, g) = self.evaluate(closure)?;
            for (p, value) in self.groups[0].parameters.iter_mut().zip(&initial) {
                p.tensor.f_copy_(value)?;
            }
            let gtd = Number::read(&g.f_dot(d)?)?;
            Ok(Point { t, f, g, gtd })
        };
        strong_wolfe(evaluate, start, t, largest(d)?, max_ls)
    }
}

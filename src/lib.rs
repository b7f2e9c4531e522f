//! Proves that a PyTorch computation ported to Rust with [`tch`] is the same computation: same
//! forward, same intermediate gradients, same parameter gradients, same optimizer steps, to the bit.
//!
//! From the bottom up, each module using only those above it:
//!
//! | module | what it is |
//! |---|---|
//! | `autograd` | [`RetainGrad`]: `retain_grad`, which tch does not bind; the only unsafe code |
//! | `tensor_str` | [`repr`]: a tensor printed as Python prints it |
//! | `linear` | [`Linear`]: `nn.Linear` with PyTorch's initial values |
//! | `model` | [`ThreeLayerNet`]: the notebook's net |
//! | `trace` | [`Trace`]: the named tensors of a run, and their file |
//! | `training` | [`train`]: zero_grad, forward, backward, step; recorded |
//! | [`notebook`] | the notebook's cells |

// What a user hands in becomes an error, never a panic: libtorch is called through tch's `f_` forms.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod case;
mod compare;
mod element;
mod environment;
mod libtorch;
mod linear;
mod model;
pub mod notebook;
mod python_float;
pub mod report;
pub mod selftest;
mod tensor_str;
mod trace;
mod training;
mod whole_file;

pub use case::{Case, dataflow};
pub use compare::{
    Comparison, Criterion, Edge, Statistics, TOLERANCES, TensorComparison, Tolerance, Verdict,
    Worst, compare,
};
pub use environment::{Environment, Numerics};
pub use libtorch::RetainGrad;
pub use linear::Linear;
pub use model::{Intermediate, ThreeLayerNet};
pub use tensor_str::repr;
pub use trace::Trace;
pub use training::{Loss, Model, Optimizer, Run, train};

/// Compiles and runs the README's Rust.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

//! Proves that a PyTorch computation ported to Rust with [`tch`] is the same computation: same
//! forward, same intermediate gradients, same parameter gradients, same optimizer steps, to the bit.
//!
//! [`Trace`] holds the named tensors of a run, [`compare`] judges one by another, and
//! [`report`] shows the result; none of them knows a model. [`ThreeLayerNet`], [`train`] and
//! [`notebook`] are the first run that they were made for, and [`Case`] a recorded one; [`worksheet`]
//! explains such a run. The README maps the source.
//!
//! ```
//! use tch_parity::report::Report;
//! use tch_parity::{Criterion, Trace, compare};
//!
//! let (mut expected, mut actual) = (Trace::new(), Trace::new());
//! expected.push("grad/h", &tch::Tensor::from_slice(&[1f32, 2.]))?;
//! actual.push("grad/h", &tch::Tensor::from_slice(&[1f32, 2.5]))?;
//! let comparison = compare(&actual, &expected, Criterion::Close);
//! let report = Report::new("mine", "as asked", comparison, Vec::new);
//! assert!(report.text().contains("Greatest absolute difference: 5.0e-01 at index [1]"));
//! # Ok::<(), anyhow::Error>(())
//! ```

// What a user hands in becomes an error, never a panic: libtorch is called through tch's `f_` forms.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod case;
mod compare;
mod device;
mod element;
mod environment;
mod libtorch;
mod linear;
mod model;
mod names;
pub mod notebook;
mod parity;
mod permute;
mod python_float;
mod recorder;
mod replay;
pub mod report;
pub mod selftest;
mod statistics;
mod tensor_str;
mod tolerance;
mod trace;
mod training;
mod whole_file;
pub mod worksheet;
mod xml;

pub use case::{Case, is_given};
pub use compare::{Comparison, Criterion, Edge, TensorComparison, Verdict, compare};
pub use device::{DeviceChoice, load_cuda, open_device};
pub use environment::{CudaEnvironment, Environment, Numerics};
pub use libtorch::{RetainGrad, libtorch_version};
pub use linear::Linear;
pub use model::{Intermediate, ThreeLayerNet};
pub use names::Names;
pub use parity::{Parity, Required, assert_parity};
pub use recorder::Recorder;
pub use replay::{Replay, dataflow};
pub use statistics::{Statistics, Worst};
pub use tensor_str::repr;
pub use tolerance::{Between, TOLERANCES, Tolerance};
pub use trace::Trace;
pub use training::{Loss, Model, Optimizer, Run, train};
pub use whole_file::write_whole;

/// Compiles and runs the README's Rust.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

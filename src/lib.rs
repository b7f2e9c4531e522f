//! Proves that a PyTorch computation ported to Rust with [`tch`](https://docs.rs/tch) is the same computation:
//! same forward, same intermediate gradients, same parameter gradients, same optimizer steps, to the bit.
//!
//! [`Trace`] holds the named tensors of a run, [`compare`](compare()) judges one by another, and [`report`] shows
//! the result; none of them knows a model or libtorch. [`Case`] is a recorded run of any model, and [`Recorder`]
//! and [`assert_parity`] compare a port with it. [`optim`] is `torch.optim`, bit for bit. [`ThreeLayerNet`], [`train`] and [`notebook`] are the first run
//! that they were made for, and [`notebook::worksheet`] explains such a run. `docs/source.md` maps the source.
//!
//! Without the default feature `libtorch` the crate compares, reports and prints files, and nothing else.
//!
//! ```
//! use safetensors::tensor::{Dtype, TensorView};
//! use tch_parity::report::Report;
//! use tch_parity::{Criterion, Trace, compare};
//!
//! let trace = |values: [f32; 2]| -> anyhow::Result<Trace> {
//!     let bytes = values.map(f32::to_le_bytes).concat();
//!     let mut trace = Trace::new();
//!     trace.push_view("grad/h", &TensorView::new(Dtype::F32, vec![2], &bytes)?)?;
//!     Ok(trace)
//! };
//! let comparison = compare(&trace([1., 2.5])?, &trace([1., 2.])?, Criterion::Close);
//! let report = Report::new("mine", "as asked", comparison, Vec::new);
//! assert!(report.text().contains("Greatest absolute difference: 5.0e-01 at index [1]"));
//! # Ok::<(), anyhow::Error>(())
//! ```

// The links of this page to what needs libtorch are checked where it is there.
#![cfg_attr(not(feature = "libtorch"), allow(rustdoc::broken_intra_doc_links))]
// Bad input leads to an error, never to a panic. Hence libtorch is called through tch's fallible `f_` functions.
#![warn(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod compare;
pub mod report;
mod repr;
mod trace;

pub use compare::{
    Accepted, Allowance, Between, Comparison, Control, Criterion, Details, Distance, Distances,
    Edge, Layout, LeftOut, MAX_ULP, ROUNDINGS_BY_HAND, Required, Side, Statistics, StepLoss,
    TOLERANCES, TensorComparison, Tolerance, Verdict, Worst, compare, compare_watched,
    compare_with_truth, selftest,
};
pub use repr::{repr_float, repr_view};
pub use trace::{
    AtomicFile, CudaEnvironment, Digest, Environment, Names, Numerics, Trace, is_given,
    remove_unfinished_files, write_atomically,
};

#[cfg(feature = "libtorch")]
mod case;
#[cfg(feature = "libtorch")]
pub mod notebook;
#[cfg(feature = "libtorch")]
pub mod optim;
#[cfg(feature = "libtorch")]
mod port;
#[cfg(feature = "libtorch")]
mod program;
#[cfg(feature = "libtorch")]
mod replay;
#[cfg(feature = "libtorch")]
mod torch;

#[cfg(feature = "libtorch")]
pub use {
    case::{Case, Parity, Recorder, assert_parity},
    notebook::{Intermediate, Loss, Model, Replay, Run, ThreeLayerNet, dataflow, train, worksheet},
    optim::RecordedOptimizer,
    port::{Port, Proof},
    program::Program,
    replay::{ProgramReplay, assert_same_as_program, replay_port, replay_port_t},
    torch::{
        DeviceChoice, Linear, RetainGrad, Value, backward, call, libtorch_version, load_cuda,
        open_device, repr,
    },
};

/// Compiles and runs the Rust of the README and of the pages in `docs/`.
#[cfg(all(doctest, feature = "libtorch"))]
mod pages {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/gpu.md")]
    struct Gpu;
    #[doc = include_str!("../docs/optim.md")]
    struct Optim;
    #[doc = include_str!("../docs/port.md")]
    struct Port;
    #[doc = include_str!("../docs/porting.md")]
    struct Porting;
    #[doc = include_str!("../docs/programs.md")]
    struct Programs;
}

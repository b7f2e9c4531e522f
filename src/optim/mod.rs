//! `torch.optim`, bit for bit: optimizers, clipping of gradients and schedules of the learning rate, for any program
//! that uses tch.
//!
//! This room knows libtorch, and traces, in which the state of an optimizer is kept. It does not know cases or any
//! model. Each optimizer is a file with its arguments and its formula; groups, state and the order of a step are in
//! `optimizer.rs`. What is computed is what PyTorch computes on the CPU by default: one parameter after the other.
//!
//! ```
//! use tch::{Device, Kind, Tensor, nn};
//! use tch_parity::optim::{self, AdamW};
//!
//! let vs = nn::VarStore::new(Device::Cpu);
//! let fc = nn::linear(vs.root() / "fc", 2, 1, Default::default());
//! let mut optimizer = AdamW { lr: 1e-2, ..Default::default() }.build(&vs)?;
//! for _ in 0..3 {
//!     optimizer.zero_grad()?;
//!     let loss = Tensor::ones([4, 2], (Kind::Float, Device::Cpu)).apply(&fc).square().mean(Kind::Float);
//!     loss.f_backward()?;
//!     optim::clip_grad_norm_(&optimizer.parameters(), 1.0, 2.0)?;
//!     optimizer.step()?;
//! }
//! let state = optimizer.state("fc.weight").unwrap();
//! assert_eq!(state.names().collect::<Vec<_>>(), ["step", "exp_avg", "exp_avg_sq"]);
//! # Ok::<(), anyhow::Error>(())
//! ```

mod adadelta;
mod adafactor;
mod adagrad;
mod adam;
mod adamax;
mod adamw;
mod any;
mod asgd;
mod clip;
mod formula;
mod lbfgs;
mod muon;
mod nadam;
mod optimizer;
mod python;
mod radam;
mod recorded;
mod rmsprop;
mod rprop;
mod schedule;
mod sgd;
mod sparse;
mod sparse_adam;
mod state;

use std::borrow::Borrow;

use anyhow::Result;
use tch::Tensor;
use tch::nn::VarStore;

pub use adadelta::Adadelta;
pub use adafactor::Adafactor;
pub use adagrad::Adagrad;
pub use adam::Adam;
pub use adamax::Adamax;
pub use adamw::AdamW;
pub(crate) use any::AnyOptimizer;
pub use asgd::ASGD;
pub use clip::{clip_grad_norm_, clip_grad_value_, clip_grads_with_norm_, get_total_norm};
pub use formula::{Formula, Options};
pub use lbfgs::{LBFGS, LineSearch};
pub use muon::{AdjustLr, Muon};
pub use nadam::NAdam;
pub use optimizer::{Group, Optimizer};
pub use radam::RAdam;
pub use recorded::{Arguments, Change, RecordedGroup, RecordedOptimizer};
pub use rmsprop::RMSprop;
pub use rprop::Rprop;
pub use schedule::{
    AnnealStrategy, ChainedScheduler, ConstantLR, CosineAnnealingLR, CosineAnnealingWarmRestarts,
    CyclicLR, CyclicMode, ExponentialLR, LambdaLR, LinearLR, MultiStepLR, MultiplicativeLR,
    OneCycleLR, ParamGroups, PerGroup, PlateauMode, PolynomialLR, ReduceLROnPlateau,
    ReduceLROnPlateauScheduler, Scheduler, SequentialLR, StepLR, ThresholdMode,
};
pub use sgd::SGD;
pub use sparse_adam::SparseAdam;
pub use state::State;

macro_rules! build {
    ($($optimizer:ident)*) => {$(
        impl $optimizer {
            /// Builds the optimizer of the trainable variables of `vs`, in the order in which they were made.
            ///
            /// # Errors
            /// Returns PyTorch's error, in its words, if PyTorch refuses the arguments or a parameter.
            pub fn build(self, vs: &VarStore) -> Result<Optimizer<Self>> {
                Optimizer::of_var_store(self, vs)
            }

            /// Builds the optimizer of named parameters, in this order.
            ///
            /// # Errors
            /// Returns PyTorch's error, in its words, if PyTorch refuses the arguments or a parameter, and an error
            /// if two parameters have one name.
            pub fn build_from<N: Into<String>, T: Borrow<Tensor>>(
                self,
                parameters: impl IntoIterator<Item = (N, T)>,
            ) -> Result<Optimizer<Self>> {
                Optimizer::of(self, parameters)
            }
        }
    )*};
}

build! {
    Adadelta Adafactor Adagrad Adam Adamax AdamW ASGD LBFGS Muon NAdam RAdam RMSprop Rprop SGD SparseAdam
}

//! How two runs are compared and judged.

#[path = "../common/mod.rs"]
mod common;

mod accepted;
mod allowance;
mod compare;
mod comparison;
mod complex;
mod coverage;
mod digests;
mod excused;
mod one_sided;

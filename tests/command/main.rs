//! What a user of the command meets: inputs, options, files, and the scripts around it.

#[path = "../common/mod.rs"]
mod common;

mod bad_input;
mod check;
mod checkpointing;
mod device;
mod files;
mod manners;
mod setup;

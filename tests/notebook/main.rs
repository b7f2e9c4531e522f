//! The port of the notebook, its layers, its printing and its worksheet.

#[path = "../common/mod.rs"]
mod common;

mod linear;
mod notebook;
mod retain_grad;
mod tensor_str;
mod worksheet;

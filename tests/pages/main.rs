//! What is written for readers: the documentation, and pages in a browser and in Jupyter.

#[path = "../common/mod.rs"]
mod common;

mod browser;
mod docs;
mod html;
mod jupyter;
mod tutorial;

//! The progress of what can take seconds, on stderr where that is a terminal.

use std::thread;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// Creates a bar of that length. `count` is the template of the count beside it, such as `{pos} of {len} cases`.
///
/// A thread draws the bar anew while nothing is counted. It computes nothing.
pub(super) fn bar(length: u64, count: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    let template = format!("{{elapsed}} {{wide_bar}} {count}");
    let bar = match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    };
    // indicatif panics where no thread can be had.
    if !bar.is_hidden() && thread::Builder::new().spawn(|| ()).is_ok() {
        bar.enable_steady_tick(Duration::from_millis(200));
    }
    bar
}

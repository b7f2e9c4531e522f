//! Progress bars for what can take seconds, shown on stderr if that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};

/// Creates a bar of this length. `count` is the template of the count beside it, such as
/// `{pos} of {len} cases`.
pub(super) fn bar(length: u64, count: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    match ProgressStyle::with_template(&format!("{{wide_bar}} {count}, {{eta}} left")) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

//! Formatting by rustfmt, which comes with Rust.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// Formats a source as `cargo fmt` does in a folder.
///
/// # Errors
/// Returns an error if there is no rustfmt, or if it does not take the source.
pub(super) fn formatted(source: &str, folder: &Path) -> Result<String> {
    let mut command = Command::new("rustfmt");
    command.args(["--edition", "2024", "--quiet"]).current_dir(folder);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context(
        "rustfmt cannot be started, which formats the port: install it with `rustup component add rustfmt`",
    )?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(source.as_bytes()).context("rustfmt")?;
    }
    let output = child.wait_with_output().context("rustfmt")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().next().unwrap_or_default();
    ensure!(output.status.success(), "rustfmt does not take the source of the port: {first}");
    String::from_utf8(output.stdout).context("rustfmt")
}

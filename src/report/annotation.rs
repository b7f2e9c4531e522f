//! GitHub's annotations: `::error` lines on stdout.

use super::{NotCompared, Report, one_line};

impl Report {
    /// Returns GitHub's `::error` line for a comparison that does not pass.
    pub fn annotation(&self) -> Option<String> {
        let origin = self.origin.as_deref()?;
        Some(annotation(self.file.as_deref(), &format!("{origin}. {}", self.line())))
    }
}

impl NotCompared {
    /// Returns GitHub's `::error` line.
    pub fn annotation(&self) -> String {
        annotation(Some(&self.file), &self.message)
    }
}

fn annotation(file: Option<&str>, message: &str) -> String {
    let escape = |text: &str| one_line(text).replace('%', "%25");
    let file = file.map(|file| escape(file).replace(':', "%3A").replace(',', "%2C"));
    let file = file.map_or(String::new(), |file| format!(" file={file}"));
    format!("::error{file}::{}", escape(message))
}

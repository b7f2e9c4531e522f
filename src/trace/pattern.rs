//! Patterns of tensor names.

use super::case_name::{split_call, split_step};

/// A pattern of names. A `*` matches one part of a dotted name.
///
/// A pattern without a slash matches a module, in whichever section and step, and all that is below it. One with a
/// slash matches a whole name and all that is below it; a name of a step also without the step.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    text: String,
    parts: Vec<String>,
    whole: bool,
}

/// A name that a pattern matches, in its parts.
pub(crate) struct Match<'a> {
    /// What comes before: the section, or the step.
    pub(crate) before: &'a str,
    /// What each `*` matched.
    pub(crate) stars: Vec<&'a str>,
    /// The parts below what was matched.
    pub(crate) below: Vec<&'a str>,
    /// The suffix that tells calls and outputs of one module apart.
    pub(crate) call: &'a str,
}

impl Pattern {
    pub(crate) fn new(text: &str) -> Pattern {
        let parts = text.split('.').map(str::to_owned).collect();
        Pattern { text: text.to_owned(), parts, whole: text.contains('/') }
    }

    /// Returns how many `*` the pattern has.
    pub(crate) fn stars(&self) -> usize {
        self.parts.iter().filter(|part| *part == "*").count()
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        self.of(name).is_some()
    }

    /// Returns how the pattern matches a name, if it does.
    pub(crate) fn of<'a>(&self, name: &'a str) -> Option<Match<'a>> {
        if !self.whole {
            // Sections end in a slash, and no module's name has one.
            return self.from(name, name.rfind('/').map_or(0, |slash| slash + 1));
        }
        let without_step = || self.from(name, name.len() - split_step(name)?.1.len());
        self.from(name, 0).or_else(without_step)
    }

    fn from<'a>(&self, name: &'a str, start: usize) -> Option<Match<'a>> {
        let (before, rest) = name.split_at(start);
        if rest == self.text {
            return Some(Match { before, stars: Vec::new(), below: Vec::new(), call: "" });
        }
        let (rest, call) = split_call(rest);
        let parts = rest.split('.').collect::<Vec<_>>();
        let (matched, below) = parts.split_at_checked(self.parts.len())?;
        let pairs = || self.parts.iter().zip(matched);
        pairs().all(|(p, part)| p == "*" || p == part).then(|| Match {
            before,
            stars: pairs().filter(|(p, _)| *p == "*").map(|(_, part)| *part).collect(),
            below: below.to_vec(),
            call,
        })
    }
}

//! What whoever computed a trace says of it, for the comparison with another run. No file keeps it.

use std::collections::HashSet;

use super::Trace;

/// What whoever computed a trace says of it.
#[derive(Debug, Default)]
pub(super) struct Noted {
    asked: HashSet<String>,
    /// The tensor, and the operation in words.
    parting: Option<(String, String)>,
}

impl Trace {
    /// Notes which tensors of the other run this run has to have, whatever else it lacks.
    pub fn ask_for(&mut self, names: HashSet<String>) {
        self.noted.asked = names;
    }

    /// Returns whether the run [has to have](Self::ask_for) a tensor.
    pub fn is_asked(&self, name: &str) -> bool {
        self.noted.asked.contains(name)
    }

    /// Notes by which tensor the run is known to part from the other one, and in words which operation of that one it
    /// does not compute.
    pub fn note_parting(&mut self, tensor: String, operation: String) {
        self.noted.parting = Some((tensor, operation));
    }

    /// Returns the tensor and the operation that [`note_parting`](Self::note_parting) noted.
    pub fn parting(&self) -> Option<(&str, &str)> {
        self.noted.parting.as_ref().map(|(tensor, operation)| (&**tensor, &**operation))
    }
}

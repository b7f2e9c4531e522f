//! The text that the notebook's cells print under PyTorch, in the order of the cells.

use anyhow::Result;
use tch::Device;

use crate::torch::repr;
use crate::trace::Trace;

/// A run that [`train`](super::train) recorded on a device, to be printed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printed<'a> {
    pub(crate) trace: &'a Trace,
    pub(crate) device: Device,
}

impl<'a> Printed<'a> {
    pub(crate) fn initial_weights(self) -> Result<String> {
        let line = |name| Ok(format!("- {name}\n{}\n\n", self.repr(format!("param/{name}"))?));
        self.names("param/").map(line).collect()
    }

    pub(crate) fn forward(self) -> Result<String> {
        let line = |name| Ok(format!("{name} \t {}\n", self.repr(format!("forward/{name}"))?));
        self.names("forward/").map(line).collect()
    }

    /// Prints the gradients of the intermediate tensors.
    pub(crate) fn gradients(self) -> Result<String> {
        let names = self.names("forward/").filter(|&name| name != "L");
        let line =
            |name| Ok(format!("Gradient of {name} \t {}\n", self.repr(format!("grad/{name}"))?));
        names.map(line).collect()
    }

    pub(crate) fn parameter_gradients(self) -> Result<String> {
        let line =
            |name| Ok(format!("Gradient of {name}\n{}\n\n", self.repr(format!("grad/{name}"))?));
        self.names("param/").map(line).collect()
    }

    /// Prints the parameters after step `step`.
    pub(crate) fn updated_weights(self, step: u32) -> Result<String> {
        let line =
            |name| Ok(format!("Updated {name}\n{}\n\n", self.repr(format!("step/{step}/{name}"))?));
        self.names("param/").map(line).collect()
    }

    fn names(self, section: &'a str) -> impl Iterator<Item = &'a str> {
        self.trace.names().filter_map(move |name| name.strip_prefix(section))
    }

    fn repr(self, name: String) -> Result<String> {
        Ok(repr(&self.trace.tensor(&name)?.f_to_device(self.device)?)?)
    }
}

//! The notebook's code cells, in their order: first those that compute, then what they print.

use std::io::Write;

use anyhow::Result;
use tch::{Device, Tensor};

use crate::model::ThreeLayerNet;
use crate::tensor_str::repr;
use crate::trace::Trace;
use crate::training::{Loss, Model, Optimizer, Run, train};

/// The learning rate of the notebook's `torch.optim.SGD`.
pub const LR: f64 = 0.1;

/// The notebook, run.
#[derive(Debug)]
pub struct Notebook {
    /// The net after the last step.
    pub model: ThreeLayerNet,
    /// What was run.
    pub run: Run,
    /// Every tensor of it, under the names that [`train`] gives them.
    pub trace: Trace,
    /// Where it was run.
    pub device: Device,
}

impl Notebook {
    /// Builds the net, sets its weights, and repeats zero_grad, forward, backward and step `steps` times on
    /// `device`.
    ///
    /// # Errors
    /// Those of [`train`].
    pub fn run(lr: f64, steps: u32, device: Device) -> Result<Notebook> {
        let mut model = ThreeLayerNet::new(2, 2, 3)?;
        let parameter = |data: Tensor| data.f_to_device(device)?.f_set_requires_grad(true);

        // Manually initialize some weights
        model.fc1.weight = parameter(Tensor::from_slice2(&[[1f32, 0.], [0., 1.]]))?;
        model.fc1.bias = parameter(Tensor::from_slice(&[0f32, 0.]))?;
        model.fc2.weight = parameter(Tensor::from_slice2(&[[1f32, 1.], [-1., 1.], [1., 0.]]))?;
        model.fc2.bias = parameter(Tensor::from_slice(&[0f32, 0., 0.]))?;
        model.fc3.weight = parameter(Tensor::from_slice2(&[[1f32, -1., 0.]]))?;
        model.fc3.bias = parameter(Tensor::from_slice(&[0f32]))?;

        // Create some data
        let x = parameter(Tensor::from_slice2(&[[1f32, -1.]]))?;
        let y = Tensor::from_slice2(&[[0f32]]).f_to_device(device)?;

        // Forward pass, backward pass, and the step that the notebook stops short of. The optimizer
        // takes the parameters that the model has now, not those it was built with.
        let run = Run {
            model: Model::ThreeLayerNet,
            loss: Loss::BCELoss,
            optimizer: Optimizer::sgd(lr),
            steps,
        };
        let trace = train(&model, &x, &y, &run)?;
        Ok(Notebook { model, run, trace, device })
    }

    /// Writes what the cells print under PyTorch.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn print(&self, out: &mut impl Write) -> Result<()> {
        let cells = Cells { trace: &self.trace, device: self.device };
        writeln!(out, "{}", self.model)?;
        out.write_all(cells.initial_weights()?.as_bytes())?;
        out.write_all(cells.forward()?.as_bytes())?;
        out.write_all(cells.gradients()?.as_bytes())?;
        out.write_all(cells.parameter_gradients()?.as_bytes())?;
        out.write_all(cells.updated_weights(self.run.steps)?.as_bytes())?;
        Ok(())
    }
}

/// What the cells print of a run that [`train`] recorded on a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cells<'a> {
    pub(crate) trace: &'a Trace,
    pub(crate) device: Device,
}

impl<'a> Cells<'a> {
    pub(crate) fn initial_weights(self) -> Result<String> {
        let line = |name| Ok(format!("- {name}\n{}\n\n", self.repr(format!("param/{name}"))?));
        self.names("param/").map(line).collect()
    }

    pub(crate) fn forward(self) -> Result<String> {
        let line = |name| Ok(format!("{name} \t {}\n", self.repr(format!("forward/{name}"))?));
        self.names("forward/").map(line).collect()
    }

    /// Those of the intermediate tensors.
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

    /// After step `step`.
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

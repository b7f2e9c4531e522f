//! The notebook's code cells that compute something, in the notebook's order and in its words.

use anyhow::Result;
use tch::{Device, Reduction, TchError, Tensor};

use super::three_layer_net::{Intermediate, ThreeLayerNet};
use crate::optim::AnyOptimizer;

/// The learning rate of the notebook's `torch.optim.SGD`.
pub const LR: f64 = 0.1;

/// Creates `model = ThreeLayerNet(2,2,3)`, and sets its weights.
pub(super) fn model(device: Device) -> Result<ThreeLayerNet, TchError> {
    let mut model = ThreeLayerNet::new(2, 2, 3)?;

    // Manually initialize some weights
    let parameter = |data| parameter(data, device);
    model.fc1.weight = parameter(Tensor::from_slice2(&[[1f32, 0.], [0., 1.]]))?;
    model.fc1.bias = parameter(Tensor::from_slice(&[0f32, 0.]))?;
    model.fc2.weight = parameter(Tensor::from_slice2(&[[1f32, 1.], [-1., 1.], [1., 0.]]))?;
    model.fc2.bias = parameter(Tensor::from_slice(&[0f32, 0., 0.]))?;
    model.fc3.weight = parameter(Tensor::from_slice2(&[[1f32, -1., 0.]]))?;
    model.fc3.bias = parameter(Tensor::from_slice(&[0f32]))?;
    Ok(model)
}

/// Creates some data: `x` and `y`.
pub(super) fn data(device: Device) -> Result<(Tensor, Tensor), TchError> {
    let x = parameter(Tensor::from_slice2(&[[1f32, -1.]]), device)?;
    let y = Tensor::from_slice2(&[[0f32]]).f_to_device(device)?;
    Ok((x, y))
}

/// Computes the forward pass, and returns the intermediate tensors and the loss.
pub(super) fn forward(
    model: &ThreeLayerNet,
    x: &Tensor,
    y: &Tensor,
) -> Result<(Intermediate, Tensor), TchError> {
    let (y_hat, results) = model.forward(x)?;
    let loss = y_hat.f_binary_cross_entropy(y, None::<Tensor>, Reduction::Mean)?;
    Ok((results, loss))
}

/// Clears the gradients, and computes the backward pass.
pub(super) fn backward(optimizer: &dyn AnyOptimizer, loss: &Tensor) -> Result<()> {
    optimizer.zero_grad()?;
    Ok(loss.f_backward()?)
}

/// Updates the parameters by a step of the optimizer. The notebook itself ends before this step.
///
/// An optimizer that searches for its step, as LBFGS does, computes the two passes again.
pub(super) fn step(
    optimizer: &mut dyn AnyOptimizer,
    model: &ThreeLayerNet,
    x: &Tensor,
    y: &Tensor,
) -> Result<()> {
    optimizer.step(&mut |optimizer| {
        let loss = forward(model, x, y)?.1;
        backward(optimizer, &loss).map(|()| loss)
    })
}

fn parameter(data: Tensor, device: Device) -> Result<Tensor, TchError> {
    data.f_to_device(device)?.f_set_requires_grad(true)
}

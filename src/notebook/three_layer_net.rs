//! The notebook's `ThreeLayerNet`.

use std::fmt;

use tch::{TchError, Tensor};

use crate::torch::{Linear, RetainGrad};

/// The notebook's net: two hidden layers with ReLU, and one output with a sigmoid.
///
/// ```
/// use tch_parity::{ThreeLayerNet, repr};
///
/// tch::manual_seed(0);
/// let model = ThreeLayerNet::new(2, 2, 3)?;
/// let x = tch::Tensor::from_slice2(&[[1f32, -1.]]).set_requires_grad(true);
/// let (h, intermediate) = model.forward(&x)?;
/// h.f_sum(None)?.f_backward()?;
/// for (name, v) in &intermediate {
///     println!("Gradient of {name} \t {}", repr(&v.f_grad()?)?);
/// }
/// # Ok::<(), tch::TchError>(())
/// ```
#[derive(Debug)]
pub struct ThreeLayerNet {
    /// The first layer, from `d1` to `d2` features.
    pub fc1: Linear,
    /// The second layer, from `d2` to `d3` features.
    pub fc2: Linear,
    /// The third layer, from `d3` features to one.
    pub fc3: Linear,
}

/// The tensors that [`ThreeLayerNet::forward`] keeps on its way, each with its name in the notebook.
pub type Intermediate = [(&'static str, Tensor); 7];

impl ThreeLayerNet {
    /// Draws the parameters of `fc1`, `fc2` and `fc3`, in this order, as [`Linear::new`] does.
    ///
    /// After `tch::manual_seed(s)` they have the bits that Python has after `torch.manual_seed(s)`.
    ///
    /// # Errors
    /// Returns libtorch's errors, such as that of a negative dimension.
    pub fn new(d1: i64, d2: i64, d3: i64) -> Result<ThreeLayerNet, TchError> {
        Ok(ThreeLayerNet {
            fc1: Linear::new(d1, d2)?,
            fc2: Linear::new(d2, d3)?,
            fc3: Linear::new(d3, 1)?,
        })
    }

    /// Computes the output `h`, of shape `[batch, 1]`, from `x`, of shape `[batch, d1]`, and returns it with the
    /// intermediate tensors, which will keep their gradients.
    ///
    /// # Errors
    /// Returns libtorch's errors, such as those of shapes that do not fit or of an `x` that does not require grad.
    pub fn forward(&self, x: &Tensor) -> Result<(Tensor, Intermediate), TchError> {
        let z2 = self.fc1.forward(x)?;
        let h2 = z2.f_relu()?;
        let z3 = self.fc2.forward(&h2)?;
        let h3 = z3.f_relu()?;
        let z = self.fc3.forward(&h3)?;
        let h = z.f_sigmoid()?;

        // also output intermediate computations and gradients
        let output = h.shallow_clone();
        let intermediate = [
            ("x", x.shallow_clone()),
            ("z2", z2),
            ("h2", h2),
            ("z3", z3),
            ("h3", h3),
            ("z", z),
            ("h", h),
        ];
        for (_, v) in &intermediate {
            v.retain_grad()?;
        }
        Ok((output, intermediate))
    }

    /// Returns the parameters in PyTorch's order, which is the order of their definition.
    pub fn named_parameters(&self) -> [(&'static str, &Tensor); 6] {
        [
            ("fc1.weight", &self.fc1.weight),
            ("fc1.bias", &self.fc1.bias),
            ("fc2.weight", &self.fc2.weight),
            ("fc2.bias", &self.fc2.bias),
            ("fc3.weight", &self.fc3.weight),
            ("fc3.bias", &self.fc3.bias),
        ]
    }
}

/// Formats the net as Python's `repr(module)` does.
impl fmt::Display for ThreeLayerNet {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        writeln!(f, "ThreeLayerNet(")?;
        for (name, layer) in [("fc1", &self.fc1), ("fc2", &self.fc2), ("fc3", &self.fc3)] {
            writeln!(f, "  ({name}): {layer}")?;
        }
        write!(f, ")")
    }
}

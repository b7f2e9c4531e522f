//! The first layer of `mlp.py` in plain Rust, as a port to a library other than tch would have it. It reads the
//! recorded case and writes what it computes under the case's names, with the safetensors crate alone:
//! `tch-parity compare port.safetensors examples/mlp.safetensors --partial` judges the file.

use std::error::Error;
use std::fs;

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};

/// Reads a tensor of float32, which safetensors stores in little-endian order.
fn floats(case: &SafeTensors, name: &str) -> Result<Vec<f32>, Box<dyn Error>> {
    let bytes = case.tensor(name)?.data().chunks_exact(4).map(<[u8; 4]>::try_from);
    Ok(bytes.map(|bytes| bytes.map(f32::from_le_bytes)).collect::<Result<_, _>>()?)
}

fn main() -> Result<(), Box<dyn Error>> {
    let file = fs::read("examples/mlp.safetensors")?;
    let case = SafeTensors::deserialize(&file)?;
    let (weight, bias) = (floats(&case, "param/fc1.weight")?, floats(&case, "param/fc1.bias")?);
    let x = floats(&case, "input/x")?;

    // y = x Wᵀ + b
    let (inputs, outputs) = (6, 16);
    let mut y = Vec::new();
    for row in x.chunks(inputs) {
        for (weights, bias) in weight.chunks(inputs).zip(&bias) {
            y.push(row.iter().zip(weights).map(|(x, w)| x * w).sum::<f32>() + bias);
        }
    }

    let shape = vec![y.len() / outputs, outputs];
    let bytes = y.into_iter().flat_map(f32::to_le_bytes).collect::<Vec<_>>();
    let tensor = TensorView::new(Dtype::F32, shape, &bytes)?;
    serialize_to_file([("forward/fc1", tensor)], None, "port.safetensors".as_ref())?;
    Ok(())
}

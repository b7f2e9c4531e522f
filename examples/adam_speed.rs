//! Prints the seconds of a step of Adam, of the parameters of a 64-64-1 MLP and of 4096 x 4096 weights:
//! what `scripts/bench` compares with PyTorch.

use std::time::Instant;

use anyhow::Result;
use tch::{Device, Kind, Tensor};
use tch_parity::optim::Adam;

fn seconds(shapes: &[&[i64]], steps: u32) -> Result<f64> {
    let parameter = |(i, shape): (usize, &&[i64])| {
        let p = Tensor::f_randn(*shape, (Kind::Float, Device::Cpu))?.f_set_requires_grad(true)?;
        p.f_sum(Kind::Float)?.f_backward()?;
        Ok((i.to_string(), p))
    };
    let parameters = shapes.iter().enumerate().map(parameter).collect::<Result<Vec<_>>>()?;
    let mut optimizer = Adam::default().build_from(parameters)?;
    optimizer.step()?; // makes the state
    let start = Instant::now();
    for _ in 0..steps {
        optimizer.step()?;
    }
    Ok(start.elapsed().as_secs_f64() / f64::from(steps))
}

fn main() -> Result<()> {
    tch::set_num_threads(1);
    let mlp = seconds(&[&[64, 64], &[64], &[1, 64], &[1]], 5000)?;
    println!("{mlp} {}", seconds(&[&[4096, 4096]], 10)?);
    Ok(())
}

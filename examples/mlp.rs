//! An MLP with LayerNorm and GELU, trained three steps of SGD with momentum and weight decay: the port of
//! `mlp.py`, and the proof.

use anyhow::Result;
use tch::nn::{self, Module, OptimizerConfig};
use tch::{Device, Tensor};
use tch_parity::{Case, Recorder, Trace, assert_parity};

fn port(case: &Case) -> Result<Trace> {
    let vs = nn::VarStore::new(Device::Cpu);
    let root = vs.root();
    let fc1 = nn::linear(&root / "fc1", 6, 16, Default::default());
    let config = nn::LayerNormConfig { eps: 1e-3, ..Default::default() };
    let norm = nn::layer_norm(&root / "norm", vec![16], config);
    let fc2 = nn::linear(&root / "fc2", 16, 3, Default::default());
    case.load_parameters(&vs)?;
    let mut optimizer = nn::sgd(0.9, 0., 0.01, false).build(&vs, 0.1)?;

    let forward = |rec: &Recorder, x: &Tensor| -> Result<Tensor> {
        let x = rec.output("fc1", fc1.forward(x))?;
        let x = rec.output("norm", norm.forward(&x))?;
        let x = rec.output("gelu", x.gelu("none"))?;
        let x = rec.output("fc2", fc2.forward(&x))?;
        rec.output("output", x)
    };
    let rec = Recorder::new();
    for k in 1..=3 {
        optimizer.zero_grad();
        let loss = forward(&rec, &case.input(k, "x")?)?
            .cross_entropy_for_logits(&case.input(k, "target")?);
        loss.backward();
        rec.gradients(&loss, &vs)?;
        optimizer.step();
        rec.step(&vs)?;
    }
    Ok(rec.into_trace())
}

fn main() -> Result<()> {
    let case = Case::load("examples/mlp.safetensors")?;
    case.environment.numerics.restart_with()?;
    println!("{}", assert_parity(&port(&case)?, &case)?.text());
    Ok(())
}

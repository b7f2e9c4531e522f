//! A convolutional net with BatchNorm in training mode and max pooling, trained two steps of SGD: the port of
//! `convnet.py`, and the proof. The VarStore has the running statistics, which are buffers in PyTorch.

use anyhow::Result;
use tch::nn::{self, Module, ModuleT, OptimizerConfig};
use tch::{Device, Tensor};
use tch_parity::{Case, Recorder, Trace, assert_parity};

struct Block {
    names: [String; 4],
    conv: nn::Conv2D,
    norm: nn::BatchNorm,
}

impl Block {
    /// The modules of an `nn.Sequential` from `first` on.
    fn new(features: &nn::Path, first: usize, inputs: i64, outputs: i64, bias: bool) -> Block {
        let config = nn::ConvConfig { padding: 1, bias, ..Default::default() };
        Block {
            names: [0, 1, 2, 3].map(|i| format!("features.{}", first + i)),
            conv: nn::conv2d(features / first, inputs, outputs, 3, config),
            norm: nn::batch_norm2d(features / (first + 1), outputs, Default::default()),
        }
    }

    fn forward(&self, rec: &Recorder, x: &Tensor) -> Result<Tensor> {
        let [conv, norm, relu, pool] = &self.names;
        let x = rec.output(conv, self.conv.forward(x))?;
        let x = rec.output(norm, self.norm.forward_t(&x, true))?;
        let x = rec.output(relu, x.relu())?;
        rec.output(pool, x.max_pool2d_default(2))
    }
}

pub(crate) fn port(case: &Case) -> Result<Trace> {
    let vs = nn::VarStore::new(Device::Cpu);
    let features = vs.root() / "features";
    let blocks = [Block::new(&features, 0, 1, 4, false), Block::new(&features, 4, 4, 8, true)];
    let classifier = nn::linear(vs.root() / "classifier", 8 * 2 * 2, 3, Default::default());
    case.load_parameters(&vs)?;
    let mut optimizer = nn::Sgd::default().build(&vs, 0.05)?;

    let rec = Recorder::new();
    for k in 1..=2 {
        optimizer.zero_grad();
        let mut x = case.input(k, "image")?;
        for block in &blocks {
            x = block.forward(&rec, &x)?;
        }
        let x = rec.output("features", x)?;
        let x = rec.output("classifier", classifier.forward(&x.flatten(1, -1)))?;
        let loss = rec.output("output", x)?.cross_entropy_for_logits(&case.input(k, "target")?);
        loss.backward();
        rec.gradients(&loss, &vs)?;
        optimizer.step();
        rec.step(&vs)?;
    }
    Ok(rec.into_trace())
}

fn main() -> Result<()> {
    let case = Case::load("examples/convnet.safetensors")?;
    case.environment.numerics.restart_with()?;
    println!("{}", assert_parity(&port(&case)?, &case)?.text());
    Ok(())
}

//! A Transformer encoder layer, trained three steps of SGD: the port of `encoder.py`, and the proof. It takes
//! the steps of `torch.nn.functional.multi_head_attention_forward` one by one, since other ones that come to
//! the same in exact arithmetic do not come to the same bits.

use anyhow::Result;
use tch::nn::{self, Module, OptimizerConfig};
use tch::{Device, Kind, Reduction, Tensor};
use tch_parity::{Case, Recorder, Trace, assert_parity};

const HEADS: i64 = 2;

/// `nn.MultiheadAttention(bias=True, dropout=0.0)` of a sequence with itself.
struct SelfAttention {
    in_proj_weight: Tensor,
    in_proj_bias: Tensor,
    out_proj: nn::Linear,
}

impl SelfAttention {
    fn new(path: nn::Path, width: i64) -> SelfAttention {
        SelfAttention {
            in_proj_weight: path.zeros("in_proj_weight", &[3 * width, width]),
            in_proj_bias: path.zeros("in_proj_bias", &[3 * width]),
            out_proj: nn::linear(&path / "out_proj", width, width, Default::default()),
        }
    }

    /// Of `[batch, length, width]`; `padding` is `[batch, length]`, -inf where there is nothing to attend to.
    fn forward(&self, x: &Tensor, padding: &Tensor) -> Tensor {
        let x = x.transpose(0, 1);
        let (length, batch, width) = x.size3().unwrap_or_default();
        let projected = x.linear(&self.in_proj_weight, Some(&self.in_proj_bias));
        let projected = projected.unflatten(-1, [3, width]).unsqueeze(0).transpose(0, -2);
        let projected = projected.squeeze_dim(-2).contiguous();
        let heads = |i| {
            let of_heads = projected.get(i).view([length, batch * HEADS, width / HEADS]);
            of_heads.transpose(0, 1).view([batch, HEADS, length, width / HEADS])
        };
        let mask = padding.view([batch, 1, 1, length]).expand([-1, HEADS, -1, -1], false);
        let attended = Tensor::scaled_dot_product_attention(
            &heads(0),
            &heads(1),
            &heads(2),
            Some(mask),
            0.,
            false,
            None,
            false,
        );
        let attended = attended.permute([2, 0, 1, 3]).contiguous().view([batch * length, width]);
        self.out_proj.forward(&attended).view([length, batch, width]).transpose(0, 1)
    }
}

fn port(case: &Case) -> Result<Trace> {
    let vs = nn::VarStore::new(Device::Cpu);
    let root = vs.root();
    let self_attn = SelfAttention::new(&root / "self_attn", 8);
    let linear1 = nn::linear(&root / "linear1", 8, 16, Default::default());
    let linear2 = nn::linear(&root / "linear2", 16, 8, Default::default());
    let norm1 = nn::layer_norm(&root / "norm1", vec![8], Default::default());
    let norm2 = nn::layer_norm(&root / "norm2", vec![8], Default::default());
    case.load_parameters(&vs)?;
    let mut optimizer = nn::Sgd::default().build(&vs, 0.1)?;

    let rec = Recorder::new();
    for k in 1..=3 {
        optimizer.zero_grad();
        let x = case.input(k, "src")?;
        let padded = case.input(k, "src_key_padding_mask")?;
        let padding =
            padded.zeros_like().to_kind(Kind::Float).masked_fill(&padded, f64::NEG_INFINITY);

        let attended = rec.output("self_attn[0]", self_attn.forward(&x, &padding))?;
        let x = rec.output("norm1", norm1.forward(&(x + attended)))?;
        let hidden = rec.output("linear1", linear1.forward(&x))?;
        let fed = rec.output("linear2", linear2.forward(&hidden.relu()))?;
        let x = rec.output("norm2", norm2.forward(&(x + fed)))?;
        let loss = rec.output("output", x)?.mse_loss(&case.input(k, "target")?, Reduction::Mean);

        loss.backward();
        rec.gradients(&loss, &vs)?;
        optimizer.step();
        rec.step(&vs)?;
    }
    Ok(rec.into_trace())
}

fn main() -> Result<()> {
    let case = Case::load("examples/encoder.safetensors")?;
    case.environment.numerics.restart_with()?;
    println!("{}", assert_parity(&port(&case)?, &case)?.text());
    Ok(())
}

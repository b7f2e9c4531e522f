//! A Llama of two layers, written by hand as a careful person does: the port of `llama.py`, and the proof.
//! `tch-parity port` writes one as well, and a test compares how long both are.

use anyhow::Result;
use tch::nn::{self, Module};
use tch::{Device, Kind, TchError, Tensor};
use tch_parity::{Case, Trace, assert_parity, replay_port};

/// The sizes of the model.
struct Config {
    vocabulary: i64,
    width: i64,
    layers: i64,
    heads: i64,
    kv_heads: i64,
    inner: i64,
}

impl Config {
    /// Returns the width of a head.
    fn head(&self) -> i64 {
        self.width / self.heads
    }
}

struct RmsNorm {
    weight: Tensor,
}

impl RmsNorm {
    const EPS: f64 = 1e-6;

    fn new(p: nn::Path, width: i64) -> RmsNorm {
        RmsNorm { weight: p.ones("weight", &[width]) }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let variance = x.f_pow_tensor_scalar(2)?.f_mean_dim(-1, true, None::<Kind>)?;
        let scale = variance.f_add_scalar(RmsNorm::EPS)?.f_rsqrt()?;
        self.weight.f_mul(&x.f_mul(&scale)?)
    }
}

struct RotaryEmbedding {
    inv_freq: Tensor,
}

impl RotaryEmbedding {
    fn new(p: nn::Path, head: i64) -> RotaryEmbedding {
        // The values are those of the checkpoint.
        RotaryEmbedding { inv_freq: p.zeros_no_train("inv_freq", &[head / 2]) }
    }

    /// Returns the cosines and the sines of `[length, head]`.
    fn forward(&self, length: i64) -> Result<(Tensor, Tensor), TchError> {
        let positions = Tensor::f_arange(length, (Kind::Float, self.inv_freq.device()))?;
        let freqs = positions.f_unsqueeze(1)?.f_mul(&self.inv_freq)?;
        let emb = Tensor::f_cat(&[&freqs, &freqs], -1)?;
        Ok((emb.f_cos()?, emb.f_sin()?))
    }
}

/// Turns each pair of a head's halves.
fn rotate(x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor, TchError> {
    let halves = x.f_chunk(2, -1)?;
    let rotated = Tensor::f_cat(&[&halves[1].f_neg()?, &halves[0]], -1)?;
    x.f_mul(cos)?.f_add(&rotated.f_mul(sin)?)
}

struct Attention {
    heads: i64,
    kv_heads: i64,
    head: i64,
    q_proj: nn::Linear,
    k_proj: nn::Linear,
    v_proj: nn::Linear,
    o_proj: nn::Linear,
}

impl Attention {
    fn new(p: nn::Path, config: &Config) -> Attention {
        let no_bias = nn::LinearConfig { bias: false, ..Default::default() };
        let kv_width = config.kv_heads * config.head();
        Attention {
            heads: config.heads,
            kv_heads: config.kv_heads,
            head: config.head(),
            q_proj: nn::linear(&p / "q_proj", config.width, config.width, no_bias),
            k_proj: nn::linear(&p / "k_proj", config.width, kv_width, no_bias),
            v_proj: nn::linear(&p / "v_proj", config.width, kv_width, no_bias),
            o_proj: nn::linear(&p / "o_proj", config.width, config.width, no_bias),
        }
    }

    /// Splits `[batch, length, width]` into heads: `[batch, heads, length, head]`.
    fn split(&self, x: &Tensor, heads: i64) -> Result<Tensor, TchError> {
        let (batch, length, _) = x.size3()?;
        x.f_view([batch, length, heads, self.head])?.f_transpose(1, 2)
    }

    fn forward(&self, x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor, TchError> {
        let (batch, length, width) = x.size3()?;
        let q = self.split(&self.q_proj.forward(x), self.heads)?;
        let k = self.split(&self.k_proj.forward(x), self.kv_heads)?;
        let v = self.split(&self.v_proj.forward(x), self.kv_heads)?;
        let q = rotate(&q, cos, sin)?;
        let k = rotate(&k, cos, sin)?;
        // Several heads of queries share a head of keys and values.
        let shared = self.heads / self.kv_heads;
        let k = k.f_repeat_interleave_self_int(shared, 1, None)?;
        let v = v.f_repeat_interleave_self_int(shared, 1, None)?;
        let y = Tensor::f_scaled_dot_product_attention(
            &q,
            &k,
            &v,
            None::<&Tensor>,
            0.,
            true,
            None,
            false,
        )?;
        let y = y.f_transpose(1, 2)?.f_reshape([batch, length, width])?;
        Ok(self.o_proj.forward(&y))
    }
}

struct Mlp {
    gate_proj: nn::Linear,
    up_proj: nn::Linear,
    down_proj: nn::Linear,
}

impl Mlp {
    fn new(p: nn::Path, config: &Config) -> Mlp {
        let no_bias = nn::LinearConfig { bias: false, ..Default::default() };
        Mlp {
            gate_proj: nn::linear(&p / "gate_proj", config.width, config.inner, no_bias),
            up_proj: nn::linear(&p / "up_proj", config.width, config.inner, no_bias),
            down_proj: nn::linear(&p / "down_proj", config.inner, config.width, no_bias),
        }
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor, TchError> {
        let gate = self.gate_proj.forward(x).f_silu()?;
        Ok(self.down_proj.forward(&gate.f_mul(&self.up_proj.forward(x))?))
    }
}

struct DecoderLayer {
    self_attn: Attention,
    mlp: Mlp,
    input_layernorm: RmsNorm,
    post_attention_layernorm: RmsNorm,
}

impl DecoderLayer {
    fn new(p: nn::Path, config: &Config) -> DecoderLayer {
        DecoderLayer {
            self_attn: Attention::new(&p / "self_attn", config),
            mlp: Mlp::new(&p / "mlp", config),
            input_layernorm: RmsNorm::new(&p / "input_layernorm", config.width),
            post_attention_layernorm: RmsNorm::new(&p / "post_attention_layernorm", config.width),
        }
    }

    fn forward(&self, x: &Tensor, cos: &Tensor, sin: &Tensor) -> Result<Tensor, TchError> {
        let attended = self.self_attn.forward(&self.input_layernorm.forward(x)?, cos, sin)?;
        let x = x.f_add(&attended)?;
        let out = self.mlp.forward(&self.post_attention_layernorm.forward(&x)?)?;
        x.f_add(&out)
    }
}

struct Llama {
    embed_tokens: nn::Embedding,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    rotary_emb: RotaryEmbedding,
    lm_head: nn::Linear,
}

impl Llama {
    fn new(p: nn::Path, config: &Config) -> Llama {
        let no_bias = nn::LinearConfig { bias: false, ..Default::default() };
        Llama {
            embed_tokens: nn::embedding(
                &p / "embed_tokens",
                config.vocabulary,
                config.width,
                Default::default(),
            ),
            layers: (0..config.layers)
                .map(|i| DecoderLayer::new(&p / "layers" / i, config))
                .collect(),
            norm: RmsNorm::new(&p / "norm", config.width),
            rotary_emb: RotaryEmbedding::new(&p / "rotary_emb", config.head()),
            lm_head: nn::linear(&p / "lm_head", config.width, config.vocabulary, no_bias),
        }
    }

    fn forward(&self, tokens: &Tensor) -> Result<Tensor, TchError> {
        let (_, length) = tokens.size2()?;
        let (cos, sin) = self.rotary_emb.forward(length)?;
        let mut x = self.embed_tokens.forward(tokens);
        for layer in &self.layers {
            x = layer.forward(&x, &cos, &sin)?;
        }
        Ok(self.lm_head.forward(&self.norm.forward(&x)?))
    }
}

fn port(case: &Case) -> Result<Trace> {
    let vs = nn::VarStore::new(Device::Cpu);
    let config = Config { vocabulary: 11, width: 8, layers: 2, heads: 2, kv_heads: 1, inner: 12 };
    let model = Llama::new(vs.root(), &config);
    replay_port(case, &vs, |inputs| {
        let output = model.forward(&inputs["tokens"])?;
        Ok(vec![("output", output)])
    })
}

fn main() -> Result<()> {
    let case = Case::load("examples/llama.safetensors")?;
    case.environment.numerics.restart_with()?;
    println!("{}", assert_parity(&port(&case)?, &case)?.text());
    Ok(())
}

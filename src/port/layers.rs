//! The layers of `torch.nn` that tch has, with the same bits.

use std::collections::HashSet;

use super::flat::{Argument, Flat, From, Id, Int, Variable};
use super::number::{Hole, Number};
use super::recurrent::{Recurrent, Run};
use super::rust::FLOAT;
use super::tree::{Body, What};

/// A layer of tch's `nn`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Layer {
    Linear {
        bias: bool,
    },
    /// Its weight has `dimensions` dimensions beside the channels, and is the same size in each.
    Conv {
        dimensions: usize,
        bias: bool,
    },
    Embedding,
    Norm,
    Recurrent(Recurrent),
}

impl Layer {
    /// Returns the layer that computes what a call of a module does, and the numbers that make it. `shared` has the
    /// variables that other calls read as well.
    pub(super) fn of(
        body: &Body,
        flat: &Flat,
        shared: &HashSet<String>,
    ) -> Option<(Layer, Vec<Hole>)> {
        let class = body.class.strip_prefix("torch.nn.modules.")?;
        if let Some((recurrent, holes)) = Recurrent::of(body, flat, shared) {
            return Some((Layer::Recurrent(recurrent), holes));
        }
        let ([item], [(_, input)]) = (&body.items[..], &body.inputs[..]) else { return None };
        let What::Step(step) = &item.what else { return None };
        if step.depends_on_mode() {
            return None;
        }
        let within = format!("{}.", body.module);
        let own = flat.variables.iter().filter(|variable| variable.name.starts_with(&within));
        let own = own.collect::<Vec<_>>();
        let usual = own.iter().all(|v| v.is_parameter && v.requires_grad && v.meta.dtype == FLOAT);
        if !usual || step.results.ids() != body.outputs {
            return None;
        }
        let call = Call { flat, arguments: &step.arguments, within: &within };
        let names = own.iter().map(|v| &v.name[within.len()..]).collect::<Vec<_>>();
        let bias = match names[..] {
            ["weight"] => false,
            ["weight", "bias"] => true,
            _ => return None,
        };
        let bias_is_shared = bias && shared.contains(&format!("{within}bias"));
        let reads = call.reads("weight", "weight") && (!bias || call.reads("bias", "bias"));
        if !reads || bias_is_shared {
            return None;
        }
        let weight = own.iter().find(|variable| variable.name.ends_with(".weight"))?;
        let is_input = |name: &str| call.argument(name) == Some(&Argument::Value(*input));
        match (class, step.operator.as_str()) {
            ("linear.Linear", "linear") if is_input("input") => {
                let [rows, columns] = sizes(weight)?;
                let holes =
                    vec![Hole::int("in_features", columns), Hole::int("out_features", rows)];
                Some((Layer::Linear { bias }, holes))
            }
            ("sparse.Embedding", "embedding") if is_input("indices") && !bias => {
                let [rows, columns] = sizes(weight)?;
                let only = ["weight", "indices", "padding_idx"];
                let padding = match call.argument("padding_idx") {
                    Some(Argument::Int(index)) => *index,
                    _ => -1,
                };
                let mut holes = vec![Hole::int("num_embeddings", rows)];
                holes.push(Hole::int("embedding_dim", columns));
                holes.push(Hole::int("padding_idx", padding));
                call.has_only(&only).then_some((Layer::Embedding, holes))
            }
            ("normalization.LayerNorm", "layer_norm") if is_input("input") && bias => {
                let shared = shared.contains(&format!("{within}weight"));
                let sizes = weight.meta.sizes.iter().copied().collect::<Option<Vec<_>>>()?;
                let [width] = sizes[..] else { return None };
                let eps = match call.argument("eps") {
                    Some(Argument::Float(eps)) => *eps,
                    _ => 1e-5,
                };
                let holes = vec![
                    Hole::int("normalized_shape", width),
                    Hole { hint: "eps".to_owned(), number: Number::Float(eps) },
                ];
                (!shared).then_some((Layer::Norm, holes))
            }
            (_, "conv1d" | "conv2d" | "conv3d") if is_input("input") => {
                let known = ["conv.Conv1d", "conv.Conv2d", "conv.Conv3d"];
                let dimensions = known.iter().position(|known| *known == class)? + 1;
                let sizes = weight.meta.sizes.iter().copied().collect::<Option<Vec<_>>>()?;
                let (&[out, within_group], kernel) = sizes.split_first_chunk::<2>()?;
                let groups = match call.argument("groups") {
                    Some(Argument::Int(groups)) => *groups,
                    _ => 1,
                };
                let mut holes = vec![
                    Hole::int("in_channels", within_group * groups),
                    Hole::int("out_channels", out),
                    Hole::int("kernel_size", same(kernel)?),
                ];
                for (name, default) in [("stride", 1), ("padding", 0), ("dilation", 1)] {
                    let value = match call.argument(name) {
                        None => default,
                        Some(Argument::Ints(ints)) => same(&known_ints(ints)?)?,
                        _ => return None,
                    };
                    holes.push(Hole::int(name, value));
                }
                holes.push(Hole::int("groups", groups));
                Some((Layer::Conv { dimensions, bias }, holes))
            }
            _ => None,
        }
    }

    /// Returns tch's type.
    pub(super) fn type_name(&self) -> String {
        match self {
            Layer::Linear { .. } => "nn::Linear".to_owned(),
            Layer::Conv { dimensions, .. } => format!("nn::Conv{dimensions}D"),
            Layer::Embedding => "nn::Embedding".to_owned(),
            Layer::Norm => "nn::LayerNorm".to_owned(),
            Layer::Recurrent(recurrent) => recurrent.type_name().to_owned(),
        }
    }

    /// Returns what a call of the layer takes and returns, if that is more than a tensor each.
    pub(super) fn run(&self, body: &Body) -> Option<(&Recurrent, Run)> {
        let Layer::Recurrent(recurrent) = self else { return None };
        Some((recurrent, Run::of(body)?))
    }

    /// Returns the call that makes the layer, with the numbers of its holes as Rust.
    pub(super) fn constructor(&self, path: &str, numbers: &[String]) -> String {
        let config = |kind: &str, changes: &[(&str, &str, &str)]| {
            let changed = changes.iter().filter(|(_, value, default)| value != default);
            let changed = changed.map(|(name, value, _)| {
                if name == value { format!("{name}, ") } else { format!("{name}: {value}, ") }
            });
            let changed = changed.collect::<String>();
            if changed.is_empty() {
                return "Default::default()".to_owned();
            }
            format!("nn::{kind} {{ {changed}..Default::default() }}")
        };
        let word = |bias: &bool| if *bias { "true" } else { "false" };
        match (self, numbers) {
            (Layer::Linear { bias }, [inputs, outputs]) => {
                let config = config("LinearConfig", &[("bias", word(bias), "true")]);
                format!("nn::linear({path}, {inputs}, {outputs}, {config})")
            }
            (
                Layer::Conv { dimensions, bias },
                [inputs, outputs, kernel, stride, padding, dilation, groups],
            ) => {
                let changes = [
                    ("stride", &**stride, "1"),
                    ("padding", padding, "0"),
                    ("dilation", dilation, "1"),
                    ("groups", groups, "1"),
                    ("bias", word(bias), "true"),
                ];
                let config = config("ConvConfig", &changes);
                format!("nn::conv{dimensions}d({path}, {inputs}, {outputs}, {kernel}, {config})")
            }
            (Layer::Embedding, [rows, columns, padding]) => {
                let config = config("EmbeddingConfig", &[("padding_idx", padding, "-1")]);
                format!("nn::embedding({path}, {rows}, {columns}, {config})")
            }
            (Layer::Norm, [width, eps]) => {
                let config = config("LayerNormConfig", &[("eps", eps, "1e-5")]);
                format!("nn::layer_norm({path}, vec![{width}], {config})")
            }
            (Layer::Recurrent(recurrent), [inputs, hidden, layers, dropout]) => {
                let (function, changes) = recurrent.made_by(layers, dropout);
                let config = config("RNNConfig", &changes);
                format!("nn::{function}({path}, {inputs}, {hidden}, {config})")
            }
            _ => String::new(),
        }
    }

    /// Returns the field of the layer that is a variable of PyTorch's name.
    pub(super) fn field(&self, name: &str) -> &'static str {
        if name == "bias" { "bs" } else { "ws" }
    }
}

struct Call<'a> {
    flat: &'a Flat,
    arguments: &'a [(String, Argument)],
    within: &'a str,
}

impl Call<'_> {
    fn argument(&self, name: &str) -> Option<&Argument> {
        self.arguments.iter().find(|(known, _)| known == name).map(|(_, argument)| argument)
    }

    fn has_only(&self, names: &[&str]) -> bool {
        self.arguments.iter().all(|(name, _)| names.contains(&name.as_str()))
    }

    /// Returns whether an argument is a variable of the module.
    fn reads(&self, argument: &str, variable: &str) -> bool {
        let is_own = |id: &Id| match &self.flat.values[*id].from {
            From::Variable(name) => name.strip_prefix(self.within) == Some(variable),
            _ => false,
        };
        matches!(self.argument(argument), Some(Argument::Value(id)) if is_own(id))
    }
}

fn sizes<const N: usize>(variable: &Variable) -> Option<[i64; N]> {
    let sizes = variable.meta.sizes.iter().copied().collect::<Option<Vec<_>>>()?;
    sizes.try_into().ok()
}

fn known_ints(ints: &[Int]) -> Option<Vec<i64>> {
    let known = |int: &Int| if let Int::Known(int) = int { Some(*int) } else { None };
    ints.iter().map(known).collect()
}

/// Returns the number that all are.
fn same(ints: &[i64]) -> Option<i64> {
    let first = *ints.first()?;
    ints.iter().all(|int| *int == first).then_some(first)
}

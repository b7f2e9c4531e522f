//! `tch-parity run`: runs a program that `torch.export` wrote, with its backward.

use std::collections::HashSet;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tch::{Device, Tensor};
use tch_parity::{Program, Trace, Value, backward, call};

use super::computing::{DeviceOption, NumericsArg, compute_with};
use super::exit::Outcome;
use super::output::{Output, ensure_no_input};

/// Run a program that torch.export wrote, and its backward
///
/// The output file has what the model returns as forward/output, or its parts by the names that a case has for them:
/// forward/output[0] of a tuple, forward/output[logits] of a dict. It has the buffers after the run as buffer/NAME. With
/// --backward it also has the gradient of every parameter as grad/NAME, and of every input that is of a float or complex
/// dtype as grad/input/NAME. A tensor of complex128 is two in a file, NAME[real] and NAME[imag].
#[derive(Args)]
#[command(after_help = "Examples:
  tch-parity run model.pt2 --inputs inputs.safetensors --output outputs.safetensors
  tch-parity run model.pt2 --inputs inputs.safetensors --output outputs.safetensors --backward output")]
pub(super) struct Arguments {
    /// The file that torch.export.save wrote
    model: PathBuf,
    /// The safetensors file with the inputs, each under the name of its argument, alone or after input/. That of a
    /// tensor within the argument batch is batch_x for batch["x"] and batch_0 for batch[0]
    #[arg(long, value_name = "FILE")]
    inputs: PathBuf,
    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Run backward from this output, such as output or output[0]: from grad/NAME of the inputs file, or else from
    /// the sum of its elements
    #[arg(long, value_name = "NAME")]
    backward: Option<String>,
    /// The seed of the random numbers, as torch.manual_seed sets it: dropout draws them
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = seed_of)]
    seed: Option<u64>,
    /// How to compute
    #[arg(long, value_enum, default_value_t = NumericsArg::Portable)]
    numerics: NumericsArg,
    #[command(flatten)]
    device: DeviceOption,
}

pub(super) fn run(arguments: Arguments) -> Result<Outcome> {
    let Arguments { model, inputs, output, backward, seed, numerics, device } = arguments;
    ensure_no_input(&[&model, &inputs], &output)?;
    let (device, _) = compute_with(numerics.into(), device.device)?;
    let mut program = Program::load(&model)?;
    program.to_device(device)?;
    let file = Trace::load(&inputs)?;
    let names = program.outputs().collect::<Vec<_>>();
    if let Some(from) = &backward
        && !names.contains(&&**from)
    {
        bail!("--backward {from}: the program returns {}", listed(names.iter().copied()));
    }
    let leaves = ensure_all_known(&program, &file, backward.as_deref())
        .and_then(|()| read_inputs(&program, &file, device));
    let leaves = leaves.with_context(|| inputs.display().to_string())?;
    let mut given = Vec::new();
    for leaf in &leaves {
        let is_differentiable = leaf.f_is_floating_point()? || leaf.f_is_complex()?;
        given.push(match backward.is_some() && is_differentiable {
            // The program may write to its input, and autograd lets nobody write to a leaf.
            true => clone(&leaf.f_set_requires_grad(true)?)?,
            false => leaf.shallow_clone(),
        });
    }
    if let Some(seed) = seed {
        tch::manual_seed(seed.cast_signed());
    }
    let outputs = program.run(&given).with_context(|| model.display().to_string())?;
    let (returned, expected) = (outputs.len(), names.len());
    ensure!(returned == expected, "the program returns {returned} tensors, not {expected}");
    let mut trace = Trace::new();
    for (name, tensor) in names.iter().zip(&outputs) {
        trace.push_parts(&format!("forward/{name}"), tensor)?;
    }
    let root = names.iter().zip(&outputs).find(|(name, _)| Some(**name) == backward.as_deref());
    if let Some((from, output)) = root {
        run_backward(output, from, &file, device)?;
        let inputs = program.inputs().map(|name| format!("input/{name}")).zip(&leaves);
        let parameters = program.parameters().map(|(name, tensor)| (name.to_owned(), tensor));
        for (name, leaf) in parameters.chain(inputs) {
            let gradient = leaf.f_grad()?;
            if gradient.defined() {
                trace.push_parts(&format!("grad/{name}"), &gradient)?;
            }
        }
    }
    for (name, buffer) in program.buffers() {
        trace.push_parts(&format!("buffer/{name}"), buffer)?;
    }
    let mut out = Output::create(&output)?;
    out.write(|mut out| trace.write(&mut out))?;
    out.persist()?;
    Ok(Outcome::Done)
}

/// Returns the number that torch.manual_seed has for a seed: of a negative one, as of any int64 in a uint64.
fn seed_of(text: &str) -> Result<u64, String> {
    let negative = || text.parse::<i64>().map(i64::cast_unsigned);
    text.parse().or_else(|_| negative()).map_err(|_| {
        "torch.manual_seed takes whole numbers from -0x8000_0000_0000_0000 to 0xffff_ffff_ffff_ffff"
            .to_owned()
    })
}

/// Returns names in words.
fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    match names.collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => "no tensor".to_owned(),
        names => names,
    }
}

/// Checks that the program takes all that the inputs file has: a name that is misspelt would have no effect.
fn ensure_all_known(program: &Program, file: &Trace, backward: Option<&str>) -> Result<()> {
    let inputs = program.inputs().flat_map(|name| [name.to_owned(), format!("input/{name}")]);
    let gradient = backward.map(|from| format!("grad/{from}"));
    let known = inputs.chain(gradient.clone());
    let parts = |name: String| [format!("{name}[real]"), format!("{name}[imag]"), name];
    let known = known.flat_map(parts).collect::<HashSet<_>>();
    let Some(name) = file.names().find(|name| !known.contains(*name)) else { return Ok(()) };
    let returns = listed(program.outputs());
    match (name.strip_prefix("grad/"), gradient) {
        (None, _) => bail!(
            "it has {name}, which the program does not take: it takes {}, each alone or after input/",
            listed(program.inputs())
        ),
        (Some(_), None) => bail!(
            "it has {name}, which is taken with --backward NAME alone: the program returns {returns}"
        ),
        (Some(_), Some(gradient)) => bail!(
            "it has {name}, and --backward takes {gradient} alone: the program returns {returns}"
        ),
    }
}

/// Returns the inputs of a program, each under its name in the file.
fn read_inputs(program: &Program, file: &Trace, device: Device) -> Result<Vec<Tensor>> {
    let of = |name: &str| {
        let names = [name.to_owned(), format!("input/{name}")];
        names.into_iter().find(|name| file.contains_parts(name))
    };
    let twice = program
        .inputs()
        .find(|name| file.contains_parts(name) && file.contains_parts(&format!("input/{name}")));
    if let Some(name) = twice {
        bail!(
            "it has {name} and input/{name}, which are one input of the program: keep one of them"
        );
    }
    let missing = program.inputs().filter(|name| of(name).is_none()).collect::<Vec<_>>();
    if !missing.is_empty() {
        let (missing, takes) =
            (missing.join(", "), program.inputs().collect::<Vec<_>>().join(", "));
        let there = file.names().take(20).collect::<Vec<_>>().join(", ");
        bail!("it lacks {missing} of what the program takes ({takes}); its names are {there}");
    }
    program.inputs().filter_map(of).map(|name| file.tensor_of_parts(&name, device)).collect()
}

/// Returns a copy with the same strides, whose gradient is that of the tensor.
fn clone(tensor: &Tensor) -> Result<Tensor> {
    match call("aten::clone", "", &[("self", Value::Tensor(tensor.shallow_clone()))])?.pop() {
        Some(Value::Tensor(clone)) => Ok(clone),
        other => bail!("aten::clone returns {other:?}"),
    }
}

fn run_backward(output: &Tensor, name: &str, file: &Trace, device: Device) -> Result<()> {
    ensure!(output.requires_grad(), "--backward {name}: it depends on nothing that requires grad");
    let full = format!("grad/{name}");
    match file.get(&full) {
        None => Ok(output.f_sum(output.f_kind()?)?.f_backward()?),
        Some(view) => {
            let gradient = file.tensor_of_parts(&full, device)?;
            let (found, expected) = (view.shape(), output.size());
            ensure!(
                gradient.size() == expected,
                "{full} has shape {found:?}, and the output has {expected:?}"
            );
            ensure!(
                gradient.f_kind()? == output.f_kind()?,
                "{full} is of another dtype than the output"
            );
            // The gradient of this sum is the one that is given.
            backward(&[(output, Some(&gradient))])
        }
    }
}

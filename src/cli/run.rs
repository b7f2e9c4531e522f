//! `tch-parity run`: runs a program that `torch.export` wrote, with its backward.

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
/// The output file has the outputs as forward/output, or forward/output[0] and so on where there are several, and the
/// buffers after the run. With --backward it also has the gradient of every parameter, and of every input that is of a
/// float or complex dtype. A tensor of complex128 is two in a file, NAME[real] and NAME[imag].
#[derive(Args)]
#[command(after_help = "Examples:
  tch-parity run model.pt2 --inputs inputs.safetensors --output outputs.safetensors
  tch-parity run model.pt2 --inputs inputs.safetensors --output outputs.safetensors --backward output")]
pub(super) struct Arguments {
    /// The file that torch.export.save wrote
    model: PathBuf,
    /// The safetensors file with the inputs, each under the name of its argument, alone or after input/
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
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<i64>,
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
    let leaves = read_inputs(&program, &file, device);
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
        tch::manual_seed(seed);
    }
    let outputs = program.run(&given).with_context(|| model.display().to_string())?;
    let several = outputs.len() > 1;
    let name = |at| if several { format!("output[{at}]") } else { "output".to_owned() };
    let mut trace = Trace::new();
    for (at, tensor) in outputs.iter().enumerate() {
        trace.push_parts(&format!("forward/{}", name(at)), tensor)?;
    }
    if let Some(from) = &backward {
        let names = (0..outputs.len()).map(name).collect::<Vec<_>>();
        let at = names.iter().position(|name| name == from);
        let at = at.with_context(|| format!("--backward {from}: the outputs are {names:?}"))?;
        run_backward(&outputs[at], from, &file, device)?;
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

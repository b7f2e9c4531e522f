//! `tch-parity run`: runs a program that `torch.export` wrote, with its backward.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use tch::{Device, Tensor};
use tch_parity::{Program, Trace, backward};

use super::computing::{DeviceOption, NumericsArg, compute_with};
use super::exit::Outcome;
use super::output::{Output, ensure_no_input};

/// Run a program that torch.export wrote, and its backward
///
/// The output file has the outputs as forward/output, or forward/output[0] and so on where there are several, and the
/// buffers after the run. With --backward it also has the gradient of every parameter, and of every input that is of a
/// float dtype.
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
    /// How to compute
    #[arg(long, value_enum, default_value_t = NumericsArg::Portable)]
    numerics: NumericsArg,
    #[command(flatten)]
    device: DeviceOption,
}

pub(super) fn run(arguments: Arguments) -> Result<Outcome> {
    let Arguments { model, inputs, output, backward, numerics, device } = arguments;
    ensure_no_input(&[&model, &inputs], &output)?;
    let (device, _) = compute_with(numerics.into(), device.device)?;
    let mut program = Program::load(&model)?;
    program.to_device(device)?;
    let file = Trace::load(&inputs)?;
    let given = program.inputs().map(|name| input(&file, name, device));
    let given = given.collect::<Result<Vec<_>>>();
    let given = given.with_context(|| inputs.display().to_string())?;
    if backward.is_some() {
        for tensor in &given {
            if tensor.f_is_floating_point()? {
                let _ = tensor.f_set_requires_grad(true)?;
            }
        }
    }
    let outputs = program.run(&given).with_context(|| model.display().to_string())?;
    let several = outputs.len() > 1;
    let name = |at| if several { format!("output[{at}]") } else { "output".to_owned() };
    let mut trace = Trace::new();
    for (at, tensor) in outputs.iter().enumerate() {
        trace.push(format!("forward/{}", name(at)), tensor)?;
    }
    if let Some(from) = &backward {
        let names = (0..outputs.len()).map(name).collect::<Vec<_>>();
        let at = names.iter().position(|name| name == from);
        let at = at.with_context(|| format!("--backward {from}: the outputs are {names:?}"))?;
        run_backward(&outputs[at], from, &file, device)?;
        let inputs = program.inputs().map(|name| format!("input/{name}")).zip(&given);
        let parameters = program.parameters().map(|(name, tensor)| (name.to_owned(), tensor));
        for (name, leaf) in parameters.chain(inputs) {
            let gradient = leaf.f_grad()?;
            if gradient.defined() {
                trace.push(format!("grad/{name}"), &gradient)?;
            }
        }
    }
    for (name, buffer) in program.buffers() {
        trace.push(format!("buffer/{name}"), buffer)?;
    }
    let mut out = Output::create(&output)?;
    out.write(|mut out| trace.write(&mut out))?;
    out.persist()?;
    Ok(Outcome::Done)
}

/// Returns the input of that name in a file.
fn input(file: &Trace, name: &str, device: Device) -> Result<Tensor> {
    let names = [name.to_owned(), format!("input/{name}")];
    match names.iter().find(|name| file.contains(name)) {
        Some(name) => Ok(file.tensor(name)?.f_to_device(device)?),
        None => {
            let there = file.names().take(20).collect::<Vec<_>>();
            bail!("it has no tensor {name:?}, which the program takes; it has {there:?}")
        }
    }
}

fn run_backward(output: &Tensor, name: &str, file: &Trace, device: Device) -> Result<()> {
    ensure!(output.requires_grad(), "--backward {name}: it depends on nothing that requires grad");
    let full = format!("grad/{name}");
    match file.get(&full) {
        None => Ok(output.f_sum(output.f_kind()?)?.f_backward()?),
        Some(view) => {
            let gradient = file.tensor(&full)?.f_to_device(device)?;
            let (found, expected) = (view.shape(), output.size());
            ensure!(
                gradient.size() == expected,
                "{full} has shape {found:?}, and the output has {expected:?}"
            );
            // The gradient of this sum is the one that is given.
            backward(&[(output, Some(&gradient))])
        }
    }
}

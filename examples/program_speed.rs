//! Measures programs for `scripts/bench`: each line on stdin asks for a round, and each line on stdout is its result.
//!
//! `train MODEL INPUTS STEPS` prints the seconds of so many steps with AdamW, `replay CASE` those of a replay, and
//! `forward MODEL INPUTS` by how many MiB the memory grows at most while the program runs once.

use std::fs;
use std::io::stdin;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use tch::{Device, Tensor};
use tch_parity::optim::AdamW;
use tch_parity::{Case, Numerics, Program, ProgramReplay, Trace};

/// Reads a program, and the tensors that it takes.
fn program(model: &str, inputs: &str) -> Result<(Program, Vec<Tensor>)> {
    let program = Program::load(model)?;
    let file = Trace::load(inputs)?;
    let inputs = program.inputs().map(|name| file.tensor(name)).collect::<Result<_>>()?;
    Ok((program, inputs))
}

/// Returns the largest memory of this process until now, or that in use, in MiB.
fn memory(line: &str) -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let found = status.lines().find_map(|other| other.strip_prefix(line)?.strip_suffix(" kB"));
    Ok(found.context("no such line")?.trim().parse::<f64>()? / 1024.)
}

/// Prints what each round returns.
fn rounds(mut round: impl FnMut() -> Result<f64>) -> Result<()> {
    for line in stdin().lines() {
        line?;
        println!("{}", round()?);
    }
    Ok(())
}

fn main() -> Result<()> {
    let arguments = std::env::args().skip(1).collect::<Vec<_>>();
    let arguments = arguments.iter().map(String::as_str).collect::<Vec<_>>();
    match arguments[..] {
        ["train", model, inputs, steps] => {
            tch::set_num_threads(1);
            let (program, inputs) = program(model, inputs)?;
            let mut optimizer = AdamW::default().build_from(program.parameters())?;
            let steps = steps.parse()?;
            rounds(|| {
                let start = Instant::now();
                for _ in 0..steps {
                    optimizer.zero_grad()?;
                    program.run(&inputs)?[0].f_backward()?;
                    optimizer.step()?;
                }
                Ok(start.elapsed().as_secs_f64())
            })
        }
        ["replay", case] => {
            Numerics::Portable.restart_with()?;
            let replay = ProgramReplay::new(Case::load(case)?)?;
            rounds(|| {
                let start = Instant::now();
                replay.run(Device::Cpu)?;
                Ok(start.elapsed().as_secs_f64())
            })
        }
        ["forward", model, inputs] => {
            tch::set_num_threads(1);
            let (program, inputs) = program(model, inputs)?;
            rounds(|| {
                fs::write("/proc/self/clear_refs", "5")?; // the peak begins anew
                let before = memory("VmRSS:")?;
                let outputs = program.run(&inputs)?;
                drop(outputs);
                Ok(memory("VmHWM:")? - before)
            })
        }
        _ => bail!("program_speed train MODEL INPUTS STEPS | replay CASE | forward MODEL INPUTS"),
    }
}

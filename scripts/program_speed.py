"""Measures programs against the Python that they come from, in turn and in one run, for `scripts/bench`.

    scripts/zoo --speed EXAMPLE TCH_PARITY

EXAMPLE is the program of examples/program_speed.rs. Times are of one thread. A line of output is a row of
benchmarks/row.py as JSON.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import torch
import zoo
from safetensors.torch import load_file, save_file
from torch.nn import functional as F

ZOO = str(Path(__file__).with_name("zoo.py"))
ROUNDS = 15
WARM_UP = 3


def row(what, ours, peer, theirs, unit="s"):
    print(json.dumps({"what": what, "ours": ours, "peer": peer, "theirs": theirs, "unit": unit}), flush=True)


class Loss(torch.nn.Module):
    """A model with its loss."""

    def __init__(self, model, loss):
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, x, y):
        return self.loss(self.model, x, y)


def export(folder, model, **inputs):
    """Writes a program and its inputs, and returns the two files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(model, (), inputs, strict=False), folder / "model.pt2")
    save_file(inputs, folder / "inputs.safetensors")
    return [str(folder / "model.pt2"), str(folder / "inputs.safetensors")]


class Other:
    """The example, which takes a round when it is asked."""

    def __init__(self, *command, **how):
        self.process = subprocess.Popen(command, **how, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def round(self):
        print(file=self.process.stdin, flush=True)
        return float(self.process.stdout.readline())

    def processor_seconds(self):
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(") ")[2].split()
        return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")  # of the program and of the system for it

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def trained(example, what, model, steps, **inputs):
    """Prints the seconds of a training step, and those of eager PyTorch's."""
    with tempfile.TemporaryDirectory() as folder:
        other = Other(example, "train", *export(Path(folder), model, **inputs), str(steps))
        optimizer = torch.optim.AdamW(model.parameters())

        def round():
            start = time.perf_counter()
            for _ in range(steps):
                optimizer.zero_grad()
                model(**inputs).backward()
                optimizer.step()
            return time.perf_counter() - start

        pairs = [(other.round(), round()) for _ in range(ROUNDS + WARM_UP)][WARM_UP:]
        other.end()
    ours, theirs = ([taken / steps for taken in side] for side in zip(*pairs))
    row(f"a step of {what}", ours, "Python eager", theirs)


# A port's training steps, as examples/program_speed.rs takes those of a program.
STEPS = """
use anyhow::Result;
use {crate}::{model};
use tch::{{Device, nn::VarStore}};
use tch_parity::{{Program, Trace, optim::AdamW}};

fn main() -> Result<()> {{
    tch::set_num_threads(1);
    let (program, file) = (Program::load("model.pt2")?, Trace::load("{inputs}")?);
    let inputs = program.inputs().map(|name| file.tensor(name)).collect::<Result<Vec<_>>>()?;
    let vs = VarStore::new(Device::Cpu);
    let model = {model}::new(vs.root());
    let mut optimizer = AdamW::default().build(&vs)?;
    for line in std::io::stdin().lines() {{
        line?;
        let start = std::time::Instant::now();
        for _ in 0..{steps} {{
            optimizer.zero_grad()?;
            {forward}.f_backward()?;
            optimizer.step()?;
        }}
        println!("{{}}", start.elapsed().as_secs_f64());
    }}
    Ok(())
}}
"""


def built(tch_parity, program, inputs, steps):
    """The program that takes training steps of the port of a program, and its folder."""
    crate = Path(program).with_name("port")
    subprocess.run([tch_parity, "port", program, "--output", crate], check=True)
    proof = (crate / "tests" / "parity.rs").read_text()
    name, model = re.search(r"use (\w+)::(\w+);", proof[proof.index("anyhow::Result;") :]).groups()
    forward = re.search(r"model\.forward\(.*?\)\?", proof, re.DOTALL)[0]
    (crate / "examples").mkdir()
    source = STEPS.format(crate=name, model=model, inputs=inputs, steps=steps, forward=forward)
    (crate / "examples" / "speed.rs").write_text(source)
    target = Path(__file__).parent.parent / "target" / "zoo"
    cargo = {**os.environ, "CARGO_TARGET_DIR": str(target)}
    command = ["cargo", "build", "--quiet", "--release", "--example", "speed"]
    subprocess.run(command, cwd=crate, env=cargo, check=True, stderr=subprocess.DEVNULL)
    return str(target / "release" / "examples" / "speed"), crate


def ported(example, tch_parity, what, model, steps, **inputs):
    """Prints the seconds of a training step of the port, and those of a step of the program that it was written from."""
    with tempfile.TemporaryDirectory() as folder:
        files = export(Path(folder), model, **inputs)
        speed, crate = built(tch_parity, *files, steps)
        both = [Other(speed, cwd=crate), Other(example, "train", *files, str(steps))]
        rounds = [[process.round() for process in both] for _ in range(ROUNDS + WARM_UP)][WARM_UP:]
        for process in both:
            process.end()
    ours, theirs = ([taken / steps for taken in side] for side in zip(*rounds))
    row(f"a step of the port of {what}", ours, "its program", theirs)


def seconds(*command):
    """The seconds of a command by the clock, and those of the processors."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    taken = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return taken, usage.ru_utime + usage.ru_stime


def checked(example, tch_parity):
    """Prints the seconds of `check` of a recorded resnet18, less the start, and those of the replay itself. Another
    process that computes meanwhile changes the time by the clock more than that of the processors."""
    with tempfile.TemporaryDirectory() as folder:
        case = str(Path(folder) / "case.safetensors")
        subprocess.run([sys.executable, ZOO, "resnet18", case], check=True, stderr=subprocess.DEVNULL)
        other = Other(example, "replay", case)

        def replayed():
            before = other.processor_seconds()
            return other.round(), other.processor_seconds() - before

        measures = replayed, lambda: seconds(tch_parity, "check", case), lambda: seconds(tch_parity, "notebook")
        rounds = [[measure() for measure in measures] for _ in range(ROUNDS + 1)][1:]
        other.end()
    for at, unit in enumerate(("by the clock", "processor time")):
        replay, check, start = ([taken[at] for taken in column] for column in zip(*rounds))
        without = [a - b for a, b in zip(check, start)]
        row(f"check of a recorded resnet18, all but the start, {unit}", without, "the replay alone", replay)


def memory(line):
    status = Path("/proc/self/status").read_text()
    return next(int(row.split()[1]) for row in status.splitlines() if row.startswith(line)) / 1024


def eager_forward(inputs):
    """Takes rounds of what `program_speed forward` does."""
    torch.set_num_threads(1)
    model, inputs = zoo.vision("vit_b_16")(), load_file(inputs)
    for _ in sys.stdin:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = memory("VmRSS")
        model(**inputs)
        print(memory("VmHWM") - before, flush=True)


def forward(example):
    """Prints by how much the memory grows at most in a forward of vit_b_16 with autograd, in a process of its own each."""
    inputs = {"x": torch.randn(32, 3, 64, 64)}
    with tempfile.TemporaryDirectory() as folder:
        files = export(Path(folder), zoo.vision("vit_b_16")(), **inputs)
        # What is freed is given back at once, so that what is in use is seen.
        at_once = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
        both = [Other(example, "forward", *files, env=at_once), Other(sys.executable, ZOO, "--forward", files[1], env=at_once)]
        rounds = [[process.round() for process in both] for _ in range(3)]
        for process in both:
            process.end()
    ours, theirs = rounds[-1]  # the first rounds make what stays
    row("memory of a forward of vit_b_16, batch of 32", [ours], "Python eager", [theirs], "MiB")


def main(example, tch_parity):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config, kind, options = zoo.TEXTS["GPT-2"]
    gpt = Loss(zoo.text(config, kind, **options)(), lambda model, x, y: model(input_ids=x, labels=y, use_cache=False).loss)
    words = {"x": torch.randint(1, 50, (2, 8)), "y": torch.randint(1, 50, (2, 8))}
    trained(example, "a two-layer GPT-2 of width 32", gpt, 20, **words)
    ported(example, tch_parity, "a two-layer GPT-2 of width 32", gpt, 20, **words)
    resnet = Loss(zoo.vision("resnet18")(), lambda model, x, y: F.cross_entropy(model(x), y))
    images = {"x": torch.randn(8, 3, 64, 64), "y": torch.randint(10, (8,))}
    trained(example, "resnet18, batch of 8", resnet, 2, **images)
    ported(example, tch_parity, "resnet18, batch of 8", resnet, 2, **images)
    forward(example)
    checked(example, tch_parity)

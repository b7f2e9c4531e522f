#!/usr/bin/env python3
"""Measures how often `tch-parity compare` calls a right run different, and a wrong one the same.

For each seed it records four training steps of a random net with portable numerics: that is the case. Right runs
are the same training with the kernels of this machine on two threads, and with those of AVX2 alone. Wrong runs are
the former with one mistake. All have layers whose gradients are zero in exact arithmetic: a bias before batch norm,
a key bias in attention.

    scripts/right_and_wrong.py target/debug/tch-parity [--seeds 0:200] [--verbose]

It prints a table and exits with 1 if a right run is called different or a mistake is missed.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from tch_parity import Recorder, compute_with
from torch import nn
from torch.nn import functional as F

STEPS = 4
# What makes the libraries use no more than AVX2.
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


class Conv(nn.Module):
    def __init__(self, width, mistakes):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)
        self.fc1 = nn.Linear(width * 4, width)
        self.fc2 = nn.Linear(width, width)
        self.head = nn.Linear(width, 5)
        self.mistakes = mistakes

    def forward(self, x):
        x = F.max_pool2d(activation(self, self.bn1(self.conv1(x))), 2)
        y = activation(self, self.bn2(self.conv2(x)))
        x = residual(self, x, y)
        x = F.max_pool2d(x, 2).flatten(1)
        return self.head(activation(self, self.fc2(activation(self, self.fc1(x)))))


class Mlp(nn.Module):
    def __init__(self, width, mistakes):
        super().__init__()
        self.stem = nn.Linear(12, width)
        self.bn = nn.BatchNorm1d(width)
        self.fc1 = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.fc2 = nn.Linear(width, width)
        self.head = nn.Linear(width, 5)
        self.mistakes = mistakes

    def forward(self, x):
        x = activation(self, self.bn(self.stem(x)))
        y = self.fc2(activation(self, self.norm(self.fc1(x))))
        return self.head(residual(self, x, y))


class Attention(nn.Module):
    """With the projections of query, key and value as layers of their own."""

    def __init__(self, width, mistakes):
        super().__init__()
        self.width = width = width // 4 * 4
        self.embed = nn.Linear(12, width)
        self.norm1 = nn.LayerNorm(width)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 5)
        self.mistakes = mistakes

    def forward(self, x):
        x = self.embed(x)
        y = self.norm1(x)
        q, k, v = (f(y).unflatten(-1, (4, -1)).transpose(1, 2) for f in (self.q, self.k, self.v))
        weights = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        x = x + self.out((weights @ v).transpose(1, 2).flatten(-2))
        x = residual(self, x, self.fc2(activation(self, self.fc1(self.norm2(x)))))
        return self.head(x.mean(1))


class Packed(nn.Module):
    """With PyTorch's own encoder layer, which keeps the three projections in one weight."""

    def __init__(self, width, mistakes):
        super().__init__()
        width = width // 4 * 4
        self.embed = nn.Linear(12, width)
        self.layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.fc1 = nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.fc2 = nn.Linear(width, width)
        self.head = nn.Linear(width, 5)
        self.mistakes = mistakes

    def forward(self, x):
        x = self.layer(self.embed(x)).mean(1)
        y = self.fc2(activation(self, self.norm(self.fc1(x))))
        return self.head(residual(self, x, y))


def activation(net, x):
    return F.leaky_relu(x, 1e-3) if "a leaky ReLU" in net.mistakes else F.relu(x)


def residual(net, x, y):
    if "a residual that is not differentiated" in net.mistakes:
        x = x.detach()
    return y if "no residual" in net.mistakes else x + y


NETS = [Conv, Mlp, Attention, Packed]
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.LayerNorm)

# Each is one line of a port, that is wrong. `run` below makes them.
MISTAKES = [
    "another eps in the norms (1e-6)",
    "no gradient of a bias",
    "a transposed weight",
    "momentum, or the first beta, 1% too low",
    "a loss that is summed, not averaged",
    "a learning rate that is 1% too high",
    "no weight decay",
    "weight decay of the other kind, or half of it",
    "a leaky ReLU",
    "a residual that is not differentiated",
    "no residual",
    "gradients that are added up over the steps",
    "an optimizer that forgets its state at step 3",
    "no clipping of the gradients",
    "a parameter that is not updated",
    "one row of a weight that is not updated",
    "the learning rate of the next step",
    "one target that is wrong",
    "label smoothing of 0.001",
    "inputs in bfloat16",
    "eps of 1e-6 in Adam, or Nesterov in SGD",
]


def run(path, seed, numerics, mistake=None):
    """Records four steps of the net of a seed, with a mistake or without."""
    environment = compute_with("portable" if numerics == "portable" else "native")
    if numerics == "avx2":
        os.environ.update(AVX2)
    if numerics != "portable":
        torch.set_num_threads(2)
    draw = torch.Generator().manual_seed(seed)
    integer = lambda low, high: int(torch.randint(low, high + 1, (), generator=draw))  # noqa: E731
    made = [mistake]
    width, batch = 4 * integer(2, 8), integer(4, 24)
    model = fill(NETS[seed % 4](width, made), draw)
    shape = (batch, 3, 8, 8) if seed % 4 == 0 else (batch, 12) if seed % 4 == 1 else (batch, 7, 12)
    inputs = [normal(shape, draw) for _ in range(STEPS)]
    targets = [torch.tensor([integer(0, 4) for _ in range(batch)]) for _ in range(STEPS)]
    kind = seed // 4 % 3
    lr = 0.05 if kind == 0 else 0.002
    momentum, decay, eps, nesterov = 0.9, 0.01, 1e-8, False
    loss = nn.CrossEntropyLoss()

    if mistake == MISTAKES[0]:
        for module in model.modules():
            if isinstance(module, NORMS):
                module.eps = 1e-6
    elif mistake == "no gradient of a bias":
        model.fc2.bias.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", torch.zeros_like(p)))
    elif mistake == "a transposed weight":
        square = model.fc2.weight if model.fc2.weight.shape[0] == model.fc2.weight.shape[1] else model.q.weight
        square.data = square.data.T.contiguous()
    elif mistake == "momentum, or the first beta, 1% too low":
        momentum = 0.891
    elif mistake == "a loss that is summed, not averaged":
        loss = nn.CrossEntropyLoss(reduction="sum")
    elif mistake == "a learning rate that is 1% too high":
        lr *= 1.01
    elif mistake == "no weight decay":
        decay = 0.0
    elif mistake == "label smoothing of 0.001":
        loss = nn.CrossEntropyLoss(label_smoothing=0.001)
    elif mistake == "one target that is wrong":
        for target in targets:
            target[0] = (target[0] + 1) % 5
    elif mistake == "inputs in bfloat16":
        inputs = [x.bfloat16().float() for x in inputs]
    elif mistake == "eps of 1e-6 in Adam, or Nesterov in SGD":
        eps, nesterov = 1e-6, True
    other_decay = mistake == "weight decay of the other kind, or half of it"

    def optimizer():
        if kind == 0:
            half = 0.5 if other_decay else 1
            return torch.optim.SGD(model.parameters(), lr, momentum, weight_decay=decay * half, nesterov=nesterov)
        adam = torch.optim.AdamW if (kind == 2) != other_decay else torch.optim.Adam
        return adam(model.parameters(), lr, (momentum, 0.999), eps, weight_decay=decay)

    used = optimizer()
    totals = {}
    with Recorder(path, model, optimizer=used, program=False) as recorder:
        recorder.environment = environment
        for number, (x, target) in enumerate(zip(inputs, targets), 1):
            with recorder.watch():
                used.zero_grad()
                recorder.loss(loss(model(x), target)).backward()
                if mistake == "an optimizer that forgets its state at step 3" and number == 3:
                    used.state.clear()
                if mistake != "no clipping of the gradients":
                    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                if mistake == "gradients that are added up over the steps":
                    for p in model.parameters():
                        totals[p] = p.grad + totals.get(p, 0)
                        p.grad = totals[p].clone()
                if mistake == "a parameter that is not updated":
                    model.head.bias.grad = None
                for group in used.param_groups:
                    group["lr"] = lr * 0.9 ** (number + (mistake == "the learning rate of the next step"))
                row = model.fc2.weight[0].detach().clone()
                used.step()
                if mistake == "one row of a weight that is not updated":
                    with torch.no_grad():
                        model.fc2.weight[0] = row


def normal(shape, draw):
    """The sum of uniform numbers, since randn has other bits on other machines."""
    return sum(torch.rand(shape, generator=draw) - 0.5 for _ in range(12))


def fill(model, draw):
    with torch.no_grad():
        for name, p in model.named_parameters():
            fan_in = p[0].numel() if p.dim() > 1 else p.numel()
            p.copy_(normal(p.shape, draw) / math.sqrt(fan_in))
            if "norm" in name or "bn" in name:
                p.mul_(0.3).add_(1.0 if name.endswith("weight") else 0.0)
    return model


def in_child(work):
    """Does the work in a process of its own, since libtorch reads how to compute once."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(f"right_and_wrong: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
    if os.waitpid(child, 0)[1] != 0:
        sys.exit(2)


def differing(program, actual, expected):
    """The names of the tensors that the program calls different, the first 50 in the order of execution."""
    command = [program, "compare", actual, expected, "--criterion", "close", "--json", "-"]
    said = subprocess.run(command, capture_output=True, text=True)
    if said.returncode not in (0, 1):
        sys.exit(said.stderr)
    report = json.loads(said.stdout)["reports"][0]
    return [tensor["name"] for tensor in report["tensors"] if not tensor["passes"]]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the tch-parity that is measured")
    parser.add_argument("--seeds", default="0:200", help="FROM:TO (default: 0:200)")
    parser.add_argument("--verbose", action="store_true", help="name each run that is judged wrongly")
    parser.add_argument("--keep", metavar="FOLDER", help="keep the recordings of these seeds here")
    arguments = parser.parse_args()
    seeds = range(*map(int, arguments.seeds.split(":")))
    right = {"native": [], "avx2": []}
    missed = {mistake: [] for mistake in MISTAKES}
    for seed in seeds:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(arguments.keep or scratch)
            file = lambda name: str(folder / f"{seed}-{name}.safetensors")  # noqa: E731

            def native_runs():
                run(file("native"), seed, "native")
                for number, mistake in enumerate(MISTAKES):
                    run(file(number), seed, "native", mistake)

            in_child(lambda: run(file("case"), seed, "portable"))
            in_child(native_runs)
            in_child(lambda: run(file("avx2"), seed, "avx2"))
            for numerics, called_different in right.items():
                found = differing(arguments.program, file(numerics), file("case"))
                if found:
                    called_different.append(seed)
                    if arguments.verbose:
                        print(f"seed {seed}: {numerics} is called different at {found[:3]} ({len(found)})", flush=True)
            for number, (mistake, seeds_missed) in enumerate(missed.items()):
                if not differing(arguments.program, file(number), file("case")):
                    seeds_missed.append(seed)
                    if arguments.verbose:
                        print(f"seed {seed}: missed: {mistake}", flush=True)
    count = len(seeds)
    print("| right runs | called different |\n|---|---|")
    print(f"| kernels of this machine, two threads | {len(right['native'])} of {count} |")
    print(f"| kernels for AVX2, two threads | {len(right['avx2'])} of {count} |")
    print("\n| mistake | found |\n|---|---|")
    for mistake, seeds_missed in missed.items():
        print(f"| {mistake} | {count - len(seeds_missed)} of {count} |")
    sys.exit(any(right.values()) or any(missed.values()))


if __name__ == "__main__":
    main()

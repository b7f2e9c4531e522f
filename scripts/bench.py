#!/usr/bin/env python3
"""What scripts/bench measures. As `bench.py check DIR` or `bench.py compare ACTUAL EXPECTED` it is the
opponent: the same work with torch and torch.testing.assert_close."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from reference import ThreeLayerNet, compute_with, record_random, train

ROUNDS = 5


def check(folder):
    """Replays every case and compares every tensor."""
    import torch
    from safetensors import safe_open

    environment = compute_with("portable")
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, "pt") as case:
            run = json.loads(case.metadata()["tch-parity"])["run"]
            expected = {name: case.get_tensor(name) for name in case.keys()}
        d2, d1 = expected["param/fc1.weight"].shape
        model = ThreeLayerNet(d1, d2, len(expected["param/fc2.bias"])).to(expected["input/x"].dtype)
        model.load_state_dict({name: expected[f"param/{name}"] for name, _ in model.named_parameters()})
        x, y = expected["input/x"].requires_grad_(), expected["input/y"]
        actual = train(model, x, y, run["optimizer"], run["steps"], environment)
        for name, tensor in actual.tensors.items():
            torch.testing.assert_close(tensor, expected[name].detach())


def compare(actual, expected):
    """Prints the seconds of torch.equal and of assert_close, the files being in memory."""
    import torch
    from safetensors.torch import load_file

    (actual,), (expected,) = load_file(actual).values(), load_file(expected).values()
    actual.sum(), expected.sum()  # from here on the pages are there
    start = time.perf_counter()
    torch.equal(actual, expected)
    equal = time.perf_counter() - start
    start = time.perf_counter()
    torch.testing.assert_close(actual, expected)
    print(equal, time.perf_counter() - start)


def seconds(command):
    start = time.perf_counter()
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return time.perf_counter() - start, output


def row(what, ours, theirs):
    ours, theirs = statistics.median(ours), statistics.median(theirs)
    print(f"{what:<56} {ours:8.3f} s {theirs:8.3f} s {theirs / ours:8.1f} times as fast", flush=True)


def pairs(ours, theirs, rounds=ROUNDS):
    """One warm-up each, then in turn."""
    taken = [(seconds(ours)[0], seconds(theirs)[0]) for _ in range(rounds + 1)][1:]
    return list(zip(*taken))


def peak_anonymous(command):
    """MiB of memory beyond the page cache, as often as it can be looked at."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = max([peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))])
    return peak / 1024


def recording(folder, steps=20):
    """Seconds of training steps of examples/convnet.py's net, plain and recorded, the file included."""
    import torch

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))
    from convnet import ConvNet
    from tch_parity import Recorder

    model, loss = ConvNet(), torch.nn.CrossEntropyLoss()
    model.classifier = torch.nn.Linear(8 * 8 * 8, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x, y = torch.randn(16, 1, 32, 32), torch.randint(3, (16,))
    start = time.perf_counter()
    for _ in range(steps):
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()
    plain = time.perf_counter() - start
    file = folder / "recording"
    file.unlink(missing_ok=True)
    start = time.perf_counter()
    with Recorder(file, model, optimizer=optimizer, loss=loss) as rec:
        for _ in range(steps):
            rec.step(x, y)
    return plain, time.perf_counter() - start


def adam_speed():
    """Prints what examples/adam_speed.rs prints, of torch.optim.Adam."""
    import torch

    def seconds(shapes, steps):
        parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
        for p in parameters:
            p.grad = torch.ones_like(p)
        optimizer = torch.optim.Adam(parameters)
        optimizer.step()
        start = time.perf_counter()
        for _ in range(steps):
            optimizer.step()
        return (time.perf_counter() - start) / steps

    torch.set_num_threads(1)
    print(seconds([(64, 64), (64,), (1, 64), (1,)], 5000), seconds([(4096, 4096)], 10))


def optimizers(example):
    """The time of a step of Adam, as a share of Python's."""
    commands = [example], [sys.executable, __file__, "adam_speed"]
    rounds = [[[float(t) for t in seconds(command)[1].split()] for command in commands] for _ in range(ROUNDS)]
    for i, what in enumerate(("a 64-64-1 MLP", "4096 x 4096 weights")):
        ours, theirs = (statistics.median(taken[side][i] for taken in rounds) for side in (0, 1))
        print(f"Adam, a step of {what:<40} {1e6 * ours:8.1f} us {1e6 * theirs:8.1f} us "
              f"{ours / theirs:.2f} times the time", flush=True)


def main(tch_parity):
    import torch
    from safetensors.torch import save_file

    python = [sys.executable, __file__]
    environment = compute_with("portable")
    print(f"{os.cpu_count()} cores, torch {torch.__version__}; medians of {ROUNDS} rounds: tch-parity, PyTorch")
    reference = str(Path(__file__).with_name("reference.py"))
    row("notebook", *pairs([tch_parity, "notebook"], [sys.executable, reference, "notebook"]))
    for command in (["figure"], *(["worksheet", "--format", format] for format in ("text", "markdown", "html", "ipynb"))):
        ours, notebook = pairs([tch_parity, *command], [tch_parity, "notebook"], 2 * ROUNDS)
        ratio = statistics.median(ours) / statistics.median(notebook)
        print(f"{' '.join(command):<56} {ratio:8.2f} times the time of notebook", flush=True)
    optimizers(str(Path(tch_parity).parent / "examples" / "adam_speed"))
    zoo = [str(Path(__file__).with_name("zoo")), "--speed", str(Path(tch_parity).parent / "examples" / "program_speed")]
    subprocess.run([*zoo, tch_parity], check=True, stderr=subprocess.DEVNULL)
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        record_random(1000, 0, folder / "cases", environment, largest=16)
        ours, theirs = pairs([tch_parity, "check", str(folder / "cases")], [*python, "check", str(folder / "cases")], 3)
        row("check of 1,000 small cases", ours, theirs)

        plain, recorded = map(statistics.median, zip(*[recording(folder) for _ in range(ROUNDS + 1)][1:]))
        print(f"recording 20 steps of a convolutional net adds {recorded / plain - 1:.2f} times their {plain:.3f} s")

        expected = torch.randn(2**28)
        save_file({"w": expected}, folder / "expected")
        for what, actual in (
            ("the same", expected),
            ("1 element in 1,000 differs", expected * (1 + 1e-7 * (torch.arange(2**28) % 1000 == 0))),
            ("nearly every element differs", expected * (1 + 2e-7)),
        ):
            save_file({"w": actual}, folder / "actual")
            files = [str(folder / "actual"), str(folder / "expected")]
            start = statistics.median(seconds([tch_parity, "notebook"])[0] for _ in range(ROUNDS))
            ours = [seconds([tch_parity, "compare", *files])[0] for _ in range(ROUNDS)]
            equal, assert_close = map(float, seconds([*python, "compare", *files])[1].split())
            row(f"compare 2 x 1 GiB, {what}", ours, [assert_close])
            # Theirs is without Python's start, and with the files in memory.
            row("    all but the start", [t - start for t in ours], [assert_close])
            if what == "the same":
                row("    against torch.equal", [t - start for t in ours], [equal])
                memory = peak_anonymous([tch_parity, "compare", *files])
                print(f"    memory beyond the page cache: {memory:.1f} MiB", flush=True)


if __name__ == "__main__":
    commands = {"check": check, "compare": compare, "adam_speed": adam_speed, "optimizers": optimizers}
    if sys.argv[1] in commands:
        commands[sys.argv[1]](*sys.argv[2:])
    else:
        main(sys.argv[1])

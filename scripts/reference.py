#!/usr/bin/env python3
"""The notebook under PyTorch: the reference for `tch-parity notebook`.

    reference.py notebook [--lr LR] [--steps N] [--record FILE]   prints, and records, as tch-parity does
    reference.py stored                                           rewrites what tests/data/ keeps of it
"""

import argparse
import contextlib
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"


class ThreeLayerNet(nn.Module):
    def __init__(self, d1, d2, d3):
        super().__init__()
        self.fc1 = nn.Linear(d1, d2)
        self.fc2 = nn.Linear(d2, d3)
        self.fc3 = nn.Linear(d3, 1)

    def forward(self, x):
        z2 = self.fc1(x)
        h2 = torch.relu(z2)
        z3 = self.fc2(h2)
        h3 = torch.relu(z3)
        z = self.fc3(h3)
        h = torch.sigmoid(z)
        intermediate = dict(x=x, z2=z2, h2=h2, z3=z3, h3=h3, z=z, h=h)
        for v in intermediate.values():
            v.retain_grad()
        return h, intermediate


class Trace:
    """Named tensors in order, as they are when they come in; the same file as the crate's Trace."""

    def __init__(self):
        self.tensors = {}

    def push(self, name, tensor):
        assert name not in self.tensors, f"two tensors named {name}"
        self.tensors[name] = tensor.detach().clone()

    def save(self, path):
        metadata = json.dumps({"order": list(self.tensors)}, separators=(",", ":"))
        save_file(self.tensors, path, {"tch-parity": metadata})


def notebook_model():
    """The net with the notebook's weights, and the optimizer that the notebook built before them."""
    model = ThreeLayerNet(2, 2, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    weights = {
        "fc1": ([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]),
        "fc2": ([[1.0, 1.0], [-1.0, 1.0], [1.0, 0.0]], [0.0, 0.0, 0.0]),
        "fc3": ([[1.0, -1.0, 0.0]], [0.0]),
    }
    for name, (weight, bias) in weights.items():
        layer = getattr(model, name)
        layer.weight = nn.Parameter(torch.tensor(weight))
        layer.bias = nn.Parameter(torch.tensor(bias))
    return model, optimizer


def notebook_data():
    return torch.tensor([[1.0, -1.0]], requires_grad=True), torch.tensor([[0.0]])


def notebook(lr, steps):
    """Runs the cells, printing what they print, and returns the trace."""
    model, _ = notebook_model()
    # The notebook's own optimizer holds the parameters that were there before the weights were set:
    # its step would change nothing. This one steps the parameters that the model has.
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    criterion = nn.BCELoss()
    x, y = notebook_data()
    trace = Trace()

    print(model)
    trace.push("input/x", x)
    trace.push("input/y", y)
    for name, p in model.named_parameters():
        print("-", name)
        print(p.data)
        print()
        trace.push(f"param/{name}", p)

    for k in range(1, steps + 1):
        optimizer.zero_grad()
        y_hat, results = model(x)
        loss = criterion(y_hat, y)
        loss.backward()
        if k == 1:
            for name, v in results.items():
                print(name, "\t", v.data)
                trace.push(f"forward/{name}", v)
            print("L", "\t", loss.data)
            trace.push("forward/L", loss)
            for name, v in results.items():
                print("Gradient of", name, "\t", v.grad)
                trace.push(f"grad/{name}", v.grad)
            for name, p in model.named_parameters():
                print("Gradient of", name)
                print(p.grad)
                print()
                trace.push(f"grad/{name}", p.grad)
        optimizer.step()
        trace.push(f"step/{k}/L", loss)
        for name, p in model.named_parameters():
            trace.push(f"step/{k}/{name}", p)

    for name, p in model.named_parameters():
        print("Updated", name)
        print(p.data)
        print()
    return trace


def stored(folder):
    """What the tests compare with where no PyTorch is asked: the default run's text, 20 steps' tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "notebook.txt", "w") as text, contextlib.redirect_stdout(text):
        notebook(lr=0.1, steps=1)
    with contextlib.redirect_stdout(None):
        notebook(lr=0.1, steps=20).save(folder / "notebook.safetensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("notebook")
    command.add_argument("--lr", type=float, default=0.1)
    command.add_argument("--steps", type=int, default=1)
    command.add_argument("--record", type=Path)
    command = commands.add_parser("stored")
    command.add_argument("--out", type=Path, default=DATA)
    args = parser.parse_args()
    if args.command == "stored":
        stored(args.out)
    else:
        trace = notebook(args.lr, args.steps)
        if args.record:
            trace.save(args.record)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Runs of the notebook's net under PyTorch: what tch-parity is compared with.

    reference.py notebook [--lr LR] [--steps N] [--record FILE]   prints, and records, as tch-parity does
    reference.py random --count N --seed S --out DIR              records N random cases
    reference.py stored                                           rewrites what tests/data/ keeps

Every command takes --numerics portable (the default: the same bits on every machine) or native, and
--device, by default cpu.
"""

import argparse
import contextlib
import random
import sys
from pathlib import Path

import torch
from tch_parity import Trace, compute_with
from tch_parity.optimizers import Optimizer
from tch_parity.trace import ensure_writable
from three_layer_net import ThreeLayerNet
from torch import nn

DATA = Path(__file__).resolve().parent.parent / "tests" / "data"


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


def sgd(lr, momentum=0.0, dampening=0.0, weight_decay=0.0, nesterov=False):
    """What a run says of its optimizer."""
    return dict(name="SGD", lr=lr, momentum=momentum, dampening=dampening, weight_decay=weight_decay, nesterov=nesterov)


def without(values, *keys):
    return {key: value for key, value in values.items() if key not in keys}


def build(args, model):
    """The optimizer that a run says it has."""
    named = dict(model.named_parameters())
    groups = [
        {"params": [named[name] for name in group["parameters"]], **without(group, "parameters")}
        for group in args.get("groups", [])
    ]
    return getattr(torch.optim, args["name"])(groups or named.values(), **without(args, "name", "groups"))


def described(args, noted, model, scheduled):
    """What a run says of its optimizer after the steps: its arguments as they were given, or, where there are groups or
    a schedule, as the recorder of any model writes them."""
    if not scheduled and "groups" not in args:
        return args
    names = {id(p): name for name, p in model.named_parameters()}
    return noted.described(names, [*names.values()])


def moved(model, x, y, device):
    """All that a run computes with, on that device: x is a leaf there too."""
    return model.to(device), x.detach().to(device).requires_grad_(), y.to(device)


def train(model, x, y, optimizer_args, steps, environment, show=lambda *_: None, schedule=None):
    """zero_grad, forward, backward and step, `steps` times; shows what the notebook's cells print.

    `schedule` makes a scheduler of the optimizer, which is stepped after it.
    """
    # Of the parameters that the model has now. The notebook's own optimizer holds those that were there
    # before the weights were set: its step would change nothing.
    model, x, y = moved(model, x, y, environment["device"])
    optimizer = build(optimizer_args, model)
    noted = Optimizer(None, optimizer)
    scheduler = schedule(optimizer) if schedule else None
    criterion = nn.BCELoss()
    trace = Trace()

    show(model)
    trace.push("input/x", x)
    trace.push("input/y", y)
    for name, p in model.named_parameters():
        show("-", name)
        show(p.data)
        show()
        trace.push(f"param/{name}", p)

    def closure():
        optimizer.zero_grad()
        loss = criterion(model(x)[0], y)
        loss.backward()
        return loss

    for k in range(1, steps + 1):
        optimizer.zero_grad()
        y_hat, results = model(x)
        loss = criterion(y_hat, y)
        loss.backward()
        if k == 1:
            for name, v in results.items():
                show(name, "\t", v.data)
                trace.push(f"forward/{name}", v)
            show("L", "\t", loss.data)
            trace.push("forward/L", loss)
            for name, v in results.items():
                show("Gradient of", name, "\t", v.grad)
                trace.push(f"grad/{name}", v.grad)
            for name, p in model.named_parameters():
                show("Gradient of", name)
                show(p.grad)
                show()
                trace.push(f"grad/{name}", p.grad)
        noted.note(k)
        if isinstance(optimizer, torch.optim.LBFGS):
            optimizer.step(closure)
        else:
            optimizer.step()
        if scheduler:
            scheduler.step()
        trace.push(f"step/{k}/L", loss)
        for name, p in model.named_parameters():
            trace.push(f"step/{k}/{name}", p)

    for name, p in model.named_parameters():
        show("Updated", name)
        show(p.data)
        show()
    optimizer_args = described(optimizer_args, noted, model, schedule is not None)
    run = {"model": "ThreeLayerNet", "loss": "BCELoss", "optimizer": optimizer_args, "steps": steps}
    trace.describe(run, environment)
    return trace


def notebook(lr, steps, environment, show=print):
    model, _ = notebook_model()
    return train(model, *notebook_data(), sgd(lr), steps, environment, show)


def drawn(rng, d1, d2, d3, batch, dtype=torch.float32, soft=False, scale=1.0):
    """A net with the initial parameters of a seed, and random data."""
    torch.manual_seed(rng.randrange(2**63))
    model = ThreeLayerNet(d1, d2, d3).to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(scale)
    x = torch.randn(batch, d1, dtype=dtype).requires_grad_()
    y = torch.rand(batch, 1, dtype=dtype)
    return model, x, y if soft else y.round()


def with_edge(name, model, x):
    """Changes a drawn net so that it meets a case that is easy to get wrong."""
    with torch.no_grad():
        if name == "saturated":
            # The sigmoid ends at exactly 0 and 1, so that BCELoss clamps its logs at -100.
            model.fc3.weight.mul_(1e4)
            model.fc3.bias.mul_(1e4)
        elif name == "dead":
            model.fc1.bias.fill_(-1e3)
        elif name == "zero":
            # Pre-activations of exactly 0, of which the relu's derivative is 0.
            model.fc1.weight.zero_()
            model.fc1.bias.zero_()
        elif name == "subnormal":
            tiny = 1e-310 if x.dtype == torch.float64 else 1e-40
            model.fc2.weight.mul_(tiny)
            model.fc2.bias.zero_()
            x.mul_(1e-3)


EDGES = ["saturated", "dead", "zero", "subnormal"]


def random_sgd(rng):
    momentum = rng.choice([0.0, 0.9, rng.random()])
    nesterov = momentum > 0 and rng.random() < 0.5
    return sgd(
        lr=rng.choice([0.1, 10 ** rng.uniform(-6, 0), 0.0]),
        momentum=momentum,
        dampening=0.0 if nesterov else rng.choice([0.0, 0.5, rng.random()]),
        weight_decay=rng.choice([0.0, 0.01, rng.random()]),
        nesterov=nesterov,
    )


# SparseAdam is left out, since it takes no gradient of this net.
OPTIMIZERS = {
    "Adadelta": dict(rho=0.8),
    "Adafactor": dict(d=1.5),
    "Adagrad": dict(lr_decay=0.1),
    "Adam": dict(amsgrad=True),
    "AdamW": dict(betas=(0.8, 0.99)),
    "Adamax": dict(eps=1e-7),
    "ASGD": dict(t0=3.0),
    "LBFGS": dict(max_iter=4, line_search_fn="strong_wolfe"),
    "Muon": dict(ns_steps=3),
    "NAdam": dict(momentum_decay=0.01),
    "RAdam": dict(decoupled_weight_decay=True),
    "RMSprop": dict(centered=True, momentum=0.5),
    "Rprop": dict(etas=(0.4, 1.3)),
}
WEIGHTS, BIASES = ([f"fc{i}.{kind}" for i in (1, 2, 3)] for kind in ("weight", "bias"))


def random_optimizer(rng):
    """Any other optimizer, with arguments of its own in half of the runs, and in two groups in a third of them."""
    name = rng.choice([*OPTIMIZERS])
    args = dict(name=name, lr=rng.choice([1e-2, 10 ** rng.uniform(-5, -1)]))
    if rng.random() < 0.5:
        args |= OPTIMIZERS[name]
    if name == "Muon":  # it takes matrices alone
        args["groups"] = [dict(parameters=WEIGHTS)]
    elif name != "LBFGS" and rng.random() < 0.3:
        args["groups"] = [dict(parameters=BIASES), dict(parameters=WEIGHTS, lr=args["lr"] / 3)]
    return args


SCHEDULES = [
    lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
    lambda optimizer: torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=3),
    lambda optimizer: torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, total_steps=30, cycle_momentum=False),
]


def random_case(rng, environment, largest):
    def size():
        return rng.choice([rng.randint(1, 4), rng.randint(1, largest)])

    model, x, y = drawn(
        rng, size(), size(), size(), size(),
        dtype=rng.choice([torch.float32, torch.float64]),
        soft=rng.random() < 0.5,
        scale=rng.choice([1.0, 1.0, 3.0]),
    )
    edge = rng.choice([None] * 6 + EDGES)
    with_edge(edge, model, x)
    optimizer = random_sgd(rng) if rng.random() < 0.5 else random_optimizer(rng)
    schedule = rng.choice([None, None, *SCHEDULES])
    return train(model, x, y, optimizer, rng.randint(1, 20), environment, schedule=schedule), edge


def record_random(count, seed, out, environment, largest=64):
    rng = random.Random(seed)
    out.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        trace, edge = random_case(rng, environment, largest)
        trace.save(out / f"{i:04}{'-' + edge if edge else ''}.safetensors")


def stored(out, environment):
    """What the tests compare with where no PyTorch is asked."""
    cases = out / "cases"
    cases.mkdir(parents=True, exist_ok=True)
    with open(out / "notebook.txt", "w") as text, contextlib.redirect_stdout(text):
        notebook(0.1, 1, environment)

    def quiet(*_):
        pass

    notebook(0.1, 20, environment, show=quiet).save(out / "notebook.safetensors")

    def store(name, net, optimizer, steps):
        model, x, y = net
        train(model, x, y, optimizer, steps, environment).save(cases / f"{name}.safetensors")

    rng = random.Random(20)
    momentum = dict(momentum=0.9, weight_decay=0.01)
    store("batch-of-16", drawn(rng, 4, 8, 8, 16), sgd(0.1), 5)
    store("float64", drawn(rng, 4, 8, 8, 16, dtype=torch.float64), sgd(0.1), 5)
    store("nesterov", drawn(rng, 3, 5, 4, 8, soft=True), sgd(0.05, nesterov=True, **momentum), 10)
    store("dampening", drawn(rng, 3, 5, 4, 8, soft=True), sgd(0.05, dampening=0.5, **momentum), 10)
    # Large enough for MKL to choose kernels by the instruction set, and to use threads.
    store("instruction-sets", drawn(rng, 64, 64, 16, 64), sgd(0.1), 2)
    for edge in EDGES:
        net = drawn(rng, 3, 5, 4, 6)
        with_edge(edge, *net[:2])
        store(edge, net, sgd(0.1), 3)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("notebook")
    command.add_argument("--lr", type=float, default=0.1)
    command.add_argument("--steps", type=int, default=1)
    command.add_argument("--record", type=Path)
    command = commands.add_parser("random")
    command.add_argument("--count", type=int, required=True)
    command.add_argument("--seed", type=int, required=True)
    command.add_argument("--out", type=Path, required=True)
    command = commands.add_parser("stored")
    command.add_argument("--out", type=Path, default=DATA)
    for command in commands.choices.values():
        command.add_argument("--numerics", choices=["portable", "native"], default="portable")
        command.add_argument("--device", type=torch.device, default="cpu")
    args = parser.parse_args()
    if args.device == torch.device("cuda"):
        args.device = torch.device("cuda:0")
    environment = compute_with(args.numerics, args.device)
    if args.command == "stored":
        stored(args.out, environment)
    elif args.command == "random":
        record_random(args.count, args.seed, args.out, environment)
    else:
        if args.record:
            ensure_writable(args.record)
        trace = notebook(args.lr, args.steps, environment)
        if args.record:
            trace.save(args.record)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        print(f"reference.py: {error}", file=sys.stderr)
        sys.exit(2)

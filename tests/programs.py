"""Records two training steps of small models: those of models.py, of models_like_the_zoo.py,
and of models_under_autocast.py.

    tests/programs.py FOLDER SEED [MODEL…]

It prints the name of each recorded case. The Rust side of the test replays them.
"""

import contextlib
import sys
import warnings
from pathlib import Path

import models_like_the_zoo  # noqa: F401, which registers its models
import models_under_autocast  # noqa: F401, as does this one
import torch
from models import MODELS
from tch_parity import Recorder, compute_with
from torch import nn

warnings.simplefilter("ignore")


def total(output):
    """A loss that depends on every output of float numbers; of a model that has one, its own."""
    if isinstance(output, dict) and "loss" in output:
        return output["loss"]
    leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(output) if leaf.is_floating_point()]
    return sum((leaf * leaf).mean() for leaf in leaves)


OPTIMIZERS = [
    lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.01),
    lambda p: torch.optim.AdamW(p, 0.01, amsgrad=True),
    lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.5, centered=True),
    lambda p: torch.optim.Adagrad(p, 0.05),
    lambda p: torch.optim.NAdam(p, 0.01),
]


def record(path, name, number):
    make, shapes, options = MODELS[name]
    net = make()
    draw = lambda shape: torch.randint(options["integers"], shape) if "integers" in options else torch.randn(shape)  # noqa: E731
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = OPTIMIZERS[number % len(OPTIMIZERS)](trained)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    if "loop" in options:
        return options["loop"](path, net, draw, optimizer)
    if options.get("added_up"):
        return record_added_up(path, net, draw)
    if options.get("several"):
        return record_several(path, net, draw, optimizer)
    if options.get("various"):
        return record_various(path, net, draw, optimizer)
    if options.get("in_turn"):
        return record_in_turn(path, net, draw)
    kwargs = {"scale": 0.5} if name == "numbers_and_strings" else {}
    with Recorder(path, net, optimizer=optimizer, operators=True) as recorder:
        for _ in range(2):
            inputs = [draw(shape) for shape in shapes]
            if options.get("channels_last"):
                inputs = [x.to(memory_format=torch.channels_last) for x in inputs]
            if options.get("requires_grad"):
                inputs = [x.requires_grad_() for x in inputs]
            with recorder.watch():
                if options.get("drawn_within"):
                    inputs = [draw(shape) for shape in shapes]
                optimizer.zero_grad()
                with options.get("around", contextlib.nullcontext)():
                    output = net(*inputs, **kwargs)
                loss = total(output)
                recorder.loss(loss).backward()
                if number % 2:
                    nn.utils.clip_grad_norm_(trained, 0.5)
                optimizer.step()
                schedule.step()
        if options.get("forward_alone"):
            recorder.forward(*inputs)
            with recorder.watch():
                net(*inputs)


def record_added_up(path, net, draw):
    """One of two optimizers steps in each third step, by the gradients of the three."""
    first, second = torch.optim.Adam(net[0].parameters(), 0.01), torch.optim.SGD(net[2].parameters(), 0.05, momentum=0.9)
    with Recorder(path, net, optimizer={"first": first, "second": second}, operators=True) as recorder:
        for step in range(6):
            x = draw((4, 6))
            with recorder.watch():
                second.zero_grad(set_to_none=step % 2 == 0)
                recorder.loss(total(net(x))).backward()
                second.step()
                if step % 3 == 2:
                    nn.utils.clip_grad_norm_(net[0].parameters(), 0.1)
                    first.step()
                    first.zero_grad()


def record_in_turn(path, net, draw):
    """Forward passes between the steps leave the gradients as well, and two steps in turn add up those of the judge."""
    optimizers = {"maker": torch.optim.Adam(net.maker.parameters(), 0.01), "judge": torch.optim.SGD(net.judge.parameters(), 0.05)}
    with Recorder(path, net, optimizer=optimizers) as recorder:
        for step in range(6):
            name = ("judge", "maker")[step % 2]
            with recorder.watch():
                if step != 3:
                    optimizers[name].zero_grad()
                recorder.loss(net(draw((4, 6)))[step % 2 == 0].square().mean()).backward()
                optimizers[name].step()
            recorder.forward(draw((4, 6)))


def record_several(path, net, draw, optimizer):
    with Recorder(path, net, optimizer=optimizer, operators=True) as recorder:
        for _ in range(2):
            with recorder.watch():
                optimizer.zero_grad()
                first, second = net(draw((4, 6))), net(draw((4, 6)))
                (first - second).square().mean().backward()
                net(draw((4, 6))).square().mean().backward()
                optimizer.step()


def record_various(path, net, draw, optimizer):
    with Recorder(path, net, optimizer=optimizer, operators=True) as recorder:
        for rows, scale in (4, 1.0), (7, 1.0), (4, 1.0), (4, 0.5):
            with recorder.watch():
                optimizer.zero_grad()
                net(draw((rows, 6)), scale=scale).square().mean().backward()
                optimizer.step()
        net.eval()
        recorder.forward(draw((4, 6)), scale=1.0)


def record_lbfgs(path):
    net = nn.Linear(6, 2)
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=3)
    x = torch.randn(4, 6)

    def closure():
        optimizer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        return loss

    with Recorder(path, net, optimizer=optimizer) as recorder, recorder.watch():
        optimizer.step(closure)


# Runs that no program replays, recorded where they are named.
WITHOUT = {"lbfgs": record_lbfgs}


def main(folder, seed, *names):
    compute_with("portable")
    for name in WITHOUT.keys() & set(names):
        WITHOUT[name](Path(folder) / f"{name}.safetensors")
    for number, name in enumerate(MODELS):
        if names and name not in names:
            continue
        torch.manual_seed(int(seed) + number)
        record(Path(folder) / f"{name}.safetensors", name, number)
        print(name)


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Adam. As a program, this file is the peer: it prints what examples/adam_speed.rs prints."""

import time

from programs import python, rounds, run
from row import Row

TITLE = "Optimizers"
HOW = "A step of Adam on one thread, within a process, against that of `torch.optim.Adam`."


def seconds(shapes, steps):
    """The seconds of a step."""
    import torch

    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    for p in parameters:
        p.grad = torch.ones_like(p)
    optimizer = torch.optim.Adam(parameters)
    optimizer.step()
    start = time.perf_counter()
    for _ in range(steps):
        optimizer.step()
    return (time.perf_counter() - start) / steps


def rows(programs):
    commands = [programs.adam_speed], python("optimizers.py")
    taken = rounds([lambda command=command: list(map(float, run(command)[2].split())) for command in commands])
    for i, what in enumerate(("a 64-64-1 MLP", "4096 x 4096 weights")):
        ours, theirs = ([one[i] for one in of] for of in taken)
        yield Row(f"Adam, a step of {what}", ours, "Python", theirs)


if __name__ == "__main__":
    import torch

    torch.set_num_threads(1)
    print(seconds([(64, 64), (64,), (1, 64), (1,)], 5000), seconds([(4096, 4096)], 10))

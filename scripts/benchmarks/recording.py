"""What the recorder adds to training steps. As a program, it is both sides: it prints the seconds of each."""

import sys
import tempfile
import time
from pathlib import Path

from programs import HERE, python, rounds, run
from row import Row

TITLE = "Recording"
HOW = """
Training steps of a ResNet-18 (images of 64 x 64, batches of 2, SGD with momentum, portable numerics), recorded with
`tch_parity.Recorder`, the writing of the file included, against the same steps without a recorder. Both within one
Python process. Digests are computed by another thread, where there is another processor. "Without a program" is
`Recorder(…, program=False)`, without `torch.export`, which costs the same whatever the number of steps.
"""


def main(keep, program, steps):
    """Prints the seconds of the recorded and of the plain steps."""
    import torch
    from resnet import resnet18
    from tch_parity import Recorder, compute_with

    compute_with("portable")
    model, loss = resnet18(), torch.nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    x, y = torch.randn(2, 3, 64, 64), torch.tensor([1, 2])

    def step(taken=lambda loss: loss):
        optimizer.zero_grad()
        taken(loss(model(x), y)).backward()
        optimizer.step()

    def plain():
        start = time.perf_counter()
        for _ in range(steps):
            step()
        return time.perf_counter() - start

    def recorded(folder):
        start = time.perf_counter()
        path = Path(folder) / "recording"
        with Recorder(path, model, optimizer=optimizer, keep=keep, program=program) as rec:
            for _ in range(steps):
                with rec.watch():
                    step(rec.loss)
        taken = time.perf_counter() - start
        path.unlink()
        return taken

    with tempfile.TemporaryDirectory(dir=HERE) as folder:
        step(), recorded(folder)
        print(recorded(folder), plain())


def rows(_):
    for steps, keep, program in ((2, "digests", 0), (2, "values", 0), (2, "values", 1), (10, "digests", 0), (10, "values", 0)):
        command = python("recording.py", keep, program, steps)
        [taken] = rounds([lambda command=command: list(map(float, run(command)[2].split()))], 3)
        recorded, plain = zip(*taken)
        yield Row(f"{steps} steps, {keep}, with{'' if program else 'out'} a program", recorded, "Python, not recorded", plain)


if __name__ == "__main__":
    main(sys.argv[1], bool(int(sys.argv[2])), int(sys.argv[3]))

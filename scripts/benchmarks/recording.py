"""What the recorder adds to training steps. As a program, it is both sides: it prints the seconds of each."""

import tempfile
import time
from pathlib import Path

from programs import HERE, python, rounds, run
from row import Row

TITLE = "Recording"
HOW = """
20 training steps of a convolutional net, `examples/convnet.py` on 16 images of 32 x 32, recorded with
`tch_parity.Recorder`, the writing of the file included, against the same steps without a recorder. Both within one
Python process.
"""


def main(steps=20):
    """Prints the seconds of the recorded and of the plain steps."""
    import sys

    import torch

    sys.path.insert(0, str(HERE.parent.parent / "examples"))
    from convnet import ConvNet
    from tch_parity import Recorder

    model, loss = ConvNet(), torch.nn.CrossEntropyLoss()
    model.classifier = torch.nn.Linear(8 * 8 * 8, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    x, y = torch.randn(16, 1, 32, 32), torch.randint(3, (16,))

    def plain():
        optimizer.zero_grad()
        loss(model(x), y).backward()
        optimizer.step()

    plain()
    start = time.perf_counter()
    for _ in range(steps):
        plain()
    plain_seconds = time.perf_counter() - start
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        with Recorder(Path(folder) / "recording", model, optimizer=optimizer, loss=loss) as rec:
            for _ in range(steps):
                rec.step(x, y)
        print(time.perf_counter() - start, plain_seconds)


def rows(_):
    [taken] = rounds([lambda: list(map(float, run(python("recording.py"))[2].split()))])
    recorded, plain = zip(*taken)
    yield Row("20 steps of a convolutional net", recorded, "Python, not recorded", plain)


if __name__ == "__main__":
    main()

"""Large files. As `compare.py JUDGE ACTUAL EXPECTED` it is the peer: it prints its seconds, without Python's start."""

import sys
import tempfile
import time
from pathlib import Path

from programs import ROUNDS, peak_anonymous, python, rounds, run, seconds
from row import Row

TITLE = "Comparing large files"
HOW = """
Two safetensors files of 1 GiB, 16 tensors of float32, both in the page cache. `compare` reads them, compares them and
prints its report. The peer reads them with `safetensors.torch.load_file` and calls `torch.equal`, or
`torch.testing.assert_close`, for each pair of tensors; it is timed within its process, after `import torch`. So the
start of `compare`, measured with two files of one element, is taken off as well, except where the row says "with its
start". `torch.equal` is measured in several rounds, and `assert_close`, which takes long, in one. Where tensors differ,
`torch.equal` stops at the first tensor and says no more, so that the peer is `assert_close`.
"""
TENSORS = 16


def compare(judge, actual, expected):
    """Prints the seconds of torch.equal or of assert_close, with the reading of the files."""
    import torch
    from safetensors.torch import load_file

    def equal(a, b):
        assert torch.equal(a, b)

    def close(a, b):
        torch.testing.assert_close(a, b)

    judge = {"equal": equal, "close": close}[judge]
    start = time.perf_counter()
    a, b = load_file(actual), load_file(expected)
    for name in b:
        judge(a[name], b[name])
    print(time.perf_counter() - start)


def rows(programs):
    import torch
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        tiny, same, actual, expected = (str(folder / name) for name in ("tiny", "same", "actual", "expected"))
        tensors = {f"layer.{i}.weight": torch.randn(2**28 // TENSORS) for i in range(TENSORS)}
        save_file({"w": torch.ones(1)}, tiny)
        save_file(tensors, expected)
        save_file(tensors, same)
        ours = [programs.tch_parity, "compare"]

        def measured(judge, file, count, warm_up):
            start, whole, theirs = rounds(
                [
                    lambda: seconds([*ours, tiny, tiny]),
                    lambda: seconds([*ours, file, expected]),
                    lambda: float(run(python("compare.py", judge, file, expected))[2]),
                ],
                count,
                warm_up,
            )
            return [b - a for a, b in zip(start, whole)], whole, theirs

        time, whole, equal = measured("equal", same, ROUNDS, 1)
        yield Row("the same", time, "torch.equal", equal)
        yield Row("the same, with its start", whole, "torch.equal", equal)
        yield Row("the same: memory beyond the page cache", [peak_anonymous([*ours, same, expected])], unit="MiB")
        for what, change in (
            ("1 element in 1,000 differs", lambda t: t * (1 + 1e-7 * (torch.arange(len(t)) % 1000 == 0))),
            ("nearly every element differs", lambda t: t * (1 + 2e-7)),
        ):
            save_file({name: change(t) for name, t in tensors.items()}, actual)
            time, _, close = measured("close", actual, 1, 0)
            yield Row(what, time, "assert_close", close)


if __name__ == "__main__":
    compare(*sys.argv[1:])

#!/usr/bin/env python3
"""Everything that is said of CUDA, seen on a machine with an NVIDIA GPU, in one command:

    check_cuda.py TCH_PARITY [--out DIR]

The machine needs a Python with the PyTorch that the binary TCH_PARITY was built for, whose libtorch it then
runs on, and no Rust. DIR keeps what PyTorch recorded on the GPU. Exit codes: 0 all as said; 1 not; 3 no
CUDA here.
"""

import argparse
import os
import random
import subprocess
import sys
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = [sys.executable, str(ROOT / "scripts" / "reference.py")]
FAILED = []


def run(command, rc=0):
    """What a command prints; it has to exit with that code."""
    # Ahead of the folder that the binary was built with.
    libraries = str(Path(torch.__file__).parent / "lib")
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
    done = subprocess.run([str(word) for word in command], env=environment, capture_output=True, text=True)
    if done.returncode != rc:
        raise RuntimeError(f"{command} exits with {done.returncode}, not {rc}:\n{done.stdout[-4000:]}{done.stderr}")
    return done.stdout, done.stderr


def seen(claim):
    """A decorator: runs a check, and prints whether what it claims was seen."""

    def check(body):
        try:
            body()
            print(f"seen     {claim}", flush=True)
        except (AssertionError, RuntimeError) as error:
            FAILED.append(claim)
            print(f"NOT SEEN {claim}\n{error}", flush=True)

    return check


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tch_parity", type=Path)
    parser.add_argument("--out", type=Path, default=Path("cuda-cases"))
    args = parser.parse_args()
    if not torch.cuda.is_available():
        print("no CUDA here: torch.cuda.is_available() is False")
        sys.exit(3)
    parity = [args.tch_parity.resolve()]
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    seed = os.environ.get("TCH_PARITY_SEED") or random.randrange(2**32)
    print(f"{torch.cuda.get_device_name(0)}, PyTorch {torch.__version__}, {run([*parity, '--version'])[0].strip()}; ", end="")
    print(f"seed {seed}", flush=True)

    @seen("the notebook's stdout is Python's on the same GPU, and names the device")
    def _():
        ours = run([*parity, "notebook", "--device", "cuda"])[0]
        assert "device='cuda:0'" in ours
        theirs = run([*REFERENCE, "notebook", "--device", "cuda"])[0]
        assert ours == theirs, f"{ours}\nPython:\n{theirs}"

    @seen("a recording is the same file, from Rust, from Rust again, and from Python")
    def _():
        files = [out / "rust", out / "again", out / "python"]
        for command, file in zip([parity, parity, REFERENCE], files):
            run([*command, "notebook", "--device", "cuda", "--steps", "20", "--record", file])
        first, *others = (file.read_bytes() for file in files)
        assert all(first == other for other in others), [other == first for other in others]
        for file in files:
            file.unlink()

    @seen("random cases that Python records on this GPU replay bitwise, as auto requires")
    def _():
        cases = out / "random"
        run([*REFERENCE, "random", "--count", "200", "--seed", seed, "--out", cases, "--device", "cuda"])
        report, _ = run([*parity, "check", "--device", "cuda", cases])
        assert "portable numerics on the same kind of GPU" in report, report
        assert "200 cases: 200 same" in report, report

    @seen("and are close on the CPU")
    def _():
        report, _ = run([*parity, "check", out / "random"])
        assert "close (to a GPU) required" in report and "200 cases: 200 same" in report, report

    @seen("the stored cases of the CPU are close on this GPU")
    def _():
        report, _ = run([*parity, "check", "--device", "cuda", ROOT / "tests" / "data" / "cases"])
        assert "close (to a GPU) required" in report, report

    @seen("auto says that it takes the GPU; a device that is not there is refused")
    def _():
        assert run([*parity, "notebook", "--device", "auto"])[1] == "device auto: cuda:0\n"
        error = run([*parity, "notebook", "--device", "cuda:99"], rc=2)[1]
        assert "no such device" in error and error.count("\n") == 1, error

    run([*REFERENCE, "stored", "--device", "cuda", "--out", out])
    print(f"what Python recorded on this GPU is in {out}")
    sys.exit(1 if FAILED else 0)


if __name__ == "__main__":
    main()

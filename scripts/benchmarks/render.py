"""Rows as text: a line for a terminal, and docs/benchmarks.md."""

import datetime
import os
import platform
import subprocess
from importlib.metadata import version
from statistics import median

HEAD = """# Benchmarks

How fast is tch-parity, and how much memory does it take? Every figure is measured beside that of a peer, in turn and
in one run, since machines differ and one machine is faster in one minute than in the next. The ratios are what counts.
A figure is the median of the rounds, and a ratio is the median of the ratios of the rounds, so that it can differ a
little from the quotient of the figures beside it.

`scripts/bench --write` has measured all of this and written this page.
"""


def figure(seconds, unit):
    if unit == "MiB":
        return f"{seconds:.1f} MiB"
    if unit == "steps/s":
        return f"{1 / seconds:,.0f} steps/s"
    for scale, name in ((1, "s"), (1e-3, "ms")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {name}"
    return f"{seconds / 1e-6:.3g} µs"


def compared(row):
    """The ratio in words: the larger a number, the further the two are apart."""
    if row.theirs is None:
        return ""
    ratio = row.ratio()
    if row.unit == "MiB":
        return f"{ratio:.2f} times the memory"
    return f"{1 / ratio:.1f} times as fast" if ratio < 0.5 else f"{ratio:.2f} times the time"


def cells(row):
    theirs = figure(median(row.theirs), row.unit) if row.theirs else ""
    return row.what, figure(median(row.ours), row.unit), row.peer, theirs, compared(row)


def line(row):
    what, ours, peer, theirs, ratio = cells(row)
    return f"  {what:<50} {ours:>15}   {peer:<28} {theirs:>15}   {ratio}".rstrip()


def processor():
    with open("/proc/cpuinfo") as lines:
        return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def machine():
    compiler = output(os.environ.get("CXX", "c++"), "--version").splitlines()[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    rows = [
        ("date", datetime.date.today().isoformat()),
        ("commit", output("git", "rev-parse", "--short", "HEAD")),
        ("processor", f"{processor()}, {len(os.sched_getaffinity(0))} cores"),
        ("memory", f"{memory:.0f} GiB"),
        ("PyTorch and libtorch", version("torch")),
        ("safetensors, for Python", version("safetensors")),
        ("Python", platform.python_version()),
        ("Rust", output("rustc", "--version").split()[1]),
        ("C++ compiler", compiler),
    ]
    return "\n## The machine and the versions\n\n" + table(["", ""], rows)


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page(measured):
    parts = [HEAD]
    for title, how, rows in measured:
        head = ["what", "tch-parity", "peer", "the peer's", "tch-parity takes"]
        parts.append(f"\n## {title}\n\n{how.strip()}\n\n{table(head, map(cells, rows))}")
    return "".join(parts) + machine()

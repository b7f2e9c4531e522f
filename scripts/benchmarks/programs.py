"""The programs that are measured, and how they are."""

import os
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 3
HERE = Path(__file__).resolve().parent


class Programs:
    def __init__(self, target):
        self.tch_parity = str(target / "debug" / "tch-parity")
        self.adam_speed = str(target / "debug" / "examples" / "adam_speed")
        self.program_speed = str(target / "debug" / "examples" / "program_speed")
        self.notebook_cpp = str(target / "notebook-cpp")


def python(file, *arguments):
    """The command that runs a file of this folder, or of scripts/."""
    return [sys.executable, str(HERE / file), *map(str, arguments)]


def run(command, **environment):
    """Runs a command and returns its seconds, its largest MiB of resident memory, and what it printed."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **environment})
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    taken = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    # Of compare, 1 says that the files differ.
    if process.returncode not in (0, 1) or process.returncode == 1 and "compare" not in command:
        sys.exit(f"{' '.join(command)}: exit code {process.returncode}")
    return taken, usage.ru_maxrss / 1024, printed


def seconds(command, **environment):
    return run(command, **environment)[0]


def rounds(measures, count=ROUNDS, warm_up=1):
    """Calls each of the functions to warm up, then in turn, and returns the list of what each returned."""
    taken = [[measure() for measure in measures] for _ in range(warm_up + count)][warm_up:]
    return [list(column) for column in zip(*taken)]


def in_turn(*commands, count=ROUNDS, warm_up=1, **environment):
    """The lists of the seconds of each command, which are run in turn, so that all see the same machine."""
    return rounds([lambda command=command: seconds(command, **environment) for command in commands], count, warm_up)


def peak_anonymous(command):
    """MiB of memory beyond the page cache, as often as it can be looked at."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text()
        peak = max([peak, *(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))])
    return peak / 1024

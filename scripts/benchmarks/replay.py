"""Programs of real architectures, measured by scripts/program_speed.py in the environment of scripts/zoo."""

import json
import subprocess

from programs import HERE
from row import Row

TITLE = "Programs and ports"
HOW = """
Exported programs against the Python that they come from, on one thread: training steps with AdamW, and the memory by
which a forward with autograd grows. Ports, which `port` has written, against the programs that they come from. And
`check` of a recorded case, without its start, against the replay alone. Each side is a process of its own that takes
its rounds in turn. The replay alone has run before, and `check` is a new process each
time.
"""


def rows(programs):
    command = [str(HERE.parent / "zoo"), "--speed", programs.program_speed, programs.tch_parity]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    yield from (Row(**json.loads(line)) for line in said.splitlines())

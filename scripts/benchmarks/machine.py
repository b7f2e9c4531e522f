"""The machine and the versions that were measured, without the name of the machine."""

import datetime
import os
import platform
import subprocess
from importlib.metadata import version


def processor():
    with open("/proc/cpuinfo") as lines:
        return next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def output(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def machine():
    compiler = output(os.environ.get("CXX", "c++"), "--version").splitlines()[0]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": datetime.date.today().isoformat(),
        "processor": f"{processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{memory:.0f} GiB",
        "PyTorch and libtorch": version("torch"),
        "safetensors, for Python": version("safetensors"),
        "Python": platform.python_version(),
        "Rust": output("rustc", "--version").split()[1],
        "C++ compiler": compiler,
    }

"""The choice of kernels, and the fingerprint of the environment. It knows no model and no file."""

import os
import re
from pathlib import Path

import torch

PORTABLE = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


def compute_with(numerics, device="cpu"):
    """Chooses "portable" or "native" kernels, and returns the fingerprint of this environment.

    To be called before torch first computes: only then do ATen, MKL and cuBLAS read the variables.
    """
    if numerics not in ("portable", "native"):
        raise ValueError(f'numerics are "portable" or "native", not {numerics!r}')
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    if numerics == "portable":
        os.environ.update(PORTABLE)
        torch.set_num_threads(1)  # MKL chooses other kernels for small matrices where it has two
        torch.backends.mkldnn.set_flags(False)  # oneDNN compiles its kernels for the CPU that it meets
        torch.backends.nnpack.set_flags(False)  # NNPACK is there only on CPUs with AVX2
    else:
        for name in PORTABLE:
            os.environ.pop(name, None)
    return environment(numerics, torch.device(device))


def environment(numerics=None, device=torch.device("cpu")):
    """The fingerprint that the crate's Environment::current makes."""
    if numerics is None:
        portable = all(os.environ.get(name) == value for name, value in PORTABLE.items())
        portable &= torch.get_num_threads() == 1
        portable &= not torch.backends.mkldnn.enabled and not torch._C._get_nnpack_enabled()
        numerics = "portable" if portable else "native"
    config = torch.__config__.show()

    def line(start):
        found = re.search(rf"^ *- {re.escape(start)}(.*)$", config, re.MULTILINE)
        return found[1].strip() if found else ""

    if numerics == "portable" and line("CPU capability usage:") not in ("DEFAULT", ""):
        raise RuntimeError('compute_with("portable") came too late: torch had computed before')
    cpu = Path("/proc/cpuinfo")
    name = re.search(r"^model name\s*:(.*)$", cpu.read_text(), re.MULTILINE) if cpu.exists() else None
    about = {
        "torch": re.search(r"TORCH_VERSION=([^,]*)", config)[1],
        "cpu_capability": line("CPU capability usage:"),
        "threads": torch.get_num_threads(),
        "numerics": numerics,
        "device": str(device),
        "device_name": name[1].strip() if name else "",
        "mkl": line("Intel(R) oneAPI Math Kernel Library Version"),
        "onednn": line("Intel(R) MKL-DNN"),
    }
    if device.type == "cuda":
        about["device_name"] = torch.cuda.get_device_name(device)
        about["cuda"] = {
            "runtime": line("CUDA Runtime"),
            "cudnn": line("CuDNN"),
            "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""),
            "tf32": False,
        }
    return about

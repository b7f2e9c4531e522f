"""The digest of a tensor, which stands in a file in the place of its elements. It knows no file and no model."""

import ctypes
import hashlib
import math

import torch

from .copies import DTYPES

# Of complex numbers, and of floats of 8 bits or fewer, there is no summary.
WITHOUT_SUMMARY = {torch.complex64, *(dtype for dtype, name in DTYPES.items() if name.startswith("F8"))}


def digest(tensor):
    """The digest of what host_copy() returned, as plain data: dtype, shape, SHA-256, and a summary for the reader."""
    about = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "sha256": sha256(with_one_nan(tensor))}
    if tensor.dtype in WITHOUT_SUMMARY:
        return {**about, "min": None, "max": None, "mean": None, "norm": None, "nan": 0, "inf": 0}
    nan = inf = 0
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        nan, inf = int(tensor.isnan().sum()), int(tensor.isinf().sum())
        tensor = tensor[torch.isfinite(tensor)]
    least = greatest = mean = norm = None
    if tensor.numel():
        numbers = tensor.reshape(-1).to(torch.float64)
        least, greatest = (rounded(float(bound)) for bound in torch.aminmax(numbers))
        mean, norm = rounded(float(numbers.mean())), rounded(float(torch.linalg.vector_norm(numbers)))
    return {**about, "min": least, "max": greatest, "mean": mean, "norm": norm, "nan": nan, "inf": inf}


# Of the floats of 8 bits that have several nans, the greatest magnitude that is none.
GREATEST = {torch.float8_e4m3fn: 0x7E, torch.float8_e5m2: 0x7C}


def with_one_nan(tensor):
    """The tensor with every nan as the one that float("nan") is, since a nan equals any nan."""
    if tensor.dtype in GREATEST:
        bits = tensor.view(torch.uint8)
        return torch.where((bits & 0x7F) > GREATEST[tensor.dtype], torch.full((), 0x7F, dtype=torch.uint8), bits)
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if tensor.dtype in WITHOUT_SUMMARY or not tensor.is_floating_point() or not bool(tensor.isnan().any()):
        return tensor
    return torch.where(tensor.isnan(), torch.full((), math.nan, dtype=tensor.dtype), tensor)


def sha256(tensor):
    """The SHA-256 of a contiguous tensor's bytes."""
    size = tensor.nbytes
    return hashlib.sha256((ctypes.c_char * size).from_address(tensor.data_ptr()) if size else b"").hexdigest()


def rounded(value):
    """A number with six significant digits, or None for one that JSON does not have."""
    return float(f"{value:.5e}") if math.isfinite(value) else None

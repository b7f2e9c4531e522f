"""The digest of a tensor, which stands in a file in the place of its elements. It knows no file and no model."""

import hashlib
import math

import torch

from .copies import DTYPES
from .spool import memory

# Of complex numbers, and of floats of 8 bits or fewer, there is no summary.
NOTHING = {"min": None, "max": None, "mean": None, "norm": None, "nan": 0, "inf": 0}
WITHOUT_SUMMARY = {torch.complex64, *(dtype for dtype, name in DTYPES.items() if name.startswith("F8"))}


def digest(tensor):
    """The digest of what host_view() returned, as plain data: dtype, shape, SHA-256, and a summary for the reader."""
    about = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape)}
    summary = summarized(tensor.reshape(-1)) if tensor.dtype not in WITHOUT_SUMMARY else NOTHING
    if summary is None:  # something is not finite
        summary = summarized(tensor[torch.isfinite(tensor)])
        summary = {**summary, "nan": int(tensor.isnan().sum()), "inf": int(tensor.isinf().sum())}
    if summary["nan"] or tensor.dtype in WITHOUT_SUMMARY:
        tensor = with_one_nan(tensor)
    return {**about, "sha256": sha256(tensor), **summary}


# How many elements are summed up at once: so many in float64 stay in the processor's cache.
BLOCK = 1 << 17


def summarized(numbers):
    """The summary of numbers in one dimension, or None if one of them is not finite."""
    if numbers.numel() == 0:
        return NOTHING
    least, greatest = math.inf, -math.inf
    total = squares = 0.0
    wide = torch.empty(min(BLOCK, numbers.numel()), dtype=torch.float64)
    for block in numbers.split(BLOCK):
        block = wide[:block.numel()].copy_(block)
        low, high = (float(bound) for bound in torch.aminmax(block))
        if not (math.isfinite(low) and math.isfinite(high)):  # where there is a nan, both are one
            return None
        least, greatest = min(least, low), max(greatest, high)
        total += float(block.sum())
        squares += float(torch.dot(block, block))
    mean, norm = rounded(total / numbers.numel()), rounded(math.sqrt(squares))
    return {**NOTHING, "min": rounded(least), "max": rounded(greatest), "mean": mean, "norm": norm}


# Of the floats of 8 bits that have several nans, the greatest magnitude that is none.
GREATEST = {torch.float8_e4m3fn: 0x7E, torch.float8_e5m2: 0x7C}


def with_one_nan(tensor):
    """The tensor with every nan as the one that float("nan") is, since a nan equals any nan."""
    if tensor.dtype in GREATEST:
        bits = tensor.view(torch.uint8)
        return torch.where((bits & 0x7F) > GREATEST[tensor.dtype], torch.full((), 0x7F, dtype=torch.uint8), bits)
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if not tensor.is_floating_point() or tensor.dtype in WITHOUT_SUMMARY or not bool(tensor.isnan().any()):
        return tensor
    return torch.where(tensor.isnan(), torch.full((), math.nan, dtype=tensor.dtype), tensor)


def sha256(tensor):
    """The SHA-256 of a contiguous tensor's bytes."""
    return hashlib.sha256(memory(tensor)).hexdigest()


def rounded(value):
    """A number with six significant digits, or None for one that JSON does not have."""
    return float(f"{value:.5e}") if math.isfinite(value) else None

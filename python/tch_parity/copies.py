"""Copies of tensors as a file can hold them: their dtypes, their parts and their strides. It knows no file."""

import functools
import weakref

import torch

# As safetensors names them, in the order in which it lays tensors out, so that a file is the same bytes
# whoever writes it.
DTYPES = {
    torch.uint64: "U64",
    torch.int64: "I64",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.float32: "F32",
    torch.uint32: "U32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.uint16: "U16",
    torch.int16: "I16",
    torch.float8_e5m2fnuz: "F8_E5M2FNUZ",
    torch.float8_e4m3fnuz: "F8_E4M3FNUZ",
    torch.float8_e8m0fnu: "F8_E8M0",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

# The most memory that strides may take: so many times the bytes of the elements, or so many bytes.
MAX_SPREAD, MAX_SPAN = 16, 1 << 20


class CannotRecord(ValueError):
    """A tensor that a file cannot hold; the message says why."""


def host_view(name, tensor):
    """The tensor as a contiguous one in the CPU's memory: itself, if it is one.

    Raises CannotRecord for what has no elements laid out by strides, or a dtype that safetensors does not have.
    """
    if tensor.layout != torch.strided or tensor.is_nested or tensor.device.type == "meta":
        what = "nested tensor" if tensor.is_nested else f"{tensor.layout} on {tensor.device}"
        raise CannotRecord(f"{name}: a case holds no {what}")
    if tensor.dtype not in DTYPES:
        raise CannotRecord(f"{name}: a case holds no {tensor.dtype}")
    if tensor._is_zerotensor():  # it has no memory
        tensor = torch.zeros(tensor.shape, dtype=tensor.dtype)
    view = tensor.detach().resolve_neg().resolve_conj().cpu().contiguous()
    try:
        view.data_ptr()
    except RuntimeError:
        raise CannotRecord(f"{name}: a case holds no tensor without memory of its own") from None
    return view


def host_copy(name, tensor):
    """A copy of it."""
    view = host_view(name, tensor)
    return view.clone() if shares(view, tensor) else view


def shares(view, tensor):
    """Whether what host_view() returned is the memory of the tensor."""
    return view.data_ptr() == tensor.data_ptr()


def strides_to_keep(tensor):
    """The strides of a tensor, or None where they are those of a new one, or leave gaps that would be too large."""
    strides = tensor.stride()
    if strides == contiguous_strides(tensor.shape) or tensor.numel() == 0:
        return None
    span = 1 + sum((n - 1) * stride for n, stride in zip(tensor.shape, strides))
    large = span * tensor.element_size() > max(MAX_SPREAD * tensor.nbytes, MAX_SPAN)
    return None if large else list(strides)


@functools.lru_cache(1 << 12)
def contiguous_strides(shape):
    """The strides of a new tensor."""
    strides, stored = [], 1
    for n in reversed(shape):
        strides.insert(0, stored)
        stored *= n
    return tuple(strides)


def is_whole(tensor):
    """Whether a file can hold a tensor as one."""
    return tensor.layout == torch.strided and tensor.dtype in DTYPES


def dense_parts(name, tensor):
    """A tensor as those that a file can hold: a sparse one is its indices and values, complex128 two of float64."""
    if tensor.layout == torch.sparse_coo:
        tensor = tensor.coalesce()
        return [(f"{name}[indices]", tensor.indices()), (f"{name}[values]", tensor.values())]
    if tensor.dtype == torch.complex128:
        return [(f"{name}[real]", tensor.real), (f"{name}[imag]", tensor.imag)]
    return [(name, tensor)]


def host_parts(name, tensor):
    """The same as copies, each with its strides where they are to be kept."""
    return [(part, host_copy(part, tensor), strides_to_keep(tensor)) for part, tensor in dense_parts(name, tensor.detach())]


def host_view_parts(name, tensor):
    """The same without copies, and without strides."""
    return [(part, host_view(part, tensor), None) for part, tensor in dense_parts(name, tensor.detach())]


def same(some, others):
    """Whether two lists of parts hold the same bits."""
    return len(some) == len(others) and all(
        a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b)) for (_, a, _), (_, b, _) in zip(some, others)
    )


def bits(tensor):
    """The bytes of a tensor, row by row, as a tensor."""
    return tensor.reshape(-1).view(torch.uint8)


def version(tensor):
    """How often a tensor was written to; inference tensors do not say it."""
    return None if tensor.is_inference() else tensor._version


class Noted:
    """A tensor at a time, without a reference that keeps it."""

    def __init__(self, tensor):
        self.tensor, self.version = weakref.ref(tensor), version(tensor)

    def is_still(self, tensor):
        """Whether this is the tensor, and nothing has written to it since."""
        return self.tensor() is tensor and self.version == version(tensor)

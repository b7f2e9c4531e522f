"""The bytes of tensors on their way into a file. It knows no names, and no format."""

import ctypes
import tempfile
from typing import NamedTuple

import torch

BLOCK = 1 << 20

_view = ctypes.pythonapi.PyMemoryView_FromMemory
_view.restype, _view.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)


def memory(tensor):
    """The bytes of a contiguous tensor in the CPU's memory, where they lie."""
    return _view(tensor.data_ptr(), tensor.nbytes, 0x100) if tensor.nbytes else memoryview(b"")  # 0x100: for reading


class Spooled(NamedTuple):
    """A tensor whose bytes are in a spool."""

    dtype: torch.dtype
    shape: torch.Size
    nbytes: int
    spool: "Spool"
    offset: int

    def blocks(self):
        """The bytes in pieces, of which each is there until the next one is asked for."""
        return self.spool.blocks(self.offset, self.nbytes)


class Spool:
    """A file without a name, which holds the tensors of a run in the order in which they come.

    The file that is written in the end has another order, and a header in front. What is written here takes no memory
    of the process, and writing is faster than copying into new memory.
    """

    def __init__(self, folder):
        self.file = tempfile.TemporaryFile(dir=folder, buffering=BLOCK)
        self.end = 0
        self.block = memoryview(bytearray(BLOCK))

    def write(self, tensor):
        """Appends a contiguous tensor in the CPU's memory."""
        self.file.write(memory(tensor))
        spooled = Spooled(tensor.dtype, tensor.shape, tensor.nbytes, self, self.end)
        self.end += tensor.nbytes
        return spooled

    def blocks(self, offset, size):
        """Reads bytes when all are written."""
        self.file.flush()
        self.file.raw.seek(offset)
        while size:
            read = self.file.raw.readinto(self.block[:min(size, BLOCK)])
            size -= read
            yield self.block[:read]

    def close(self):
        self.file.close()

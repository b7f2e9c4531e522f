"""A checkpoint that a case refers to, in the place of initial values of its own. It knows safetensors files, and no model."""

import ctypes
import hashlib
import json
import mmap
import os

from .copies import DTYPES
from .trace import MAX_HEADER


class Checkpoint:
    """A safetensors file that holds parameters and buffers by PyTorch's names."""

    def __init__(self, path):
        self.path = path
        if os.path.isdir(path):
            raise ValueError(f"{path} is a folder, and no safetensors file")
        with open(path, "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            try:
                self.header = json.loads(file.read(min(length, MAX_HEADER)))
                self.data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
                if not isinstance(self.header, dict):
                    raise ValueError
            except ValueError:
                raise ValueError(f"{path} is no safetensors file") from None
        self.start = 8 + length
        self.sha256 = hashlib.sha256(self.data).hexdigest()
        self.names = {}  # those of the tensors that come from it, by their names in the case

    def holds(self, name, copy):
        """Whether it has a tensor of that name; an error unless it is that one, to the bit."""
        about = self.header.get(name)
        if about is None:
            return False
        begin, end = about["data_offsets"]
        alike = about["dtype"] == DTYPES[copy.dtype] and about["shape"] == list(copy.shape)
        here = ctypes.string_at(copy.data_ptr(), copy.nbytes)
        if not alike or self.data[self.start + begin:self.start + end] != here:
            raise ValueError(f"{name} of the model is another one than in {self.path}: load the checkpoint into the model first")
        return True

    def described(self, folder):
        """What the metadata says of it: its file is named relative to the folder of the case."""
        return {"file": os.path.relpath(self.path, folder), "sha256": self.sha256, "tensors": self.names}

"""Named tensors and their safetensors file. It knows no model: what was run and where is plain data."""

import json
import os
import stat
import tempfile
from pathlib import Path

import torch

from .copies import DTYPES, host_view, shares, strides_to_keep
from .beside import Later
from .spool import Spooled, memory

FORMAT = 2

# The name under which a file holds its digests, as JSON: they would not fit into a header.
DIGESTS = "__digests__"

# The most bytes of a header that safetensors reads.
MAX_HEADER = 100_000_000


class Trace:
    """Named tensors in order, as they are when they come in; the same file as the crate's Trace.

    store  a function of a tensor's name, the tensor, which is contiguous and in the CPU's memory, and whether it is
           our own: what is kept of it, which is a copy, a spooled one, or a digest that is there or comes Later
    """

    def __init__(self, store=lambda name, tensor, own: tensor if own else tensor.clone()):
        self.store = store
        self.tensors = {}
        self.strides = {}
        self.initial = None  # what the metadata says of a checkpoint
        self.about = {}
        self.header = 0  # about as many bytes as the tensors take in the header

    def push(self, name, tensor):
        """Appends a tensor as it is now."""
        view = host_view(name, tensor)
        self.put(name, self.store(name, view, not shares(view, tensor)), strides_to_keep(tensor))

    def keep(self, name, copy, strides=None):
        """Appends what host_copy() returned."""
        self.put(name, self.store(name, copy, True), strides)

    def put(self, name, kept, strides=None):
        """Appends what was kept of a tensor."""
        if name in self.tensors:
            raise ValueError(f"two tensors named {name}")
        self.reserve(name, in_header(name, kept))
        self.tensors[name] = kept
        if strides:
            self.strides[name] = strides

    def reserve(self, name, size):
        """Counts what something takes in the header."""
        self.header += size
        if self.header > MAX_HEADER:
            raise ValueError(
                f"{name}: the header of the file would become larger than {MAX_HEADER} bytes, which is the most that"
                " can be read: record fewer steps or modules, or several files"
            )

    def replace(self, name, copy):
        """Puts another tensor of the same shape in the place of one."""
        self.tensors[name] = self.store(name, copy, True)

    def forget_after(self, count):
        """Forgets all but the first `count` tensors."""
        self.forget(*list(self.tensors)[count:])

    def forget_section(self, section):
        """Forgets the tensors whose names begin like this."""
        self.forget(*[name for name in self.tensors if name.startswith(section)])

    def forget(self, *names):
        for name in names:
            self.header -= in_header(name, self.tensors.pop(name))
            self.strides.pop(name, None)

    def describe(self, run, environment):
        self.about = {"run": run, "environment": environment}

    def save(self, path):
        """Writes beside the file and renames; no tensor is copied once more. A link is followed."""
        ensure_writable(path)
        path = Path(path).resolve()
        strides = {"strides": self.strides} if self.strides else {}
        initial = {"initial": self.initial} if self.initial else {}
        metadata = {"format": FORMAT, "order": list(self.tensors), **strides, **initial, **self.about}
        header = {"__metadata__": {"tch-parity": compact(metadata)}}
        offset = 0
        rank = {dtype: i for i, dtype in enumerate(DTYPES)}
        tensors = {name: kept for name, kept in self.tensors.items() if has_values(kept)}
        digests = {name: kept for name, kept in self.tensors.items() if name not in tensors}
        # From the last one: those are not yet begun.
        late = {name: kept.result() for name, kept in reversed(digests.items()) if isinstance(kept, Later)}
        digests = {name: late.get(name, kept) for name, kept in digests.items()}
        if digests:
            tensors[DIGESTS] = torch.frombuffer(bytearray(compact(digests).encode()), dtype=torch.uint8)
        laid_out = sorted(tensors.items(), key=lambda item: (rank[item[1].dtype], item[0].encode()))
        for name, tensor in laid_out:
            end = offset + tensor.nbytes
            header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
            offset = end
        header = compact(header).encode()
        header += b" " * (-len(header) % 8)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".tch-parity.", delete=False, buffering=0) as file:
            try:
                write(file, len(header).to_bytes(8, "little") + header)
                small = bytearray()  # tensors, of which each would cost a call of its own
                for _, kept in laid_out:
                    for block in kept.blocks() if isinstance(kept, Spooled) else [memory(kept)]:
                        is_small = len(block) < 1 << 16
                        if is_small:
                            small += block
                        if not is_small or len(small) >= 1 << 20:
                            write(file, small)
                            small = bytearray()
                        if not is_small:
                            write(file, block)
                write(file, small)
                umask = os.umask(0)
                os.umask(umask)
                os.chmod(file.name, 0o666 & ~umask)  # as any new file, and not as a temporary one
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise


def ensure_writable(path):
    """Raises an error unless a file can be written there. A link is followed."""
    if not str(path):
        raise ValueError("the name of the file is empty")
    target = Path(path).resolve()
    if target.is_dir():
        raise ValueError(f"{path} is a folder: give the name of a file in it")
    if target.exists() and not stat.S_ISREG(target.stat().st_mode):
        raise ValueError(f"{path} is no regular file")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent}")
    if not os.access(target.parent, os.W_OK):
        raise PermissionError(f"nothing can be written into {target.parent}")


def has_values(kept):
    """Whether the values of a tensor were kept, and not its digest."""
    return isinstance(kept, (torch.Tensor, Spooled))


def in_header(name, kept):
    """About as many bytes as a tensor takes in the header: of a digest, it is the name in the order."""
    dimensions = len(kept.shape) if has_values(kept) else -1
    return 2 * len(name.encode()) + 16 * (dimensions + 1) + (80 if dimensions >= 0 else 0)


def write(file, data):
    """All of it: one call writes 2 GiB at most."""
    data = memoryview(data).cast("B")
    while data:
        data = data[file.write(data):]


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)

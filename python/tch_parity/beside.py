"""Digests that other threads compute while the run goes on. It knows no names, and no file."""

import collections
import concurrent.futures
import os

import torch

from .digest import digest

# A smaller tensor takes less time than to hand it over. Of the others, so many bytes may be waiting.
SMALL, MOST = 1 << 16, 1 << 24


class Digester:
    """Threads that compute digests. Hashing and PyTorch's operations leave Python to the run meanwhile."""

    def __init__(self):
        # On one processor they would only get into the run's way.
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self.threads = concurrent.futures.ThreadPoolExecutor(min(processors - 1, 3)) if processors > 1 else None
        self.waiting, self.bytes = collections.deque(), 0
        self.buffers = Buffers()

    def digest(self, tensor, own):
        """The digest of a tensor, or a Later one: of a copy, unless the tensor is our `own`."""
        while self.waiting and self.waiting[0].future.done():
            done = self.waiting.popleft()
            self.bytes -= done.tensor.nbytes
            done.result()
        if self.threads is None or tensor.nbytes < SMALL or self.bytes + tensor.nbytes > MOST:
            return digest(tensor)
        later = Later(self.threads, tensor, None if own else self.buffers)
        self.waiting.append(later)
        self.bytes += tensor.nbytes
        return later

    def close(self):
        if self.threads is not None:
            self.threads.shutdown(cancel_futures=True)


class Later:
    """A digest that may still be computed."""

    def __init__(self, threads, tensor, buffers):
        self.value, self.buffers = None, buffers
        self.tensor, self.buffer = (tensor, None) if buffers is None else buffers.copy(tensor)
        self.future = threads.submit(digest, self.tensor)

    def result(self):
        """The digest; if no thread has begun, it is computed here."""
        if self.tensor is not None:
            self.value = digest(self.tensor) if self.future.cancel() else self.future.result()
            self.tensor = self.future = None
            if self.buffer is not None:
                self.buffers.free.append(self.buffer)
                self.buffer = None
        return self.value


class Buffers:
    """Memory for copies that is used again: copies that are made and freed in any order leave the heap in pieces.

    free  the buffers that no copy is in
    """

    def __init__(self):
        self.free = []

    def copy(self, tensor):
        """A copy of a contiguous tensor, and the buffer that it is in."""
        fitting = [at for at, buffer in enumerate(self.free) if buffer.nbytes >= tensor.nbytes]
        if fitting:
            buffer = self.free.pop(min(fitting, key=lambda at: self.free[at].nbytes))
        else:
            if sum(buffer.nbytes for buffer in self.free) > MOST:
                self.free.clear()
            buffer = torch.empty(1 << (tensor.nbytes - 1).bit_length(), dtype=torch.uint8)
        return buffer[:tensor.nbytes].view(tensor.dtype).view(tensor.shape).copy_(tensor), buffer

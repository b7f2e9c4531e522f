"""Digests that other threads compute while the run goes on. It knows no names, and no file."""

import collections
import concurrent.futures
import os

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

    def digest(self, tensor, own):
        """The digest of a tensor, or a Later one: of a copy, unless the tensor is our `own`."""
        while self.waiting and self.waiting[0].future.done():
            done = self.waiting.popleft()
            self.bytes -= done.tensor.nbytes
            done.result()
        if self.threads is None or tensor.nbytes < SMALL or self.bytes + tensor.nbytes > MOST:
            return digest(tensor)
        later = Later(self.threads, tensor if own else tensor.clone())
        self.waiting.append(later)
        self.bytes += tensor.nbytes
        return later

    def close(self):
        if self.threads is not None:
            self.threads.shutdown(cancel_futures=True)


class Later:
    """A digest that may still be computed."""

    def __init__(self, threads, tensor):
        self.tensor, self.value = tensor, None
        self.future = threads.submit(digest, tensor)

    def result(self):
        """The digest; if no thread has begun, it is computed here."""
        if self.tensor is not None:
            self.value = digest(self.tensor) if self.future.cancel() else self.future.result()
            self.tensor = None
        return self.value

"""What a recording has so far: tensors, other values and what was left out, by the format's names. It knows no module."""

import json
import sys
import weakref
from pathlib import Path

from .beside import Digester
from .copies import CannotRecord, dense_parts, host_copy, host_view, is_whole, shares, strides_to_keep, version
from .digest import digest
from .initial import Checkpoint
from .names import is_given, is_taken, plain
from .spool import Spool
from .trace import Trace

# A tensor of so many bytes is about as small as its digest.
SMALL = 256


class Case:
    """The tensors and values of a run, in the order in which they come.

    prefix       what the names of the step that is open begin with
    values       arguments and outputs that are no tensors
    not_recorded what was left out, each with the reason
    has_program  whether the case has the program of its model, which then takes some tensors' values from it
    factor       what the gradients of the step were multiplied by, if that is known
    """

    def __init__(self, path, keep, initial):
        self.path = path
        self.of_digests = keep == "digests"
        if initial is not None and Path(initial).resolve() == Path(path).resolve():
            raise ValueError(f"initial= is {path} itself, which the recording would replace")
        self.checkpoint = None if initial is None else Checkpoint(initial)
        self.trace = Trace(self._store)
        self.prefix, self.values, self.not_recorded = "", {}, []
        self.has_program, self.factor = False, None
        self.outputs = {}  # what was kept of the step's outputs, by id

    def open(self):
        self.spool = Spool(Path(self.path).resolve().parent)
        self.digester = Digester()

    def close(self):
        self.digester.close()
        self.spool.close()

    def begin(self, step):
        """Begins a step, counted from 1, and returns what rollback() takes."""
        self.prefix = "" if step == 1 else f"step/{step}/"
        self.factor = None
        return len(self.trace.tensors), len(self.values), len(self.not_recorded)

    def rollback(self, begun):
        """Forgets a step."""
        tensors, values, not_recorded = begun
        self.trace.forget_after(tensors)
        del self.not_recorded[not_recorded:]
        for name in list(self.values)[values:]:
            del self.values[name]

    def push(self, name, tensor, prefix=None):
        """Appends a tensor as it is now; returns whether it could be recorded."""
        try:
            for part, dense in dense_parts(name, tensor):
                self.trace.push((self.prefix if prefix is None else prefix) + part, dense)
        except CannotRecord as error:
            self.leave_out([name], str(error).split(": ", 1)[1])
            return False
        return True

    def holds(self, full):
        """Whether it has a tensor of that name."""
        return full in self.trace.tensors

    def push_output(self, name, tensor):
        """Appends what a module returned. Containers return what their last module returned, which is stored once."""
        known = self.outputs.get(id(tensor))
        if known is not None and known[0]() is tensor and known[1] is not None and known[1] == version(tensor):
            self.trace.put(self.prefix + name, *known[2:])
            return True
        if not self.push(name, tensor):
            return False
        kept = self.trace.tensors.get(self.prefix + name)
        if kept is not None:  # it is not in several parts
            strides = self.trace.strides.get(self.prefix + name)
            self.outputs[id(tensor)] = weakref.ref(tensor), version(tensor), kept, strides
        return True

    def push_initial(self, full, name, tensor):
        """Appends a parameter or a buffer before the first step, of which a checkpoint may have the values.

        Returns whether it could be recorded.
        """
        if self.checkpoint is None or not is_whole(tensor):
            return self.push(full, tensor)
        copy, strides = host_copy(full, tensor), strides_to_keep(tensor)
        if self.checkpoint.holds(name, copy):
            self.checkpoint.names[full] = name
            self.trace.put(full, digest(copy), strides)
        else:
            self.trace.keep(full, copy, strides)
        return True

    def keep(self, name, gradient):
        """Appends what host_parts() returned of a gradient."""
        for part, copy, strides in gradient:
            self.trace.keep(self.prefix + name + part, copy, strides)

    def operator(self, name, result):
        """Appends the digest of what an operator returned."""
        view = host_view(name, result)
        self.trace.put(self.prefix + name, self.digester.digest(view, not shares(view, result)))

    def value(self, name, value):
        """Notes a number, a string or None, which is no tensor and stands in the metadata."""
        known = plain(value)
        if known is None and value is not None:
            self.leave_out([name], f"a case holds no such {type(value).__name__}")
        else:
            self.trace.reserve(name, len(json.dumps(known)) + len(self.prefix + name))
            self.values[self.prefix + name] = known

    def leave_out(self, names, why, quiet=False):
        """Notes and prints what is left out; once, whichever the step."""
        for name in names:
            line = f"{name}: {why}"
            if line not in self.not_recorded:
                self.not_recorded.append(line)
                if not quiet:
                    print(f"recorder: not recorded: {line}", file=sys.stderr)

    def save(self, run, environment):
        """Writes the file."""
        if not self.has_program:
            self.trace.forget_section("program/")
        self.trace.describe(run, environment)
        if self.checkpoint is not None:
            self.trace.initial = self.checkpoint.described(Path(self.path).resolve().parent)
        self.trace.save(self.path)

    def _store(self, name, tensor, own):
        """In a case of digests, a digest suffices unless somebody starts from the values."""
        if not self.of_digests or tensor.nbytes <= SMALL:
            return self.spool.write(tensor)
        computed = self.factor is not None and "taken/" in name
        needed = is_given(name) or is_taken(name) and self.has_program and not computed
        return self.spool.write(tensor) if needed else self.digester.digest(tensor, own)

"""torch.autocast: its state, which calls of a model are within one context, and how a program has it. It knows torch alone.

Within the outermost context a weight that is casted twice is casted once, so that its gradients are added up in the lower
precision.
"""

import contextlib

import torch

from .copies import version

# The types of devices on which programs are run again.
DEVICES = "cpu", "cuda"


def state():
    """The state of autocast as plain data, or None where it is off."""
    on = [device for device in DEVICES if torch.is_autocast_enabled(device)]
    dtypes = {device: str(torch.get_autocast_dtype(device)).removeprefix("torch.") for device in on}
    return {"dtypes": dtypes, "cache": torch.is_autocast_cache_enabled()} if dtypes else None


def is_within():
    """Whether this is within a context of autocast, which may be one that switches it off."""
    depth = torch.autocast_increment_nesting()
    torch.autocast_decrement_nesting()
    return depth > 1


class Extents:
    """Tells which calls are within one outermost context, by a weight of its own: a new context casts it anew."""

    def __init__(self, device):
        self.device = device
        self.weight = self.casted = None
        self.versions = {}

    def begin_call(self, parameters):
        """Whether a call is in the context of the one before it, and the name of a parameter that was written to since
        the first call in it, of which the call has the old value, or None."""
        before, self.casted = self.casted, self._casted()
        if self.casted is None or self.casted is not before:
            self.versions = {id(p): version(p) for _, p in parameters}
            return False, None
        written = (name for name, p in parameters if self.versions.get(id(p)) != version(p))
        return True, next(written, None)

    def _casted(self):
        """The node of autograd that casts the weight, or None where nothing is kept."""
        if not torch.is_autocast_cache_enabled() or state() is None and not is_within():
            return None
        kind = self.device.type
        with torch.inference_mode(False), torch.enable_grad(), contextlib.ExitStack() as on:
            if self.weight is None:
                self.weight = torch.zeros(1, 1, device=self.device, requires_grad=True)
            if not torch.is_autocast_enabled(kind):
                on.enter_context(torch.autocast(kind, torch.get_autocast_dtype(kind)))
            return torch.mm(self.weight, self.weight).grad_fn.next_functions[0][0]


@contextlib.contextmanager
def without_cache():
    """Keeps no casted weights meanwhile."""
    before = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(before)


@contextlib.contextmanager
def uncached():
    """Yields a list, which is not empty at the end if a context of autocast was asked to keep no casted weights."""
    kind, found = torch.amp.autocast_mode.autocast, []
    usual = kind.__init__

    def init(self, device_type, dtype=None, enabled=True, cache_enabled=None):
        if cache_enabled is False:
            found.append(device_type)
        usual(self, device_type, dtype, enabled, cache_enabled)

    kind.__init__ = init
    try:
        yield found
    finally:
        kind.__init__ = usual


def parts(graph_module):
    """The nodes of a program that run a part of it in a state of autocast of its own."""
    target = torch.ops.higher_order.wrap_with_autocast
    graphs = (part.graph for part in graph_module.modules() if isinstance(part, torch.fx.GraphModule))
    return [node for graph in graphs for node in graph.nodes if node.target is target]


def set_cache(node):
    """Lets a part of a program keep casted weights where the model does: torch.export keeps none while it traces."""
    device, dtype, enabled, cache, *rest = node.args
    node.args = device, dtype, enabled, cache or torch.is_autocast_cache_enabled(), *rest

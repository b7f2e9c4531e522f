"""What a forward does to its backward that no program has: functions with one of their own, and hooks on tensors.

It knows autograd alone.
"""

import contextlib

import torch
from torch.autograd import Function

from .copies import version

register_hook = torch.Tensor.register_hook


@contextlib.contextmanager
def own_functions():
    """Yields a list, which has the names of the torch.autograd.Functions, without PyTorch's own, that are called meanwhile."""
    found, apply = [], Function.__dict__["apply"]

    def noted(kind, *args, **kwargs):
        if kind.__module__.partition(".")[0] != "torch":
            found.append(kind.__name__)
        return apply.__get__(None, kind)(*args, **kwargs)

    Function.apply = classmethod(noted)
    try:
        yield found
    finally:
        Function.apply = apply


class TensorHooks:
    """Sees whether a hook that a forward registers on a tensor changes the gradient.

    changed  is called where one does
    """

    def __init__(self, changed):
        self.changed = changed

    def begin(self):
        """Begins with the hooks of a call."""

        def noted(tensor, hook):
            return register_hook(tensor, self._noted(hook))

        torch.Tensor.register_hook = noted

    def end(self):
        """Ends with them."""
        torch.Tensor.register_hook = register_hook

    def _noted(self, hook):
        def called(gradient):
            before = version(gradient)
            result = hook(gradient)
            if result is not None and result is not gradient or version(gradient) != before:
                self.changed()
            return result

        return called

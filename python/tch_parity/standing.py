"""The gradients in `.grad` that a replay has as well, by the versions that PyTorch counts. It knows autograd, and no file."""

import torch

from .copies import Noted


class Standing:
    """The gradients of parameters as a recorded step left them, until something else changes them."""

    def __init__(self):
        self.known = {}

    def note(self, name, gradient):
        """Notes what backward left, or what an optimizer took."""
        self.known[name] = Noted(gradient)

    def forget(self, names):
        """Forgets what was noted of these."""
        for name in names:
            self.known.pop(name, None)

    def is_known(self, name, gradient):
        """Whether it is the one that was noted, and was not written to since."""
        return gradient is not None and name in self.known and self.known[name].is_still(gradient)


def holds_gradient(parameter):
    """Whether a parameter has a gradient that is not all zeros."""
    gradient = parameter.grad
    if gradient is None or gradient.layout not in (torch.strided, torch.sparse_coo):
        return gradient is not None
    return bool((gradient.detach()._values() if gradient.is_sparse else gradient).any())


def put_first(hooks, number):
    """Puts a hook before all others. PyTorch runs them in the order in which they came into the dict."""
    others = [(other, hook) for other, hook in hooks.items() if other != number]
    own = hooks[number]
    hooks.clear()
    hooks.update([(number, own), *others])

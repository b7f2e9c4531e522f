"""What a model's modules keep from one call to the next beside buffers. It knows modules alone."""

import weakref

import torch
from torch import nn
from torch.utils import _pytree as pytree

from .copies import version
from .settings import PLAIN

# The attributes that every module has.
OF_ALL = frozenset(vars(nn.Module()))


class Kept:
    """The tensors and plain values in the attributes of a model's modules, and in the lists and dicts there."""

    def __init__(self, model):
        self.values = {}
        for name, module in model.named_modules():
            for key, value in vars(module).items():
                if key not in OF_ALL:
                    self.values[f"{name}.{key}".removeprefix(".")] = [noted(leaf) for leaf in pytree.tree_leaves(value)]

    def changed(self, model):
        """The name of the first attribute that is another one now, or None."""
        now = Kept(model).values
        return next((name for name in now if self.values.get(name) != now[name]), None)


class Noted:
    """A tensor at a time, without a reference that keeps it."""

    def __init__(self, tensor):
        self.reference, self.version = weakref.ref(tensor), version(tensor)

    def __eq__(self, other):
        tensor = self.reference()
        return tensor is not None and isinstance(other, Noted) and other.reference() is tensor and other.version == self.version


def noted(value):
    """What is another one when a value changes."""
    if isinstance(value, torch.Tensor):
        return Noted(value)
    return repr(value) if type(value) in PLAIN else None

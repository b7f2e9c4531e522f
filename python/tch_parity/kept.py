"""What a model's modules keep beside parameters and buffers, which may decide what a call computes. It knows modules alone."""

import weakref

import torch
from torch import nn
from torch.utils import _pytree as pytree

from .copies import version
from .settings import OF_ALL, PLAIN


class Kept:
    """The tensors and plain values in the attributes of a model's modules, in lists, dicts and objects there as well.

    idle  the names of the attributes that were seen to decide nothing
    """

    def __init__(self, model):
        self.values, self.idle = values(model), set()

    def changed(self, model):
        """The names of the attributes that are others now."""
        now = values(model)
        return [name for name in now if name not in self.idle and self.values.get(name) != now[name]]


def values(model):
    """What each attribute of the modules holds, by the module's name and its own."""
    seen = {id(tensor) for tensor in (*model.parameters(), *model.buffers())}
    return {
        f"{name}.{key}".removeprefix("."): noted(value, seen)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if key not in OF_ALL
    }


def noted(value, seen):
    """What is other when a value is, but for what was seen. Objects are looked at once, and not what objects in them hold."""
    found = []
    for leaf in pytree.tree_leaves(value):
        if isinstance(leaf, torch.Tensor):
            found += [Noted(leaf)] if id(leaf) not in seen else []
        elif isinstance(leaf, PLAIN):
            found.append(repr(leaf))
        elif hasattr(leaf, "__dict__") and not isinstance(leaf, (nn.Module, type)) and id(leaf) not in seen:
            seen.add(id(leaf))
            found += [repr(own) for own in pytree.tree_leaves(vars(leaf)) if isinstance(own, PLAIN)]
    return found


class Noted:
    """A tensor at a time, without a reference that keeps it."""

    def __init__(self, tensor):
        self.reference, self.version = weakref.ref(tensor), version(tensor)

    def __eq__(self, other):
        tensor = self.reference()
        return tensor is not None and isinstance(other, Noted) and other.reference() is tensor and other.version == self.version

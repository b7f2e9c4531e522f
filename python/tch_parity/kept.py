"""What a model's modules keep beside parameters and buffers, which may decide what a call computes. It knows modules alone."""

import torch
from torch import nn
from torch.utils import _pytree as pytree

from .copies import Noted
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
        return [name for name in now if name not in self.idle and not same(self.values.get(name), now[name])]


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


def same(before, now):
    """Whether an attribute holds the same values as before, and tensors that nothing has written to."""
    return before is not None and len(before) == len(now) and all(map(same_value, before, now))


def same_value(before, now):
    if isinstance(before, Noted) and isinstance(now, Noted):
        tensor = now.tensor()
        return tensor is not None and before.is_still(tensor)
    return type(before) is type(now) and before == now

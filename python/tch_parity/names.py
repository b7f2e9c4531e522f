"""The names of what a case holds, and the parts of arguments and outputs. It knows no file and no model.

A name that the format gives cannot be one that a module has: a module named `output` is recorded as `.output`, and
characters that mean something in a name are escaped.
"""

import collections.abc
import dataclasses
import functools
import inspect
import re
import sys

import torch
from torch.utils import _pytree as pytree

# What the format itself calls the model's output, the loss, and the loss's target.
OUTPUT, LOSS, TARGET = "output", "L", "target"

# What the gradients of a step are multiplied by before the optimizer takes them.
FACTOR = "taken/[factor]"

# The section of what the operators of a program returned.
OPERATOR = "operator"

MAX_DEPTH = 32

# The greatest number that readers of JSON take.
GREATEST = sys.float_info.max


@functools.lru_cache(1 << 16)  # names come again in every step
def escaped(name):
    """A name in which `/`, `@`, `[`, `]` and `%` are percent-encoded."""
    return re.sub(r"[/@\[\]%]", lambda found: f"%{ord(found[0]):02X}", name)


def of_module(name):
    """The name of a module, a parameter or a buffer of the model; the model itself is named "output"."""
    if name == "":
        return OUTPUT
    return f".{name}" if name in (OUTPUT, LOSS) else escaped(name)


def is_given(name):
    """Whether a tensor of a case is one that a run starts from."""
    return re.match(r"(param|buffer|state|program)/|(step/\d+/)?(input/|rng(\[cuda\])?(@\d+)?$|taken/\[factor\]$)", name) is not None


def is_taken(name):
    """Whether a replay by the program takes a tensor from the case: gradients that are computed outside of the program."""
    return re.match(r"(step/\d+/)?(taken/|grad/output([@\[]|$))", name) is not None


def parts(name, value):
    """The parts of a value and their names: NAME[0] of a tuple or list, NAME[key] of a dict or an object's fields.

    A part is a tensor, or a value that is none: a number, a string, None, or an object without tensors.
    """
    yield from _parts(name, value, ())


def _parts(name, value, outer):
    inner = None
    if not isinstance(value, torch.Tensor) and len(outer) < MAX_DEPTH and id(value) not in outer:
        inner = _entries(value)
    if not inner:  # what is empty is a value as well
        yield name, value
        return
    for key, part in inner:
        yield from _parts(f"{name}[{key}]", part, (*outer, id(value)))


def _entries(value):
    """What a value consists of, with keys, or None if it is one part."""
    if isinstance(value, collections.abc.Mapping):
        return distinct((escaped(str(key)), part) for key, part in value.items())
    if isinstance(value, (tuple, list)):
        return list(enumerate(value))
    if isinstance(value, torch.nn.utils.rnn.PackedSequence):
        return list(zip(value._fields, value))
    if isinstance(value, torch.nn.Module) or isinstance(value, type) or callable(value):
        return None
    if dataclasses.is_dataclass(value):
        fields = [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    else:
        fields = list(getattr(value, "__dict__", {}).items())
    if any(_has_tensor(part) for _, part in fields):
        return fields
    registered = pytree.SUPPORTED_NODES.get(type(value))
    return None if registered is None else list(enumerate(registered.flatten_fn(value)[0]))


def _has_tensor(value, depth=0):
    if isinstance(value, torch.Tensor) or depth == 4:
        return isinstance(value, torch.Tensor)
    if isinstance(value, collections.abc.Mapping):
        return any(_has_tensor(part, depth + 1) for part in value.values())
    if isinstance(value, (tuple, list)):
        return any(_has_tensor(part, depth + 1) for part in value)
    return any(_has_tensor(part, depth + 1) for part in getattr(value, "__dict__", {}).values())


def arguments(module, args, kwargs):
    """The arguments of a call of forward by name; of **kwargs each by its own."""
    try:
        signature = inspect.signature(module.forward)
        named = dict(signature.bind(*args, **kwargs).arguments)
    except (TypeError, ValueError):  # forward itself says what is wrong
        return []
    pairs = []
    for name, value in named.items():
        of_any_name = signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        pairs.extend(value.items() if of_any_name else [(name, value)])
    return distinct(pairs)


def distinct(named):
    """Pairs of a name and a value, in which a name that was there before gets a dot in front."""
    seen, pairs = set(), []
    for name, value in named:
        while name in seen:
            name = f".{name}"
        seen.add(name)
        pairs.append((name, value))
    return pairs


def plain(value, depth=0):
    """A value as JSON has it, or None if it is no plain value. Floats that JSON does not have become strings."""
    if isinstance(value, float) and value - value != 0:
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, str):
        return value if value.isascii() or not re.search("[\ud800-\udfff]", value) else None
    if isinstance(value, (bool, int, float)):
        return value if abs(value) <= GREATEST else None
    if isinstance(value, (torch.dtype, torch.device, torch.layout, torch.memory_format)):
        return str(value)
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return plain(value.detach().item())
    if type(value).__module__ == "numpy" and getattr(value, "ndim", None) == 0:
        return plain(value.item(), depth)
    if isinstance(value, collections.abc.Mapping) and not value:
        return {}
    if isinstance(value, (list, tuple)) and depth < MAX_DEPTH:
        values = [plain(part, depth + 1) for part in value]
        return None if any(part is None for part in values) else values
    return None

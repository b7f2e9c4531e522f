"""What a recorder is given, checked before anything runs. It knows optimizers, and no case."""

import inspect
import os

import torch
from torch import nn

from .optimizers import Optimizer
from .trace import ensure_writable


def check_file(path, initial):
    """Raises an error unless the case can be written, and its checkpoint be looked for."""
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"path is {path!r}, and has to be the name of the file to write")
    ensure_writable(path)
    if initial is not None and not isinstance(initial, (str, os.PathLike)):
        raise TypeError(f"initial is {initial!r}, and has to be the name of a safetensors file")


def check_choices(on_error, keep, loss):
    """Raises an error unless each is one of those that there are."""
    if on_error not in ("discard", "keep"):
        raise ValueError(f'on_error is {on_error!r}, and has to be "discard" or "keep"')
    if keep not in ("values", "digests"):
        raise ValueError(f'keep is {keep!r}, and has to be "values" or "digests"')
    if loss is not None and not callable(loss):
        raise TypeError(f"loss is {loss!r}, and has to be a function: loss(output, target)")


def check_shapes(dynamic_shapes, model):
    """Raises an error unless torch.export can be asked for these sizes of the model's arguments."""
    parameters = inspect.signature(model.forward).parameters
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    unknown = [name for name in dynamic_shapes if name not in parameters] if isinstance(dynamic_shapes, dict) else []
    if unknown and not takes_any:
        raise ValueError(f"dynamic_shapes has {unknown[0]!r}, and forward takes {', '.join(parameters)}")
    if not isinstance(dynamic_shapes, (dict, tuple, list, type(None))):
        raise TypeError(f"dynamic_shapes is {dynamic_shapes!r}, and has to be a dict by the argument, as torch.export.export takes it")


def check_model(model):
    """Raises an error unless the model takes hooks; returns the device on which it is."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}, and has to be a torch.nn.Module: nn.ModuleList makes one of several")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError("a ScriptModule takes no hooks: record the module that it was made of")
    tensors = [*model.named_parameters(), *model.named_buffers()]
    uninitialized = [name for name, t in tensors if isinstance(t, nn.parameter.UninitializedTensorMixin)]
    if uninitialized:
        raise ValueError(f"{uninitialized[0]} has no shape yet: run the model once before it is recorded")
    devices = {tensor.device for _, tensor in tensors}
    if len(devices) > 1:
        raise ValueError(f"the model is on several devices: {sorted(map(str, devices))}")
    return next(iter(devices), torch.device("cpu"))


def optimizers(given):
    """The optimizers that are given: none, one, or a dict of several by name."""
    named = given if isinstance(given, dict) else {} if given is None else {None: given}
    if isinstance(given, dict) and not all(isinstance(name, str) for name in named):
        raise TypeError("the names of the optimizers have to be strings")
    return [Optimizer(name, one) for name, one in named.items()]


def check_loss(loss, name):
    """Raises an error unless a loss and its name can be recorded."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"the name of a loss is {name!r}, and has to be a string, as in rec.loss(loss, 'second')")
    if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
        what = f"one of shape {list(loss.shape)}" if isinstance(loss, torch.Tensor) else f"a {type(loss).__name__}"
        raise TypeError(f"the loss is no tensor of one element, but {what}: give what backward() begins at, such as its mean()")


def check_name(name):
    """Raises an error unless an input can have this name."""
    if not isinstance(name, str):
        raise TypeError(f"the name of an input is {name!r}, and has to be a string, as in rec.input('target', target)")

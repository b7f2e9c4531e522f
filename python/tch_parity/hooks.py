"""Hooks of modules: ours, which stay with the run and are not copied, and those of others. It knows no recorder."""

import contextlib

import torch
from torch.nn.modules import module as of_all

# What installs hooks as a part of its modules: norms of weights and pruning, and outputs that a model collects.
LIBRARIES = "torch", "transformers"


class Hook:
    """A hook that does nothing when the module is compiled, traced, copied or pickled."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *args, **kwargs):
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return None
        return self.function(*args, **kwargs)

    def __reduce__(self):
        return getattr, (NOTHING, "__exit__")


# Takes any arguments and does nothing, as a copy of a module has it in the place of a hook: that copy is loaded without
# this package.
NOTHING = contextlib.nullcontext()


def within_compiled(model):
    """The names of the modules whose calls a compiled one takes over, and which no hook sees."""
    own, called = [], []
    for name, module in model.named_modules():
        if type(module).__name__ == "OptimizedModule":  # what torch.compile() returns is called itself
            called.append(name)
        elif module._compiled_call_impl is not None and name:
            own.append(name)
    inner = [f"{name}.".removeprefix(".") for name in [*own, *called]]
    return [n for n, _ in model.named_modules() if n in own or n not in called and any(n.startswith(p) for p in inner)]


def unknown_effect(model):
    """Why a program of the model would lack what hooks of others do, or None if there are none."""
    for name, module in model.named_modules():
        called = f"module {name}" if name else "the model"
        if module._backward_hooks or module._backward_pre_hooks:
            return f"{called} has a backward hook, which can change gradients"
        if not all(is_known(hook) for hooks in (module._forward_pre_hooks, module._forward_hooks) for hook in hooks.values()):
            return f"{called} has a forward hook, which torch.export would run once more"
    if of_all._global_backward_hooks or of_all._global_backward_pre_hooks:
        return "all modules have a backward hook, which can change gradients"
    hooks = [*of_all._global_forward_pre_hooks.values(), *of_all._global_forward_hooks.values()]
    if not all(is_known(hook) for hook in hooks):
        return "all modules have a forward hook, which torch.export would run once more"
    return None


def is_known(hook):
    """Whether a forward hook is ours, or one that a library has as a part of its modules."""
    if isinstance(hook, Hook) or isinstance(getattr(hook, "__self__", None), contextlib.nullcontext):
        return True
    defined = getattr(getattr(hook, "func", hook), "__module__", None) or ""
    return defined.partition(".")[0] in LIBRARIES

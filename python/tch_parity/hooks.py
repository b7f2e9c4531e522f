"""Hooks of modules that stay with the run: a copy of the module does not have them. It knows no recorder."""

import torch


class Hook:
    """A hook that does nothing when the module is compiled, traced, copied or pickled."""

    def __init__(self, function):
        self.function = function

    def __call__(self, *args, **kwargs):
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return None
        return self.function(*args, **kwargs)

    def __reduce__(self):
        return no_hook, ()


def no_hook():
    """What a copy of a module has in the place of a hook."""
    return nothing


def nothing(*_, **__):
    return None

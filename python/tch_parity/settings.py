"""The attributes of modules that a loop sets between calls, such as the probability of a dropout: they decide what a
program computes. It knows modules alone."""

import numbers

from torch import nn

PLAIN = bool, int, float, str, type(None), numbers.Number
# The attributes that every module has.
OF_ALL = frozenset(vars(nn.Module()))


class Settings:
    """The numbers, strings and None among the attributes of a model's modules.

    What a forward changes by itself, such as a counter, is no setting of the loop's.
    """

    def __init__(self, model):
        self.model = model
        self.first = self.now = self.after = None  # at the first call, at the latest one, and at the end of that
        self.moved, self.idle = set(), set()

    def begin_call(self):
        """The settings of the loop's that are not those of the first call, with their values, as text."""
        self.now = attributes(self.model)
        self.first = self.first or self.now
        self.moved |= unlike(self.now, self.after or self.now)
        return repr([(key, self.now.get(key)) for key in sorted(self.moved & unlike(self.now, self.first) - self.idle)])

    def end_call(self):
        """Notes what the forward has left."""
        self.after = attributes(self.model)

    def decide_nothing(self, others):
        """Notes that what now is not as in these attributes makes no other program."""
        self.idle |= self.moved & unlike(self.now, others)


def attributes(model):
    """The plain attributes, as text, by the module's name and their own."""
    return {
        (name, key): repr(value)
        for name, module in model.named_modules()
        for key, value in vars(module).items()
        if isinstance(value, PLAIN) and key not in OF_ALL
    }


def unlike(some, others):
    """The keys of attributes that are not the same."""
    return {key for key in some.keys() | others.keys() if some.get(key) != others.get(key)}

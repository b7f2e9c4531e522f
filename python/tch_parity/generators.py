"""The states of the generators of random numbers, as a step finds them. It knows a trace, and no module."""

import torch


class Generators:
    """The states of the generators that a model can draw from at its first call in a step."""

    def __init__(self, device, trace):
        self.device, self.trace = device, trace

    def begin(self, prefix):
        """Begins a step, whose names begin with a prefix."""
        self.prefix, self.first, self.called = prefix, self._states(), False
        for name, state in self.first.items():
            self.trace.keep(prefix + name, state)

    def begin_call(self):
        """Notes the states at the first call: the loop may have drawn its batch in the step, and that is an input."""
        if not self.called:
            self.called, self.first = True, self._states()
            for name, state in self.first.items():
                self.trace.replace(self.prefix + name, state)

    def begin_later_call(self, number):
        """Notes the states at a later call of the model, if something was drawn before it."""
        for name, state in self._states().items():
            if not torch.equal(state, self.first[name]):
                self.trace.keep(f"{self.prefix}{name}@{number}", state)

    def end(self):
        """Forgets what nothing was drawn from."""
        for name, state in self._states().items():
            if torch.equal(state, self.first[name]):
                self.trace.forget(self.prefix + name)

    def _states(self):
        cpu = {"rng": torch.get_rng_state()}
        return {**cpu, "rng[cuda]": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else cpu

"""Whether parameters and buffers are as they were left, by the versions that PyTorch counts. It knows no names of a file.

What is written through `.data` is not counted.
"""

from .copies import version


class Writes:
    """The versions of tensors when they were last noted."""

    def __init__(self):
        self.noted = {}

    def begin(self):
        """What rollback() takes."""
        return dict(self.noted)

    def rollback(self, begun):
        """Forgets a step: what it wrote is none that a replay writes."""
        self.noted = begun

    def note(self, tensors):
        self.noted.update({id(tensor): (tensor, version(tensor)) for tensor in tensors})

    def changed(self, named):
        """The name of the first tensor that was written to since, or that is another one; None if there is none."""
        for name, tensor in named:
            noted, then = self.noted.get(id(tensor), (None, None))
            if noted is not tensor or then != version(tensor):
                return name
        return None

    def replaced(self, named):
        """The name of the first tensor that was never noted, as one that a forward puts in the place of another."""
        return next((name for name, tensor in named if self.noted.get(id(tensor), (None,))[0] is not tensor), None)

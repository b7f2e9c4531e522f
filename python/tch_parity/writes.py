"""Whether parameters and buffers are as they were left: the versions that PyTorch counts, and sums of their bits.

It knows no names of a file.
"""

import torch

from .copies import Noted


class Writes:
    """The versions of tensors when they were last noted, and sums of their bits, which show writes through `.data` too."""

    def __init__(self):
        self.noted = {}  # by the tensor's id

    def begin(self):
        """What rollback() takes."""
        return dict(self.noted)

    def rollback(self, begun):
        """Forgets a step: what it wrote is none that a replay writes."""
        self.noted = begun

    def note(self, tensors, by_bits):
        """Notes what tensors are now. The sums of their bits are those that are known, unless they are taken `by_bits`."""
        tensors = list(tensors)
        sums = sums_of_bits(tensors) if by_bits else [self._known(tensor)[1] for tensor in tensors]
        self.noted = {key: known for key, known in self.noted.items() if known[0].tensor() is not None}
        self.noted.update({id(tensor): (Noted(tensor), total) for tensor, total in zip(tensors, sums)})

    def changed(self, named, by_bits):
        """In words, the first tensor that was written to since, or that is another one; None if there is none."""
        named = list(named)
        for name, tensor in named:
            noted, _ = self._known(tensor)
            if noted is None:
                return f"{name} was replaced by another tensor"
            if not noted.is_still(tensor):
                return f"{name} was written to"
        for (name, tensor), total in zip(named, sums_of_bits([tensor for _, tensor in named]) if by_bits else ()):
            if self._known(tensor)[1] not in (None, total):
                return f"{name} was written to"
        return None

    def replaced(self, named):
        """The name of the first tensor that was never noted, as one that a forward puts in the place of another."""
        return next((name for name, tensor in named if self._known(tensor)[0] is None), None)

    def _known(self, tensor):
        """What was noted of a tensor, and the sum of its bits then."""
        noted, total = self.noted.get(id(tensor), (None, None))
        return (noted, total) if noted is not None and noted.tensor() is tensor else (None, None)


# The integers that add up to a tensor of so many bytes, the widest first.
WIDTHS = (8, torch.int64), (4, torch.int32), (2, torch.int16), (1, torch.uint8)


def sums_of_bits(tensors):
    """A number for each tensor, which is another one if its bits are others, but for one chance in very many."""
    sums = [sum_of_bits(tensor.detach()) for tensor in tensors]
    return torch.stack(sums).tolist() if sums else []


def sum_of_bits(tensor):
    if tensor.layout != torch.strided or tensor.device.type == "meta" or tensor.numel() == 0:
        return torch.zeros((), dtype=torch.int64, device=tensor.device)
    flat = tensor.contiguous().view(-1)
    dtype = next(dtype for width, dtype in WIDTHS if flat.nbytes % width == 0)
    try:
        return flat.view(dtype).sum()
    except RuntimeError:  # it does not begin where such an integer can
        return flat.clone().view(dtype).sum()

"""Records what a PyTorch training run computes, so that a port of it can be compared tensor by tensor.

    from tch_parity import Recorder, compute_with

    compute_with("portable")  # before torch computes anything: the same bits on every x86-64 machine
    model, criterion, optimizer = ...
    with Recorder("case.safetensors", model, optimizer=optimizer) as rec:
        for x, y in batches:
            with rec.watch():  # one step of your own loop, whatever is in it
                optimizer.zero_grad()
                loss = rec.loss(criterion(model(x), y))
                loss.backward()
                optimizer.step()

The file is a safetensors file; docs/format.md of the project describes it.
"""

from .numerics import compute_with, environment
from .recorder import Recorder
from .trace import Trace

__all__ = ["Recorder", "Trace", "compute_with", "environment"]

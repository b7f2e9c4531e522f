"""The backward pass that runs now, and autograd's graph that it goes through. It knows autograd alone."""

import sys

import torch

# What the metadata of the node of a model's output has: the step in which the model returned it.
RETURNED = "tch_parity.returned"


def running_pass():
    """What the backward pass that runs on this thread begins at, and whether it was asked for some gradients alone.

    Of a pass that another thread has begun nothing is known.
    """
    frame = sys._getframe(1)
    while frame is not None:
        code, given = frame.f_code, frame.f_locals
        if code.co_filename == torch.autograd.__file__ and code.co_name in ("backward", "grad"):
            begins_at = given.get("tensors" if code.co_name == "backward" else "outputs", ())
            begins_at = begins_at if isinstance(begins_at, (tuple, list)) else (begins_at,)
            return begins_at, code.co_name == "grad" or bool(given.get("inputs"))
        frame = frame.f_back
    return (), False


def mark_returned(tensor, step):
    """Marks the node of a model's output, without a reference that keeps the graph."""
    tensor.grad_fn.metadata[RETURNED] = step


def reached_beside(begins_at, step, leaves):
    """The name of a leaf that a pass reaches by another way than what the model returned in this step, or None.

    leaves  the names by the leaf's id
    """
    nodes = [tensor.grad_fn for tensor in begins_at if isinstance(tensor, torch.Tensor)]
    seen = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen or node.metadata.get(RETURNED) == step:
            continue
        seen.add(node)
        name = leaves.get(id(getattr(node, "variable", None)))
        if name is not None:
            return name
        nodes += [following for following, _ in node.next_functions]
    return None

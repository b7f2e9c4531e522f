"""Calls of modules within activation checkpointing, whose recomputation is no call of its own."""

import inspect
import sys

import torch
import torch.utils.checkpoint

NO_NODE = object()  # stands for that of a checkpoint which recomputes for autograd's nodes, and has none of its own


def checkpoints():
    """The checkpoints in which a module is called: the nodes of those that compute now, the innermost first, and the
    node of the one that recomputes, or None where this is the forward pass.

    torch.utils.checkpoint is a torch.autograd.Function whose backward calls the module again (use_reentrant=True),
    or calls it again while autograd unpacks a saved tensor. Either has a frame on the stack that says so.
    """
    nodes = []
    if torch._C._current_graph_task_id() == -1 and torch.is_grad_enabled():
        return nodes, None
    frame = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "unpack_hook" and code.co_filename == torch.utils.checkpoint.__file__:
            return nodes, NO_NODE
        if code.co_name in ("forward", "backward") and code.co_argcount + bool(code.co_flags & inspect.CO_VARARGS):
            node = frame.f_locals.get(code.co_varnames[0])
            if isinstance(node, torch.autograd.function.BackwardCFunction):
                if code.co_name == "backward":
                    return nodes, node
                nodes.append(node)
        frame = frame.f_back
    return nodes, None if torch._C._current_graph_task_id() == -1 else NO_NODE

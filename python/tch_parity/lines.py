"""The lines of Python that a program names. It knows the frames of a call and the text of a program, and no module."""

import contextlib
import itertools
import os
import traceback

import torch

# The folder of PyTorch's own code, and the file in it where a module calls its forward.
TORCH = os.path.dirname(torch.__file__) + os.sep
CALLS_FORWARD = os.path.join("nn", "modules", "module.py")
# PyTorch's functions that compute in Python, such as attention.
FUNCTIONAL = TORCH + os.path.join("nn", "functional.py")
# How such a function begins again, for a tensor of another class.
BEGINS_AGAIN = "return handle_torch_function("
# A function of PyTorch with no more operators, such as F.softmax, says nothing that its operators do not.
SHORT = 3


@contextlib.contextmanager
def lines_of_functions(exporting):
    """Lets the program name the lines of functions that a forward calls as well, and not of forwards alone.

    exporting  the file of Python that exports it
    """
    tracer = torch.fx.proxy.TracerBase
    usual = getattr(tracer, "_filter_traceback_frames", None)
    if usual is not None:
        tracer._filter_traceback_frames = lambda self, frames: traceback.StackSummary.from_list(
            of_model(frames, {id(frame) for frame in usual(self, frames)}, exporting)
        )
    try:
        yield
    finally:
        if usual is not None:
            tracer._filter_traceback_frames = usual


def of_model(frames, forwards, exporting):
    """The frames of forwards, by their ids, and of the functions that each calls before it calls another module."""
    # What called the model is no part of it, though it can be named forward as well.
    called_by = [at for at, frame in enumerate(frames) if frame.filename == exporting]
    within = False
    for frame in frames[called_by[-1] + 1 if called_by else 0 :]:
        if id(frame) in forwards:
            within = True
            yield frame
        elif frame.filename == FUNCTIONAL:
            if within and not (frame.line or "").startswith(BEGINS_AGAIN):
                yield frame
        elif frame.filename.startswith(TORCH):
            within = within and not frame.filename.endswith(CALLS_FORWARD)
        elif within:
            yield frame


def drop_short_functions(exported):
    """Drops the lines of the functions of torch.nn.functional that compute little."""
    for part in exported.graph_module.modules():
        if isinstance(part, torch.fx.GraphModule):
            nodes = [node for node in part.graph.nodes if node.meta.get("stack_trace")]
            stacks = [frames(node.meta["stack_trace"]) for node in nodes]
            computes = [isinstance(node.target, torch._ops.OpOverload) for node in nodes]
            for node, stack in zip(nodes, without_short(stacks, computes)):
                node.meta["stack_trace"] = "".join(stack).rstrip("\n")


def without_short(stacks, computes, depth=0):
    """The stacks of nodes without the frames from a depth on of functions that compute little.

    stacks    a list of frames for each node
    computes  whether each node is an operator
    """
    kept = []
    for (_, function), group in itertools.groupby(zip(stacks, computes), lambda node: (node[0][:depth], function_at(node[0], depth))):
        of_call, operators = zip(*group)
        if function and sum(operators) <= SHORT:
            kept += [stack[:depth] for stack in of_call]
        elif any(len(stack) > depth for stack in of_call):
            kept += without_short(of_call, operators, depth + 1)
        else:
            kept += of_call
    return kept


def function_at(stack, depth):
    """The name of the function of torch.nn.functional that a frame is of, or None."""
    frame = stack[depth].lstrip() if len(stack) > depth else ""
    return frame.splitlines()[0].rpartition(", in ")[2] if frame.startswith(f'File "{FUNCTIONAL}"') else None


def frames(stack):
    """The frames of a stack as text, each with its line."""
    lines = stack.splitlines(keepends=True)
    starts = [at for at, line in enumerate(lines) if line.lstrip().startswith('File "')]
    return ["".join(lines[start:end]) for start, end in zip(starts, [*starts[1:], len(lines)])]

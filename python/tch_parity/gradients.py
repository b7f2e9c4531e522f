"""The gradients of one step at a time, as backward leaves them and as optimizers take them. It knows autograd, and no file.

A gradient is a list of what host_parts() returns.
"""

import contextlib
import math
import weakref

import torch

from .copies import host_parts, host_view_parts, same


class Gradients:
    """The gradients of the step that is open.

    step        the number of the step, or 0 if none is open
    arrived     whether backward computed one of them
    kept        the names of the parameters whose gradients of earlier steps backward added to
    of_outputs  the calls of modules, in the order of execution; each has the gradients of what it returned
    taken       those of parameters that are others in the optimizer's step than backward left them, by name
    """

    def __init__(self):
        self.step = 0
        self.watched = weakref.WeakValueDictionary()  # parameters by id
        self.of_parameters, self.of_inputs = contextlib.ExitStack(), contextlib.ExitStack()  # hooks

    def begin(self, step, parameters):
        """Begins a step, in which these parameters, by name, are watched."""
        self.step, self.arrived, self.kept = step, False, []
        self.of_outputs, self.leaves, self.taken, self.as_left = [], {}, {}, {}
        self.watch_parameters(parameters)

    def watch_parameters(self, parameters):
        """Watches those that require a gradient now."""
        self.parameters = parameters
        for name, p in parameters:
            if self.watched.get(id(p)) is not p and self._watch(name, p, self.of_parameters):
                self.watched[id(p)] = p

    def end(self):
        """Ends the step, whose gradients stay until the next one begins."""
        self.step = 0
        self.of_inputs.close()

    def close(self):
        """Removes all hooks."""
        self.of_inputs.close()
        self.of_parameters.close()

    def watch_input(self, name, leaf):
        """Watches an input of this step."""
        self._watch(name, leaf, self.of_inputs)

    def _watch(self, name, leaf, hooks):
        if not leaf.requires_grad or not leaf.is_leaf:
            return False
        reference = weakref.ref(leaf)

        def accumulated(leaf):
            if self.step and reference() is leaf:
                self.arrived = True
                self.leaves[name] = host_parts(name, leaf.grad)

        hooks.callback(leaf.register_post_accumulate_grad_hook(accumulated).remove)
        return True

    def watch_output(self, call, name, tensor):
        """Watches what a call of a module returned.

        A hook gets the gradient of the value that the tensor has now, also if it is overwritten later.
        https://github.com/pytorch/pytorch/blob/v2.13.0/docs/source/notes/autograd.rst#behavior-of-tensor-hooks
        """
        step = self.step
        call.gradients[name] = None

        def arrived(gradient):
            if self.step == step:
                if not self.arrived:  # no parameter has its gradient of this step yet
                    self.kept = [name for name, p in self.parameters if holds_gradient(p)]
                self.arrived = True
                call.passes.append(torch._C._current_graph_task_id())
                before = call.gradients[name]
                if gradient.layout != torch.strided:  # its indices cannot be added
                    before, gradient = None, gradient + call.sparse.get(name, 0)
                    call.sparse[name] = gradient
                # As retain_grad does, which keeps no strides.
                now = [(part, copy, None) for part, copy, _ in host_parts(name, gradient)]
                if before is not None:  # of an earlier backward pass
                    now = [(part, old + new, None) for (part, old, _), (_, new, _) in zip(before, now)]
                call.gradients[name] = now

        tensor.register_hook(arrived)

    def passes(self, module):
        """The numbers of the calls of a module that each backward pass of the step reached, in its order.

        A call that several passes reached is listed with the last one, when its gradient was whole.
        """
        calls = [call for call in self.of_outputs if call.module == module]
        last = {number: call.passes[-1] for number, call in enumerate(calls, 1) if call.passes}
        return [[number for number, own in last.items() if own == one] for one in sorted(set(last.values()))]

    def of_leaf(self, name):
        """The gradient of a parameter or an input, as backward left it."""
        return self.leaves.get(name)

    def factor(self):
        """The number that all of the taken gradients are those that backward left multiplied by, if there is one."""
        pairs = []
        for name, after in self.taken.items():
            before = self.of_leaf(name) or []
            if len(before) != 1 or len(after) != 1 or before[0][1].numel() == 0 or not after[0][1].is_floating_point():
                return None
            pairs.append((before[0][1], after[0][1]))
        return common_factor(pairs)

    def take(self, name, gradient):
        """Keeps the gradient of a parameter that an optimizer takes, if it is another one than backward left."""
        left = self.leaves.get(name)
        # The bits are compared: what is written through `.data` changes no version.
        if left is not None and same(left, host_view_parts(name, gradient)):
            self.as_left[name] = left
            self.taken.pop(name, None)
        else:
            self.taken[name] = host_parts(name, gradient)

    def finish_taken(self):
        """Adds those that an optimizer took before backward left others, as where two losses have a backward pass each."""
        for name, taken in self.as_left.items():
            if name not in self.taken and self.leaves[name] is not taken:
                self.taken[name] = taken


def common_factor(pairs):
    """The one number that these gradients were multiplied by, as clipping by the norm does, or None if there is none.

    pairs  each gradient before and after, of one dtype
    """
    largest, where = max(((float(before.abs().max()), at) for at, (before, _) in enumerate(pairs)), default=(0, 0))
    if not 0 < largest < math.inf or len({tensor.dtype for pair in pairs for tensor in pair}) > 1:
        return None
    before, after = (tensor.reshape(-1) for tensor in pairs[where])
    element = before.abs().argmax()
    quotient = (after[element].double() / before[element].double()).to(before.dtype)
    # The product was rounded, so that the quotient is the factor or a number next to it.
    candidates = [quotient]
    for end in (math.inf, -math.inf):
        near = quotient
        for _ in range(2):
            near = torch.nextafter(near, torch.full_like(near, end))
            candidates.append(near)
    fits = (c for c in candidates if all(torch.equal(before * c, after) for before, after in [pairs[where], *pairs]))
    return next(fits, None)


def holds_gradient(parameter):
    """Whether a parameter has a gradient that is not all zeros."""
    return parameter.grad is not None and parameter.grad.layout == torch.strided and bool(parameter.grad.any())


class Call:
    """A module's call: the names of its recorded outputs, the gradients of those that require one, and the numbers of
    the backward passes that they come from.
    """

    def __init__(self, module, name):
        self.module, self.name, self.recorded, self.gradients, self.passes = module, name, [], {}, []
        self.sparse = {}  # the sparse gradients so far

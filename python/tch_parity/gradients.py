"""The gradients of one step at a time, as backward leaves them and as optimizers take them. It knows autograd, and no file.

A gradient is a list of what host_parts() returns.
"""

import contextlib
import functools
import math
import weakref

import torch

from . import autocast
from .beyond import register_hook
from .copies import CannotRecord, bits, host_parts, host_view_parts, same, version
from .graph import mark_returned, reached_beside, running_pass
from .names import OUTPUT
from .standing import Standing, holds_gradient, put_first


class Gradients:
    """The gradients of the step that is open.

    step        the number of the step, or 0 if none is open
    arrived     whether backward computed one of them
    kept        the names of the parameters whose gradients of earlier steps backward added to, or left as they were
    of_outputs  the calls of modules, in the order of execution; each has the gradients of what it returned
    taken       those of parameters that are others in the optimizer's step than backward left them, by name
    failed      why a gradient cannot be recorded, by name
    trouble     why no program replays them, or None
    changed_by_hook  whether a hook of a forward's has changed one
    """

    def __init__(self):
        self.step = 0
        self.watched = weakref.WeakValueDictionary()  # parameters by id
        self.of_parameters, self.of_inputs = contextlib.ExitStack(), contextlib.ExitStack()  # hooks
        self.standing = Standing()

    def begin(self, step, parameters):
        """Begins a step, in which these parameters, by name, are watched."""
        self.step, self.arrived, self.kept, self.trouble, self.changed_by_hook = step, False, [], None, False
        self.of_outputs, self.leaves, self.taken, self.as_left, self.failed = [], {}, {}, {}, {}
        self.given, self.returned = set(), set()  # the ids of inputs that require a gradient, and of the model's outputs
        self.states = {}  # of autocast, by the backward pass
        self.latest, self.kind = None, (None, False)  # the backward pass, and whether it is one of some gradients alone
        self.watch_parameters(parameters)

    def watch_parameters(self, parameters):
        """Watches those that require a gradient now."""
        self.parameters = parameters
        for name, p in parameters:
            if self.watched.get(id(p)) is not p and self._watch(name, p, self.of_parameters):
                self.watched[id(p)] = p

    def finish(self):
        """Notes the gradients that optimizers took, when no other can follow in the step."""
        for name, taken in self.as_left.items():
            if name not in self.taken and self.leaves[name] is not taken:  # another backward pass followed
                self.taken[name] = taken
        for name in self.taken:
            if name not in self.leaves and name not in self.kept:
                self._fails(f"the optimizer takes a gradient of {name} in step {self.step} that backward did not leave")
        if self.changed_by_hook:  # if it is known of which one, that was said
            self._fails(f"a hook changes the gradient of a tensor within the model in step {self.step}")

    def rollback(self):
        """Forgets a step: what it left in `.grad` is none that a replay has."""
        self.standing.forget({*self.leaves, *self.taken, *self.as_left})

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
        if id(leaf) in self.given:
            self._fails(f"{name} and another input of step {self.step} are one tensor, and have one gradient")
        elif holds_gradient(leaf):
            self._fails(f"{name} has a gradient before step {self.step} computes it")
        self.given.add(id(leaf))
        self._watch(name, leaf, self.of_inputs)

    def _watch(self, name, leaf, hooks):
        if not leaf.requires_grad or not leaf.is_leaf:
            return False
        reference = weakref.ref(leaf)

        def accumulated(leaf):
            if self.step and reference() is leaf:
                self.arrived = True
                self.leaves[name] = self._recorded(name, host_parts, leaf.grad)
                self.standing.note(name, leaf.grad)

        handle = leaf.register_post_accumulate_grad_hook(self._safe(name, accumulated))
        put_first(leaf._post_accumulate_grad_hooks, handle.id)  # another one may change the gradient, or take it away
        hooks.callback(handle.remove)
        return True

    def watch_output(self, call, name, tensor):
        """Watches what a call of a module returned.

        A hook of the node that computed it gets the gradient of the value that the tensor has now, also if it is
        overwritten later, and gets it after the tensor's own hooks, as retain_grad() does.
        https://github.com/pytorch/pytorch/blob/v2.13.0/docs/source/notes/autograd.rst#behavior-of-tensor-hooks
        """
        call.gradients[name] = None
        if call.module == OUTPUT:
            self.returned.add(id(tensor))
        if tensor.grad_fn is None:
            register_hook(tensor, self._safe(name, functools.partial(self._arrived, self.step, call, name)))
            return
        if call.module == OUTPUT:
            mark_returned(tensor, self.step)
        step, own, at, first = self.step, id(tensor), tensor.output_nr, []

        def begins(gradient):
            if self._is_of_some():  # autograd.grad() may ask for this one, and then the node does not run
                self._arrived(step, call, name, gradient)
            elif gradient is not None:  # None is that of a result of several which the loss does not depend on
                first[:] = gradient, version(gradient)

        def arrived(gradients):
            gradient = gradients[at]
            if self._is_of_some():
                return
            if self.step == step and gradient is not None and own not in self.returned:
                if first and (first[0] is not gradient or first[1] != version(gradient)):
                    self._fails(f"a hook changes the gradient of what {call.name} returns in step {step}")
            first.clear()
            self._arrived(step, call, name, gradient)

        register_hook(tensor, self._safe(name, begins))
        tensor.grad_fn.register_prehook(self._safe(name, arrived))

    def _arrived(self, step, call, name, gradient):
        if self.step != step or gradient is None:
            return
        if not self.arrived:  # no parameter has its gradient of this step yet
            self._keep()
        self.arrived = True
        now = torch._C._current_graph_task_id()
        call.passes.append(now)
        if call.module == OUTPUT:
            self._begin_pass(now)
        call.gradients[name] = self._recorded(name, call.added, gradient)

    def _safe(self, name, hook):
        """A hook whose errors do not end the run's backward, but are the reason why a gradient is left out."""
        def safe(given):
            try:
                hook(given)
            except Exception as error:
                self.failed[name] = f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
                self._fails(f"a gradient of {name} cannot be recorded in step {self.step}")

        return safe

    def _recorded(self, name, parts, *given):
        """What parts() returns of a gradient, or None if it cannot be recorded: an error in a hook would end the run."""
        try:
            return parts(name.removeprefix("taken/"), *given)
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            self.failed[name] = lines[0].split(": ", 1)[-1] if isinstance(error, CannotRecord) else lines[0]
            self._fails(f"a gradient of {name} cannot be recorded in step {self.step}")
            return None

    def _keep(self):
        """Notes the gradients of earlier steps that are there still."""
        self.kept = [name for name, p in self.parameters if holds_gradient(p)]
        gradients = dict(self.parameters)
        for name in self.kept:
            if not self.standing.is_known(name, gradients[name].grad):
                self._fails(f"{name} has a gradient in step {self.step} that no recorded step left as it is")

    def _begin_pass(self, now):
        """Checks what the gradients are at the beginning of a backward pass that goes through the model's output."""
        if now == self.latest:
            return
        self.states[now] = autocast.state()
        if self._is_of_some():
            self._fails(f"backward is asked for some gradients alone in step {self.step}")
        leaves = {id(p): name for name, p in self.parameters if id(p) not in self.returned}
        beside = reached_beside(running_pass()[0], self.step, leaves)
        if beside is not None:
            self._fails(f"the loss of step {self.step} depends on {beside} by another path than the outputs of the model")
        if self.latest is not None:
            for name, p in self.parameters:
                if (name in self.leaves or name in self.kept) and not self.standing.is_known(name, p.grad):
                    self._fails(f"the gradient of {name} was changed between two backward passes of step {self.step}")
        self.latest = now

    def _is_of_some(self):
        """Whether the backward pass that runs was asked for some gradients alone."""
        now = torch._C._current_graph_task_id()
        if self.kind[0] != now:
            self.kind = now, running_pass()[1]
        return self.kind[1]

    def hook_changes(self):
        """Notes that a hook on a tensor within the model has changed a gradient."""
        self.changed_by_hook = True

    def _fails(self, why):
        self.trouble = self.trouble or why

    def passes(self, module):
        """The numbers of the calls of a module that each backward pass of the step reached, in its order.

        A call that several passes reached is listed with the last one, when its gradient was whole.
        """
        calls = [call for call in self.of_outputs if call.module == module]
        last = {number: call.passes[-1] for number, call in enumerate(calls, 1) if call.passes}
        return [[number for number, own in last.items() if own == one] for one in sorted(set(last.values()))]

    def autocasts(self, module):
        """The states of autocast in these backward passes, where it is on."""
        last = {call.passes[-1] for call in self.of_outputs if call.module == module and call.passes}
        return [self.states[one] for one in sorted(last)]

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
        if gradient is None:
            if name in self.leaves or name in self.kept:
                self._fails(f"the optimizer has no gradient of {name} in step {self.step}, though backward left one")
            return
        # The bits are compared: what is written through `.data` changes no version.
        if left is not None and same(left, self._recorded(f"taken/{name}", host_view_parts, gradient) or []):
            self.as_left[name] = left
            self.taken.pop(name, None)
        else:
            taken = self._recorded(f"taken/{name}", host_parts, gradient)
            if taken is not None:
                self.taken[name] = taken
        self.standing.note(name, gradient)


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
    every = [pairs[where], *pairs]
    return next((c for c in candidates if all(torch.equal(bits(before * c), bits(after)) for before, after in every)), None)


class Call:
    """A module's call: the names of its recorded outputs, the gradients of those that require one, and the numbers of
    the backward passes that they come from.
    """

    def __init__(self, module, name):
        self.module, self.name, self.recorded, self.gradients, self.passes = module, name, [], {}, []
        self.sparse = {}  # the sparse gradients so far

    def added(self, name, gradient):
        """The parts of a gradient, added to that of an earlier backward pass, if there is one."""
        before = self.gradients[name]
        if gradient.layout != torch.strided:  # its indices cannot be added
            before, gradient = None, gradient + self.sparse.get(name, 0)
            self.sparse[name] = gradient
        # As retain_grad does, which keeps no strides.
        now = [(part, copy, None) for part, copy, _ in host_parts(name, gradient)]
        if before is not None:
            now = [(part, old + new, None) for (part, old, _), (_, new, _) in zip(before, now)]
        return now

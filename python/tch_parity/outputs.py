"""What modules return in the step that is open: each call is numbered, and its gradients are watched. It knows no inputs."""

import torch
from torch._subclasses.fake_tensor import FakeTensor

from .checkpoints import checkpoints
from .gradients import Call
from .names import OUTPUT, parts


class Outputs:
    """The calls of modules in the step that is open.

    calls       how often each module was called
    before      the same before the call of the model that has begun
    recomputed  by the node of a checkpoint: the calls in it, those still to be recomputed first
    """

    def __init__(self, case, programs, gradients):
        self.case, self.programs, self.gradients = case, programs, gradients

    def begin(self):
        """Begins a step."""
        self.calls, self.before, self.recomputed = {}, {}, {}

    def begin_call(self):
        """Begins a call of the model."""
        self.before = dict(self.calls)

    def returned(self, module, output):
        """Records what a module, by its name, has returned."""
        if module == OUTPUT and self.programs.wanted:
            self.programs.settings.end_call()
        nodes, recomputes = checkpoints()
        call, leaves = self._call(module, output) if recomputes is None else self._again(recomputes, module, output)
        if call is None:
            return
        for node in nodes:
            self.recomputed.setdefault(node, []).append(call)
        for name, tensor in leaves:
            if name in call.recorded and name not in call.gradients and tensor.requires_grad:
                self.gradients.watch_output(call, name, tensor)

    def _call(self, module, output):
        number = self.calls[module] = self.calls.get(module, 0) + 1
        call = Call(module, module if number == 1 else f"{module}@{number}")
        self.gradients.of_outputs.append(call)
        leaves = list(parts(call.name, output))
        for name, tensor in leaves:
            if isinstance(tensor, FakeTensor):
                raise RuntimeError(
                    "exporting the model has left a tensor without values in something outside of it, such as a function with a"
                    " cache: call the model once before it is recorded, or use program=False"
                )
            if not isinstance(tensor, torch.Tensor):
                self.case.value(f"forward/{name}", tensor)
            elif self.case.push_output(f"forward/{name}", tensor):
                call.recorded.append(name)
        if self.programs.fresh is not None:
            number -= self.before.get(module, 0)
            own = module if number == 1 else f"{module}@{number}"  # as if the call were the first
            names = {id(leaf): own + name[len(call.name):] for name, leaf in leaves if name in call.recorded}
            self.programs.fresh.returned(module, number, output, names)
        return call, leaves

    def _again(self, node, module, output):
        """A recomputation is no call of its own. A checkpoint with a node of its own computes without a graph first, so
        that the gradients are those of what it recomputes."""
        calls = self.recomputed.get(node)
        if not calls or calls[0].module != module:
            return None, ()
        call = calls.pop(0)
        return call, parts(call.name, output)

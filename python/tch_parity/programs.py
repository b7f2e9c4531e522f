"""The programs of a recording: one for each way in which the loop calls the model. It knows a case, and no hooks."""

import contextlib

import torch
from torch.utils import _pytree as pytree

from .autocast import Extents
from .copies import CannotRecord, is_whole
from .hooks import unknown_effect
from .names import OPERATOR, OUTPUT, plain
from .operators import run_operators
from .program import CannotExport, Program, Signature, signature
from .settings import Settings

# The most programs of a case, each of which is exported and kept.
MOST = 16


class Programs:
    """The programs that replay a run.

    wanted     whether there is one for every call so far
    exporting  whether torch.export runs the model now, which is no call of the loop
    settings   the attributes of modules that the loop sets between calls
    of_call    that of the call of the model that has begun
    fresh      the same, if it was exported for this call
    kept       the names of the parameters whose gradients a step adds to, by step
    backwards  the calls of each backward pass, by step, where there are several
    idle       the latest steps, if they have no backward pass, and so leave all gradients as they are
    """

    def __init__(self, model, case, wanted, operators, dynamic_shapes, device):
        self.model, self.case, self.wanted, self.operators = model, case, wanted, operators
        self.dynamic_shapes = dynamic_shapes
        self.exporting = False
        self.settings = Settings(model)
        self.all = {}  # by the signature of the calls that they compute
        self.alike = {}  # the signatures of calls that compute the same, although the loop has set something
        self.of_call = self.fresh = None
        self.of_calls = {}  # the numbers of the programs of the calls, by step
        self.kept, self.backwards, self.idle = {}, {}, []
        self.without = {}  # the calls that were made without gradients, counted from 1, by step
        self.extents, self.in_one = Extents(device), {}  # the calls in one autocast with those before them, by step
        self.in_autocast = {}  # the states of autocast in the backward passes, by step
        self.calls_parts = False

    def begin(self):
        """What rollback() takes."""
        return self.wanted, dict(self.all), list(self.idle)

    def rollback(self, step, begun):
        """Forgets a step."""
        self.wanted, self.all, self.idle = begun
        self.case.has_program = bool(self.all)
        self.alike = {key: other for key, other in self.alike.items() if other in self.all}
        for by_step in (self.of_calls, self.kept, self.backwards, self.without, self.in_one, self.in_autocast):
            by_step.pop(str(step), None)

    def find(self, step, args, kwargs, updated):
        """Finds the program of a call, or exports one if no call before had this signature.

        updated  whether an optimizer has taken its step before this call in the same step
        """
        self.end_call()
        if not self.wanted:
            return
        if updated:
            return self.give_up(f"the model was called after an optimizer's step within step {step}")
        if torch.get_default_dtype() is not torch.float32:  # of what is made without a dtype
            return self.give_up(f"torch's default dtype is {torch.get_default_dtype()}, and that of a replay is torch.float32")
        why_not = not_given(args, kwargs) or unknown_effect(self.model)
        if why_not is not None:
            return self.give_up(why_not)
        try:
            key = signature(self.model, args, kwargs, self.settings.begin_call())
        except RuntimeError as error:  # a nested tensor has no shape
            return self.give_up(" ".join(str(error).split()))
        if any(key.frozen != other.frozen for other in self.all):
            return self.give_up(f"other parameters require a gradient in step {step} than before")
        if any(p._backward_hooks for p in self.model.parameters()):
            return self.give_up("a parameter has a hook, which can change its gradient")
        goes_on, stale = self.extents.begin_call(list(self.model.named_parameters()))
        if stale is not None:
            return self.give_up(f"{stale} was written to within torch.autocast, which goes on in step {step} with its old value")
        known = self.all.get(self.alike.get(key, key))
        # What the modules keep may be others than when it was exported, and decide what this call computes.
        changed = known.kept.changed(self.model) if known is not None else []
        if known is None or changed:
            self._export(key, args, kwargs, known, changed)
        self.of_call = self.all.get(self.alike.get(key, key))
        if self.of_call is not None:
            calls = self.of_calls.setdefault(str(step), [])
            calls.append(list(self.all.values()).index(self.of_call))
            if not torch.is_grad_enabled():  # operators choose their kernels by it
                self.without.setdefault(str(step), []).append(len(calls))
            if goes_on and len(calls) > 1:
                self.in_one.setdefault(str(step), []).append(len(calls))

    def end_call(self):
        self.of_call = self.fresh = None

    def _export(self, key, args, kwargs, known, changed):
        """Exports the program of a call that has none, or of which the `known` one may compute something else, since
        attributes that the modules keep have `changed`."""
        self.exporting = True
        section = section_of(len(self.all))
        try:
            self.fresh = Program(self.model, args, kwargs, self.dynamic_shapes, self.settings.now)
            if alike := next((other for other, program in self.all.items() if program.computes(self.fresh)), None):
                self._found(key, alike, known, changed)
                return
            if len(self.all) == MOST:
                by = f": it computes by {changed[0]}, which changes from call to call and is no buffer" if changed else ""
                return self.give_up(f"the model was called in more than {MOST} ways, by sizes, arguments, modes and settings{by}")
            graph = torch.frombuffer(bytearray(self.fresh.graph), dtype=torch.uint8)
            self.case.trace.push(f"{section}/graph", graph)
            for name, constant in self.fresh.constants.items():
                self.case.trace.push(f"{section}/constant/{name}", constant)
            own = key if known is None else Signature(f"{key.of_call}, at another value of {changed[0]} ({section})", key.frozen)
            self.all[own], self.alike[key] = self.fresh, own
            self.case.has_program = True
        except (CannotExport, CannotRecord) as error:
            self.give_up(str(error))
        finally:
            self.exporting = False

    def _found(self, key, alike, known, changed):
        """Takes a program that computes the same as the one that was exported."""
        program = self.all[alike]
        if program is known:
            program.kept.idle.update(changed)
        else:
            program.kept.values = self.fresh.kept.values
            self.settings.decide_nothing(program.settings)
        self.alike[key], self.fresh = alike, None

    def give_up(self, why):
        """From here on no program replays the run."""
        if not self.wanted:
            return
        self.wanted = False
        self.end_call()
        self.all.clear()
        self.case.has_program = False
        self.case.leave_out(["program"], why)

    def end_step(self, step, of_output, called, lacks_output, gradients, stepped):
        """Ends a step, and gives up where a program cannot replay it.

        of_output     the calls of the model
        called        the names of the modules that the loop called
        lacks_output  whether the model's output is not recorded
        gradients     those of the step
        stepped       whether an optimizer took a step
        """
        self.end_call()
        calls_parts, goes_backward = bool(called - {OUTPUT}), gradients.arrived
        self.calls_parts |= calls_parts
        if not called and goes_backward:
            self.case.leave_out([OUTPUT], unseen(self.model))
        self.idle.append(str(step))
        if goes_backward:
            self.kept.update({own: gradients.kept for own in self.idle if gradients.kept})
            self.idle.clear()
        if not self.all:
            return
        if str(step) not in self.of_calls:
            self.give_up(f"the loop does not call the model in step {step}")
        elif calls_parts:
            self.give_up(f"the loop calls parts of the model beside the model itself in step {step}")
        elif any(len(set(call.passes)) > 1 for call in of_output):
            self.give_up(f"several backward passes go through one call of the model in step {step}")
        elif goes_backward and lacks_output:
            self.give_up("the model's output is left out by only= or skip=")
        elif goes_backward and not any(call.passes for call in of_output):
            self.give_up(f"backward does not go through an output of the model in step {step}")
        elif stepped and not goes_backward:
            self.give_up(f"an optimizer takes its step in step {step}, in which there is no backward pass")
        elif gradients.trouble is not None:
            self.give_up(gradients.trouble)

    def run_operators(self, number, args, kwargs):
        """Records the digest of what each operator returns in the numbered call of a step, if that is asked for."""
        if not self.operators or self.of_call is None:
            return

        def take(name, result):
            name = f"{OPERATOR}/{name}" if number == 1 else f"{OPERATOR}/{name}@{number}"
            with contextlib.suppress(CannotRecord):
                self.case.operator(name, result)

        try:
            run_operators(self.of_call.exported, self.model, args, kwargs, take)
        except Exception as error:
            self.case.leave_out([OPERATOR], f"the program cannot be run: {' '.join(str(error).split())}")

    def described(self, modules, steps, stepped):
        """How the recorded tensors are named in the programs, as plain data, or None if there is no program.

        modules  the names of the recorded modules
        stepped  the steps in which each optimizer took one
        """
        if self.wanted and not self.all:
            parts = "the loop calls parts of the model, and never the model itself: its forward() is not seen when it is called alone"
            self.case.leave_out(["program"], parts if self.calls_parts else unseen(self.model))
        if not self.all:
            return None
        about, *more = (program.described(modules) for program in self.all.values())
        if more:
            about["more"] = more
        if any(calls != [0] for calls in self.of_calls.values()):
            about["calls"] = self.of_calls
        if self.backwards:
            about["backwards"] = self.backwards
        if self.without:
            about["without_gradients"] = self.without
        if self.in_one:
            about["in_one_autocast"] = self.in_one
        if self.in_autocast:
            about["backwards_in_autocast"] = self.in_autocast
        if self.kept:
            about["kept"] = self.kept
        if any(own != list(range(1, steps + 1)) for own in stepped):
            about["stepped"] = stepped
        return about


def section_of(number):
    """What the names of a program begin with, counted from 0."""
    return "program" if number == 0 else f"program/{number + 1}"


def unseen(model):
    """Why no call of a module is seen."""
    if any(module._compiled_call_impl is not None for module in model.modules()):
        return "the model is compiled, and no call of it is seen: record it as it is without compile()"
    return "no call of the model is seen within watch(): call the model itself there, and not its forward()"


def not_given(args, kwargs):
    """Why no program is given these arguments, or None if one can be."""
    for leaf in pytree.tree_leaves((args, kwargs)):
        if isinstance(leaf, torch.Tensor) and not leaf.is_nested and not is_whole(leaf):
            kind = leaf.layout if leaf.layout != torch.strided else leaf.dtype
            return f"an argument of the model is of {kind}, which no case holds as one tensor"
        if isinstance(leaf, int) and plain(leaf) is None:
            return "an argument of the model is an integer that is too large for JSON"
    return None

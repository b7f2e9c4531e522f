"""The programs of a recording: one for each way in which the loop calls the model. It knows a case, and no hooks."""

import contextlib

import torch

from .copies import CannotRecord
from .names import OPERATOR
from .operators import run_operators
from .program import CannotExport, Program, signature

# The most programs of a case, each of which is exported and kept.
MOST = 16


class Programs:
    """The programs that replay a run.

    wanted     whether there is one for every call so far
    exporting  whether torch.export runs the model now, which is no call of the loop
    of_call    that of the call of the model that has begun
    fresh      the same, if it was exported for this call
    kept       the names of the parameters whose gradients a step adds to, by step
    backwards  the calls of each backward pass, by step, where there are several
    """

    def __init__(self, model, case, wanted, operators):
        self.model, self.case, self.wanted, self.operators = model, case, wanted, operators
        self.exporting = False
        self.all = {}  # by the signature of the calls that they compute
        self.of_call = self.fresh = None
        self.of_calls = {}  # the numbers of the programs of the calls, by step
        self.kept, self.backwards = {}, {}

    def begin(self):
        """What rollback() takes."""
        return self.wanted, dict(self.all)

    def rollback(self, step, begun):
        """Forgets a step."""
        self.wanted, self.all = begun
        self.case.has_program = bool(self.all)
        for by_step in (self.of_calls, self.kept, self.backwards):
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
        try:
            key = signature(self.model, args, kwargs)
        except RuntimeError as error:  # a nested tensor has no shape
            return self.give_up(" ".join(str(error).split()))
        if any(key.frozen != other.frozen for other in self.all):
            return self.give_up(f"other parameters require a gradient in step {step} than before")
        if any(p._backward_hooks for p in self.model.parameters()):
            return self.give_up("a parameter has a hook, which can change its gradient")
        if key not in self.all:
            if len(self.all) == MOST:
                return self.give_up(f"the model was called in more than {MOST} ways, by sizes, arguments and modes")
            self._export(key, args, kwargs)
        self.of_call = self.all.get(key)
        if self.of_call is not None:
            self.of_calls.setdefault(str(step), []).append(list(self.all).index(key))

    def end_call(self):
        self.of_call = self.fresh = None

    def _export(self, key, args, kwargs):
        self.exporting = True
        section = section_of(len(self.all))
        try:
            self.fresh = Program(self.model, args, kwargs)
            graph = torch.frombuffer(bytearray(self.fresh.graph), dtype=torch.uint8)
            self.case.trace.push(f"{section}/graph", graph)
            for name, constant in self.fresh.constants.items():
                self.case.trace.push(f"{section}/constant/{name}", constant)
            self.all[key] = self.fresh
            self.case.has_program = True
        except (CannotExport, CannotRecord) as error:
            self.give_up(str(error))
        finally:
            self.exporting = False

    def give_up(self, why):
        """From here on no program replays the run."""
        if not self.wanted:
            return
        self.wanted = False
        self.end_call()
        self.all.clear()
        self.case.has_program = False
        self.case.leave_out(["program"], why)

    def end_step(self, step, of_output, calls_parts, lacks_output, goes_backward):
        """Ends a step, and gives up where a program cannot replay it.

        of_output      the calls of the model
        calls_parts    whether the loop called modules beside the model
        lacks_output   whether the model's output is not recorded
        goes_backward  whether backward computed gradients
        """
        self.end_call()
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
            self.case.leave_out(["program"], "the loop calls parts of the model, and never the model itself")
        if not self.all:
            return None
        about, *more = (program.described(modules) for program in self.all.values())
        if more:
            about["more"] = more
        if any(calls != [0] for calls in self.of_calls.values()):
            about["calls"] = self.of_calls
        if self.backwards:
            about["backwards"] = self.backwards
        if self.kept:
            about["kept"] = self.kept
        if any(own != list(range(1, steps + 1)) for own in stepped):
            about["stepped"] = stepped
        return about


def section_of(number):
    """What the names of a program begin with, counted from 0."""
    return "program" if number == 0 else f"program/{number + 1}"

"""What an optimizer says of itself: its hyper-parameters as each step used them, and its state. It knows no file."""

import torch

from . import autocast
from .copies import version
from .names import parts, plain

# What schedules keep in a group.
OF_SCHEDULES = "initial_lr", "max_lr", "min_lr", "base_momentum", "max_momentum"

# What the format says of an optimizer itself.
OF_FORMAT = "name", "groups", "parameters", "changes", "step", "group"

# Those that call what autocast casts: others compute element by element.
CASTED = "Adafactor", "Muon"


class Optimizer:
    """The hyper-parameters of an optimizer, group by group, as they were in the first step and where they changed."""

    def __init__(self, name, optimizer):
        if not hasattr(optimizer, "param_groups") or not hasattr(optimizer, "register_step_pre_hook"):
            instead = "the optimizer that it schedules" if hasattr(optimizer, "optimizer") else "one, or a dict of several by name"
            raise TypeError(f"a {type(optimizer).__name__} is no torch.optim.Optimizer: give {instead}")
        self.name, self.optimizer = name, optimizer
        self.groups = self._groups()
        self.latest = list(self.groups)
        self.begun = False
        self.grew = None  # the step before which a group was added
        self.changes = []
        self.stepped = []  # the numbers of the steps in which it took one
        self.note_state()

    def note(self, step):
        """Notes that it takes a step, and the hyper-parameters that are used now."""
        self.stepped.append(step)
        for at, now in enumerate(self._groups()):
            if self.begun and at >= len(self.latest):
                self.grew = step
            if not self.begun or at >= len(self.latest):
                # A schedule may have changed them between the optimizer's making and its first step.
                self.groups[at:at + 1], self.latest[at:at + 1] = [now], [now]
            elif now != self.latest[at]:
                changed = {key: value for key, value in now.items() if self.latest[at].get(key) != value}
                changed.update({key: None for key in self.latest[at] if key not in now})
                self.changes.append({"step": step, "group": at, **changed})
                self.latest[at] = now
        self.begun = True

    def described(self, names, all_names):
        """What the file says: the first group's hyper-parameters, and what else is to be said.

        `names` are those of the parameters, by id.
        """
        about = {"name": self.kind(), **self.groups[0]}
        held = [[names[id(p)] for p in group["params"] if id(p) in names] for group in self.optimizer.param_groups]
        if held != [all_names]:
            differing = [{k: v for k, v in group.items() if self.groups[0].get(k) != v} for group in self.groups]
            about["groups"] = [{"parameters": held, **own} for held, own in zip(held, differing)]
        if self.changes:
            about["changes"] = self.changes
        return about

    def kind(self):
        """The name of its class, which is PyTorch's own name for PyTorch's classes alone."""
        kind = type(self.optimizer)
        return kind.__name__ if kind is getattr(torch.optim, kind.__name__, None) else f"{kind.__module__}.{kind.__qualname__}"

    def begin(self):
        """What rollback() takes."""
        return list(self.groups), list(self.latest), self.begun, len(self.changes), len(self.stepped), self.left, self.grew

    def rollback(self, begun):
        """Forgets a step."""
        self.groups, self.latest, self.begun, changes, stepped, self.left, self.grew = begun
        del self.changes[changes:], self.stepped[stepped:]

    def note_state(self):
        """Notes the state as the optimizer left it."""
        self.left = {id(p): entries(state) for p, state in self.optimizer.state.items()}

    def not_replayed(self, names):
        """Why no program replays the step that it is about to take, or None. `names` are those of the parameters, by id."""
        if "." in self.kind():
            return f"the optimizer is a {self.kind()}, and none of torch.optim's"
        if self.grew is not None:
            return f"a group of parameters was added to the optimizer before its step in step {self.grew}"
        if self.kind() in CASTED and autocast.state() is not None:
            return f"{self.kind()} takes its step within torch.autocast, which casts what it computes"
        now = self.optimizer.state
        for p, state in now.items():
            if not same_state(entries(state), self.left.get(id(p), [])):
                return f"the optimizer's state of {names.get(id(p), 'a parameter')} was changed by something else than its steps"
        if len(now) != len(self.left):
            return "something else than the optimizer's steps took away from its state"
        for group in self.optimizer.param_groups:
            if group.get("fused"):
                return "the optimizer has fused=True, which computes by another formula"
            complex_one = next((p for p in group["params"] if p.is_complex()), None)
            if complex_one is not None:
                return f"the optimizer has {names.get(id(complex_one), 'a parameter')}, which is complex"
            tensors = [key for key, value in group.items() if key != "params" and holds_tensor(value)]
            if tensors:
                return f"the optimizer's {tensors[0]} is a tensor, with which it computes otherwise than with a number"
        return None

    def others(self, names):
        """How many parameters it holds that are none of the model's, and the keys of its groups that are no arguments."""
        held = [p for group in self.optimizer.param_groups for p in group["params"]]
        keys = {key for group in self.optimizer.param_groups for key in group if key != "params" and not self._is_argument(key)}
        return sum(id(p) not in names for p in held), sorted(keys)

    def _is_argument(self, key):
        return key in OF_SCHEDULES or key in self.optimizer.defaults and key not in OF_FORMAT

    def _groups(self):
        """The plain values of the arguments, group by group."""
        groups = []
        for group in self.optimizer.param_groups:
            values = {key: plain(value) for key, value in group.items() if self._is_argument(key)}
            groups.append({key: value for key, value in values.items() if value is not None})
        return groups

    def state(self, names):
        """The state of each parameter by PyTorch's names, as (name, value)."""
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                if p in self.optimizer.state and id(p) in names:
                    for key, value in self.optimizer.state[p].items():
                        for part, leaf in parts(key, value):
                            yield f"{part}/{names[id(p)]}", leaf


def entries(state):
    """The entries of a parameter's state, each with the version of its tensor."""
    return [(key, value, version(value) if isinstance(value, torch.Tensor) else None) for key, value in state.items()]


def same_state(now, then):
    """Whether two states have the same tensors, which were not written to, and the same numbers."""
    return len(now) == len(then) and all(
        a[0] == b[0] and a[2] == b[2] and (a[1] is b[1] or isinstance(a[1], (int, float)) and a[1] == b[1])
        for a, b in zip(now, then)
    )


def holds_tensor(value):
    """Whether an argument is a tensor, or several with one among them, as betas are."""
    return isinstance(value, torch.Tensor) or isinstance(value, (tuple, list)) and any(map(holds_tensor, value))

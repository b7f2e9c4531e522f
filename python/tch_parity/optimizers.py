"""What an optimizer says of itself: its hyper-parameters as each step used them, and its state. It knows no file."""

from .names import parts, plain


class Optimizer:
    """The hyper-parameters of an optimizer, group by group, as they were in the first step and where they changed."""

    def __init__(self, name, optimizer):
        self.name, self.optimizer = name, optimizer
        self.groups = [hyperparameters(group) for group in optimizer.param_groups]
        self.latest = list(self.groups)
        self.begun = False
        self.changes = []
        self.stepped = []  # the numbers of the steps in which it took one

    def note(self, step):
        """Notes that it takes a step, and the hyper-parameters that are used now."""
        self.stepped.append(step)
        for at, group in enumerate(self.optimizer.param_groups):
            now = hyperparameters(group)
            if not self.begun or at >= len(self.latest):
                # A schedule may have changed them between the optimizer's making and its first step.
                self.groups[at:at + 1], self.latest[at:at + 1] = [now], [now]
            elif now != self.latest[at]:
                changed = {key: value for key, value in now.items() if self.latest[at].get(key) != value}
                self.changes.append({"step": step, "group": at, **changed})
                self.latest[at] = now
        self.begun = True

    def described(self, names, all_names):
        """What the file says: the first group's hyper-parameters, and what else is to be said.

        `names` are those of the parameters, by id.
        """
        about = {"name": type(self.optimizer).__name__, **self.groups[0]}
        held = [[names.get(id(p)) for p in group["params"]] for group in self.optimizer.param_groups]
        if held != [all_names]:
            differing = [{k: v for k, v in group.items() if self.groups[0].get(k) != v} for group in self.groups]
            about["groups"] = [{"parameters": held, **own} for held, own in zip(held, differing)]
        if self.changes:
            about["changes"] = self.changes
        return about

    def state(self, names):
        """The state of each parameter by PyTorch's names, as (name, value)."""
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                if p in self.optimizer.state and id(p) in names:
                    for key, value in self.optimizer.state[p].items():
                        for part, leaf in parts(key, value):
                            yield f"{part}/{names[id(p)]}", leaf


def hyperparameters(group):
    """The plain values of a parameter group."""
    values = {key: plain(value) for key, value in group.items() if key != "params"}
    return {key: value for key, value in values.items() if value is not None}

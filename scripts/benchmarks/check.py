"""Many small cases. As `check.py DIR` it is the peer, which replays and compares them in Python."""

import json
import sys
import tempfile
from pathlib import Path

from programs import in_turn, python
from row import Row

TITLE = "Checking"
HOW = """
`check` of 1,000 random cases of the notebook's net, of at most 16 rows and columns and 20 steps, with many optimizers
and schedules: whole processes. The peer is one Python process that reads each case, takes the same steps with the same
code that recorded them, and calls `torch.testing.assert_close` for each tensor.
"""


class Recorded:
    """A schedule that sets what was recorded."""

    def __init__(self, optimizer, changes):
        self.groups, self.changes, self.step_number = optimizer.param_groups, changes, 1

    def step(self):
        self.step_number += 1
        for change in self.changes:
            if change["step"] == self.step_number:
                self.groups[change["group"]].update(of_no_schedule(change))


def of_no_schedule(arguments):
    """The arguments without what the format, schedules and AdamW itself add."""
    from tch_parity.optimizers import OF_SCHEDULES

    added = "changes", "step", "group", "decoupled_weight_decay", *OF_SCHEDULES
    return {key: value for key, value in arguments.items() if key not in added}


def check(folder):
    """Replays every case and compares every tensor."""
    import torch
    from reference import ThreeLayerNet, compute_with, train
    from safetensors import safe_open

    environment = compute_with("portable")
    for file in sorted(Path(folder).glob("*.safetensors")):
        with safe_open(file, "pt") as case:
            run = json.loads(case.metadata()["tch-parity"])["run"]
            expected = {name: case.get_tensor(name) for name in case.keys()}
        d2, d1 = expected["param/fc1.weight"].shape
        model = ThreeLayerNet(d1, d2, len(expected["param/fc2.bias"])).to(expected["input/x"].dtype)
        model.load_state_dict({name: expected[f"param/{name}"] for name, _ in model.named_parameters()})
        x, y = expected["input/x"].requires_grad_(), expected["input/y"]
        made, changes = of_no_schedule(run["optimizer"]), run["optimizer"].get("changes", [])
        made["groups"] = [of_no_schedule(group) for group in made.get("groups", [])]
        recorded = (lambda optimizer: Recorded(optimizer, changes)) if changes else None
        actual = train(model, x, y, made, run["steps"], environment, schedule=recorded)
        for name, tensor in actual.tensors.items():
            torch.testing.assert_close(tensor, expected[name].detach())


def rows(programs):
    from reference import compute_with, record_random

    with tempfile.TemporaryDirectory() as folder:
        record_random(1000, 0, Path(folder), compute_with("portable"), largest=16)
        ours, theirs = in_turn([programs.tch_parity, "check", folder], python("check.py", folder), count=2, warm_up=0)
        yield Row("check of 1,000 small cases", ours, "Python eager, assert_close", theirs)


if __name__ == "__main__":
    check(sys.argv[1])

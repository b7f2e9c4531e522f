"""Loops that the recorder lost something of, overwrote something in, or could not write: each is right now, or is refused in words."""

import collections
import contextlib
import copy
import io
import tempfile
import unittest
from pathlib import Path

import torch
from test_recorder import bits, read
from tch_parity import Recorder
from torch import nn


def net():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


class Faults(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "case.safetensors"

    def record(self, model, loop, **options):
        """Runs loop(rec), and returns the tensors and the `run` of the file, and what was said."""
        with contextlib.redirect_stderr(io.StringIO()) as said, Recorder(self.path, model, **options) as rec:
            loop(rec)
        tensors, about = read(self.path)
        return tensors, about["run"], said.getvalue()

    def step(self, rec, model, optimizer, between=lambda: None):
        with rec.watch():
            optimizer.zero_grad()
            rec.loss(model(torch.randn(5, 4)).square().mean()).backward()
            between()
            optimizer.step()

    def no_program(self, run):
        self.assertNotIn("program", run)
        return next(line for line in run["not_recorded"] if line.startswith("program: "))

    def test_in_place_in_inference_mode(self):
        model, results = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True)), []

        def loop(rec):
            with rec.watch(), torch.inference_mode():
                results.append(model(torch.randn(3, 4)))

        tensors, _, _ = self.record(model, loop)
        self.assertEqual(bits(tensors["forward/output"]), bits(results[0]))

    def test_gradients_that_are_clipped_through_data(self):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        clip = lambda: [p.grad.data.clamp_(-0.01, 0.01) for p in model.parameters()]
        tensors, _, _ = self.record(model, lambda rec: self.step(rec, model, optimizer, clip), optimizer=optimizer)
        for name, p in model.named_parameters():
            self.assertEqual(bits(tensors[f"taken/{name}"]), bits(p.grad))

    def test_gradients_that_a_closure_clips(self):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)

        def loop(rec):
            def closure():
                optimizer.zero_grad()
                loss = rec.loss(model(torch.randn(5, 4)).square().mean())
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
                return loss

            with rec.watch():
                optimizer.step(closure)

        tensors, _, _ = self.record(model, loop, optimizer=optimizer)
        self.assertEqual(bits(tensors["taken/0.weight"]), bits(model[0].weight.grad))

    def test_parameters_that_are_frozen_or_thawed_within_a_step(self):
        for before, after in ((True, False), (False, True)):
            model = net()
            optimizer = torch.optim.SGD(model.parameters(), 0.1)
            model[0].requires_grad_(before)

            def loop(rec):
                with rec.watch():
                    model[0].requires_grad_(True)
                    optimizer.zero_grad()
                    rec.loss(model(torch.randn(5, 4)).square().mean()).backward()
                    model[0].requires_grad_(after)

            tensors, run, _ = self.record(model, loop)
            self.assertEqual(bits(tensors["grad/0.weight"]), bits(model[0].weight.grad))
            self.assertNotIn("grad/0.weight", str(run.get("not_recorded")))

    def test_a_step_that_fails_leaves_nothing(self):
        for failing in (1, 2):
            model = net()
            optimizer = torch.optim.SGD(model.parameters(), 0.1)
            schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

            def loop(rec):
                for number in range(1, 4):
                    with contextlib.suppress(KeyError), rec.watch():
                        model(torch.randn(5 if number == failing else 3, 4)).square().mean().backward()
                        if number == failing:
                            raise KeyError
                        optimizer.step()
                    optimizer.zero_grad()
                    schedule.step()

            _, run, said = self.record(model, loop, optimizer=optimizer)
            self.assertEqual((run["steps"], said.count("recorder:")), (2, 0))
            self.assertNotIn("more", run["program"])
            self.assertNotIn("calls", run["program"])
            self.assertLessEqual({change["step"] for change in run["optimizer"]["changes"]}, {2})

    def test_a_copy_of_the_model_has_no_hooks(self):
        model = net()
        copies = []

        def loop(rec):
            copies.append(copy.deepcopy(model))
            torch.save(model, io.BytesIO())
            rec.forward(torch.randn(5, 4))

        self.record(model, loop)
        copies[0](torch.randn(5, 4))

    def test_what_an_optimizer_holds_besides(self):
        model, other = net(), nn.Parameter(torch.ones(()))
        groups = [{"params": model.parameters(), "name": "body", "step": 8}, {"params": [other], "lr": 0.3}]
        optimizer = torch.optim.Adam(groups, 0.1)
        _, run, said = self.record(model, lambda rec: self.step(rec, model, optimizer), optimizer=optimizer)
        self.assertEqual(run["optimizer"]["name"], "Adam")
        self.assertEqual([len(group["parameters"]) for group in run["optimizer"]["groups"]], [4, 0])
        self.assertIn("1 of its parameters are none of the model's", said)
        self.assertIn("optimizer/name: a key of a group that is no argument of Adam", run["not_recorded"])

    def test_step_clears_all_gradients_of_the_optimizer(self):
        class Scaled(nn.Module):
            def __init__(self):
                super().__init__()
                self.scale = nn.Parameter(torch.ones(()))

            def forward(self, output, target):
                return (self.scale * output - target).square().mean()

        found = []
        for recorded in (True, False):
            torch.manual_seed(1)
            model, loss = net(), Scaled()
            optimizer = torch.optim.SGD([*model.parameters(), *loss.parameters()], 0.1)
            x, y = torch.randn(5, 4), torch.randn(5, 1)
            if recorded:
                self.record(model, lambda rec: [rec.step(x, y) for _ in range(3)], optimizer=optimizer, loss=loss)
            else:
                for _ in range(3):
                    optimizer.zero_grad()
                    loss(model(x), y).backward()
                    optimizer.step()
            found.append(bits(loss.scale))
        self.assertEqual(*found)

    def test_names_that_clash(self):
        class Net(nn.Module):
            def forward(self, *args, scale=1.0, **others):
                return args[0] * scale + others["args"]

        def loop(rec):
            with rec.watch():
                rec.input("scale", 7.0)
                return net(torch.ones(2), scale=3.0, args=torch.ones(2))

        net = Net()
        tensors, run, _ = self.record(net, loop)
        self.assertEqual(run["values"], {"input/scale": 7.0, "input/.scale": 3.0})
        self.assertLessEqual({"input/args[0]", "input/.args"}, set(tensors))

    def test_values_of_every_kind(self):
        class Pair:
            __slots__ = "first", "second"

            def __init__(self, first, second):
                self.first, self.second = first, second

        class Net(nn.Module):
            def forward(self, x, **others):
                return Pair(x * 2, collections.deque([x + 1]))

        torch.utils._pytree.register_pytree_node(Pair, lambda p: ([p.first, p.second], None), lambda parts, _: Pair(*parts))
        tensors, run, _ = self.record(Net(), lambda rec: rec.forward(torch.ones(2), a=[], b={}, c=(), d=0))
        self.assertEqual(run["values"], {"input/a": [], "input/b": {}, "input/c": [], "input/d": 0})
        self.assertLessEqual({"forward/output[0]", "forward/output[1][0]"}, set(tensors))

    def test_what_no_header_can_hold(self):
        class Net(nn.Module):
            def forward(self, x, value):
                return x * 2

        nested = 1
        for _ in range(200):
            nested = [nested]
        _, run, said = self.record(Net(), lambda rec: [rec.forward(torch.ones(2), value) for value in ("\ud800", nested)])
        self.assertEqual(said.count("a case holds no such"), 2)
        with self.assertRaisesRegex(ValueError, "the header of the file would become larger"):
            self.record(Net(), lambda rec: [rec.forward(torch.ones(2), "x" * (2 << 20)) for _ in range(55)])

    def test_what_no_program_replays_is_said(self):
        def twice(rec, model, optimizer):
            with rec.watch():
                output = model(torch.randn(5, 4))
                rec.loss(output.mean(), "a").backward(retain_graph=True)
                rec.loss(output.square().mean(), "b").backward()

        def frozen(rec, model, optimizer):
            for number in range(2):
                model[0].requires_grad_(number == 0)
                self.step(rec, model, optimizer)

        def written(rec, model, optimizer):
            with rec.watch():
                model(torch.randn(5, 4)).mean().backward()
                optimizer.step()
                with torch.no_grad():
                    model[0].weight.clamp_(-0.1, 0.1)

        def between(rec, model, optimizer):
            self.step(rec, model, optimizer)
            with torch.no_grad():
                model[0].weight.clamp_(-0.1, 0.1)
            self.step(rec, model, optimizer)

        def parts(rec, model, optimizer):
            with rec.watch():
                (model(torch.randn(5, 4)).mean() + model[0](torch.randn(3, 4)).mean()).backward()

        for loop, why in (
            (twice, "several backward passes go through one call"),
            (frozen, "other parameters require a gradient in step 2"),
            (written, "0.weight was written to in step 1"),
            (between, "0.weight was written to before step 2"),
            (parts, "the loop calls parts of the model beside the model itself"),
        ):
            with self.subTest(why):
                model = net()
                optimizer = torch.optim.SGD(model.parameters(), 0.1)
                _, run, _ = self.record(model, lambda rec: loop(rec, model, optimizer), optimizer=optimizer)
                self.assertIn(why, self.no_program(run))
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        _, run, _ = self.record(model, lambda rec: self.step(rec, model, optimizer))
        self.assertIn("was written to in step 1, and not by a recorded optimizer", self.no_program(run))

    def test_a_hook_that_is_added_since_and_changes_the_output(self):
        model = net()

        def loop(rec):
            model[0].register_forward_hook(lambda module, args, output: output * 2)
            rec.forward(torch.ones(5, 4))

        tensors, _, _ = self.record(model, loop)
        self.assertEqual(bits(tensors["forward/0"]), bits(model[0](torch.ones(5, 4))))

    def test_a_checkpoint_that_the_recording_would_replace(self):
        self.path.write_bytes(b"checkpoint")
        with self.assertRaisesRegex(ValueError, "which the recording would replace"):
            Recorder(self.path, net(), initial=self.path)
        self.assertEqual(self.path.read_bytes(), b"checkpoint")

    def test_messages(self):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)

        def losses(rec):
            with rec.watch():
                rec.loss(model(torch.randn(5, 4)).mean())
                rec.loss(model(torch.randn(5, 4)).mean())

        for error, says, what in (
            (ValueError, "give each a name", lambda: self.record(model, losses)),
            (RuntimeError, "within its `with`", lambda: Recorder(self.path, model).step(torch.randn(5, 4))),
            (TypeError, "a list is no torch.optim.Optimizer", lambda: Recorder(self.path, model, optimizer=[optimizer])),
            (TypeError, "loss is 'mse'", lambda: Recorder(self.path, model, loss="mse")),
            (ValueError, "has no shape yet", lambda: Recorder(self.path, nn.LazyBatchNorm1d(affine=False))),
        ):
            with self.subTest(says), self.assertRaisesRegex(error, says):
                what()


if __name__ == "__main__":
    unittest.main()

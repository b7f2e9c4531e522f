"""Loops that the recorder lost something of, overwrote something in, or could not write: each is right now, or is refused in words."""

import collections
import contextlib
import copy
import functools
import gc
import io
import random
import sys
import tempfile
import types
import unittest
import unittest.mock
import weakref
from pathlib import Path

import torch
from test_recorder import bits, read
from tch_parity import Recorder
from tch_parity.beside import Buffers
from tch_parity.operators import copied_with_strides
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
            torch.save(model, self.path.with_name("model.pt"))
            rec.forward(torch.randn(5, 4))

        self.record(model, loop)
        copies[0](torch.randn(5, 4))
        # A program without this package loads it.
        self.assertNotIn(b"tch_parity", self.path.with_name("model.pt").read_bytes())

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

    def test_exporting_leaves_other_generators_as_they_are(self):
        numpy = sys.modules.get("numpy.random") or types.SimpleNamespace(random=random.random)

        class Net(nn.Module):
            def __init__(self, draw):
                super().__init__()
                self.fc, self.draw = nn.Linear(4, 4), draw

            def forward(self, x):
                return self.fc(x) * self.draw()

        for draw in (random.random, numpy.random, random.Random(3)):
            found = []
            for recorded in (False, True):
                torch.manual_seed(0)
                random.seed(1)
                if hasattr(numpy, "seed"):
                    numpy.seed(1)
                own = copy.deepcopy(draw) if isinstance(draw, random.Random) else None
                model = Net(own.random if own else draw)
                model.own = own
                if recorded:
                    loop = lambda rec: found.append([rec.forward(torch.ones(1, 4)).sum().item() for _ in range(3)])
                    self.assertIn("the model draws random numbers from", self.no_program(self.record(model, loop)[1]))
                else:
                    found.append([model(torch.ones(1, 4)).sum().item() for _ in range(3)])
            self.assertEqual(*found)

    def test_exporting_leaves_what_a_forward_collects(self):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc, self.list, self.nested, self.seen = nn.Linear(4, 4), [], {"a": ([], {})}, set()

            def forward(self, x):
                h = self.fc(x)
                self.list.append(h)
                self.nested["a"][0].append(h)
                self.nested["a"][1][len(self.list)] = h
                self.seen.add(len(self.list))
                return h

        model = Net()

        def loop(rec):
            for _ in range(2):
                with rec.watch():
                    rec.loss(model(torch.ones(1, 4)).sum() + model.list[-1].sum()).backward()

        self.record(model, loop)
        kept = [*model.list, *model.nested["a"][0], *model.nested["a"][1].values()]
        self.assertEqual([type(tensor) for tensor in kept], [torch.Tensor] * 6)
        self.assertEqual((model.seen, list(model.nested["a"][1])), ({1, 2}, [1, 2]))

    def test_hooks_of_others_are_not_run_once_more(self):
        model, results = net(), []
        model[1].register_forward_hook(lambda module, args, output: results.append(output))

        def loop(rec):
            with rec.watch():
                rec.loss(model(torch.randn(5, 4)).sum() + results[0].abs().sum()).backward()

        _, run, _ = self.record(model, loop)
        self.assertEqual(len(results), 1)
        self.assertIn("module 1 has a forward hook", self.no_program(run))
        model = net()
        model[1].register_full_backward_hook(lambda module, of_input, of_output: (of_input[0] * 2,))
        self.assertIn("module 1 has a backward hook", self.no_program(self.record(model, lambda rec: rec.forward(torch.ones(5, 4)))[1]))
        norms = nn.utils.spectral_norm(nn.utils.weight_norm(nn.Linear(4, 4), "bias", None))
        self.assertIn("program", self.record(norms, lambda rec: rec.forward(torch.ones(5, 4)))[1])

    def test_a_refusal_of_torch_export_is_one_line(self):
        class Net(nn.Module):
            def forward(self, x):
                print("forward")
                return x if x.sum() > 0 else -x

        with contextlib.redirect_stdout(io.StringIO()) as printed:
            _, _, said = self.record(Net(), lambda rec: rec.forward(torch.ones(2)))
        self.assertEqual((said.count("\n"), printed.getvalue()), (1, "forward\n"))

    def test_a_value_that_exporting_left_outside_of_the_model(self):
        @functools.lru_cache
        def table(length):
            return torch.arange(length) * 1.0

        class Cached(nn.Module):
            def forward(self, x):
                return x + table(x.shape[0])

        with self.assertRaisesRegex(RuntimeError, "use program=False"):
            self.record(Cached(), lambda rec: rec.forward(torch.ones(3)))
        table.cache_clear()
        self.record(Cached(), lambda rec: rec.forward(torch.ones(3)), program=False)

    def test_a_loss_that_is_a_module_of_the_model(self):
        class Lightning(nn.Module):
            def __init__(self):
                super().__init__()
                self.net, self.criterion = net(), nn.MSELoss()

            def forward(self, x):
                return self.net(x)

        model = Lightning()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)

        def loop(rec):
            with rec.watch():
                optimizer.zero_grad()
                rec.loss(model.criterion(model(torch.randn(5, 4)), torch.zeros(5, 1))).backward()
                optimizer.step()

        _, run, _ = self.record(model, loop, optimizer=optimizer)
        self.assertIn("program", run)

    def test_open_sizes_are_those_of_the_arguments_that_a_call_has(self):
        class Masked(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(3, 2)

            def forward(self, x, mask=None, scale=1.0):
                return self.fc(x * scale if mask is None else x * mask)

        def loop(rec):
            for size in 2, 3:
                rec.forward(torch.ones(size, 3), mask=torch.ones(size, 3), scale=2.0)
            for size in 4, 5:
                rec.forward(torch.ones(size, 3))

        sizes = {name: {0: torch.export.Dim.AUTO} for name in ("x", "mask")}
        _, run, _ = self.record(Masked(), loop, dynamic_shapes=sizes)
        self.assertEqual([call for call in run.get("not_recorded", []) if "program" in call], [])
        self.assertEqual(run["program"]["calls"], {"1": [0], "2": [0], "3": [1], "4": [1]})

    def test_a_tensor_that_is_two_arguments_is_two_inputs(self):
        class Pair(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(3, 2)

            def forward(self, left, right):
                return self.fc(left) - right.sum()

        def loop(rec):
            x, y = torch.ones(4, 3), torch.zeros(4, 3)
            rec.forward(x, x)
            rec.forward(x, y)

        _, run, _ = self.record(Pair(), loop)
        self.assertEqual(run["program"]["inputs"], ["input/left", "input/right"])
        self.assertNotIn("more", run["program"])

    def test_attention_to_itself_has_a_program_of_its_own(self):
        def loop(rec):
            x, y = torch.randn(4, 2, 8), torch.randn(4, 2, 8)
            rec.forward(x, x, x)
            rec.forward(x, y, y)

        _, run, _ = self.record(nn.MultiheadAttention(8, 2), loop)
        self.assertEqual(run["program"]["calls"], {"1": [0], "2": [1]})

    def test_what_depends_on_the_values_of_a_tensor(self):
        class Deciding(nn.Module):
            def forward(self, x):
                return x if x.sum() > 0 else 2 * x

        fixed = {0: None, 1: torch.export.Dim("width")}
        _, run, _ = self.record(net(), lambda rec: rec.forward(torch.ones(3, 4)), dynamic_shapes=(fixed,))
        self.assertIn("UserError: You marked width as dynamic but your code specialized it", self.no_program(run))
        _, run, _ = self.record(Deciding(), lambda rec: rec.forward(torch.ones(3)))
        why = r"depends on the values of a tensor \(test_faults.py:\d+: return x if x.sum\(\) > 0 else 2 \* x\)$"
        self.assertRegex(self.no_program(run), why)

    def test_an_optimizer_that_steps_in_backward(self):
        model = nn.Linear(4, 2)
        optimizers = {name: torch.optim.SGD([p], 0.1) for name, p in model.named_parameters()}
        of = {p: optimizers[name] for name, p in model.named_parameters()}

        def hook(p):
            of[p].step()
            of[p].zero_grad()

        for p in model.parameters():
            p.register_post_accumulate_grad_hook(hook)

        def loop(rec):
            with rec.watch():
                rec.loss(model(torch.ones(3, 4)).sum()).backward()

        tensors, run, said = self.record(model, loop, optimizer=optimizers)
        self.assertEqual((tensors["grad/weight"].tolist(), tensors["grad/bias"].tolist()), ([[3.0] * 4] * 2, [3.0] * 2))
        self.assertEqual(said, "")
        self.assertIn("program", run)

    def test_gradients_that_no_file_can_hold(self):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.w = nn.Parameter(torch.eye(3).to_sparse_csr())

            def forward(self, x):
                return torch.sparse.mm(self.w, x)

        model = Net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)

        def loop(rec):
            with rec.watch():
                rec.loss(model(torch.randn(3, 2)).sum()).backward()
                with contextlib.suppress(RuntimeError):  # of PyTorch, which may not have the kernel
                    optimizer.step()

        _, run, _ = self.record(model, loop, optimizer=optimizer)
        self.assertIn("grad/w: a case holds no torch.sparse_csr on cpu", run["not_recorded"])
        self.assertIn("w is of a kind", self.no_program(run))

    def test_an_error_of_ours_does_not_end_backward(self):
        model = net()

        def loop(rec):
            with rec.watch(), unittest.mock.patch("tch_parity.gradients.version", side_effect=KeyError("ours")):
                rec.loss(model(torch.randn(5, 4)).sum()).backward()

        _, run, _ = self.record(model, loop)
        self.assertIsNotNone(model[0].weight.grad)
        self.assertIn("cannot be recorded in step 1", self.no_program(run))

    def test_the_gradient_of_an_output_is_what_retain_grad_gives(self):
        model, kept = net(), []

        def loop(rec):
            with rec.watch():
                output = model(torch.randn(5, 4))
                output.register_hook(lambda gradient: gradient.clamp(-0.1, 0.1))
                output.retain_grad()
                rec.loss(output.square().sum()).backward()
                kept.append(output.grad)

        tensors, run, _ = self.record(model, loop)
        self.assertEqual(bits(tensors["grad/output"]), bits(kept[0]))
        self.assertIn("program", run)

    def test_one_result_of_several_that_the_loss_depends_on(self):
        class Halves(nn.Linear):
            def forward(self, x):
                return super().forward(x).chunk(2, dim=-1)

        model, x = Halves(4, 4), torch.randn(3, 4)

        def loop(rec):
            with rec.watch():
                rec.loss(model(x)[0].sum()).backward()

        tensors, _, _ = self.record(model, loop)
        self.assertEqual(bits(tensors["grad/output[0]"]), bits(torch.ones(3, 2)))
        self.assertNotIn("grad/output[1]", tensors)

    def test_the_gradient_of_an_output_that_autograd_is_asked_for(self):
        model, kept = net(), []

        def loop(rec):
            for inputs in (lambda output: [output], lambda output: list(model.parameters())):
                with rec.watch():
                    output = model(torch.randn(5, 4))
                    kept.append(torch.autograd.grad(rec.loss(output.square().sum()), inputs(output))[0])
                    kept.append(2 * output.detach())

        tensors, run, _ = self.record(model, loop)
        self.assertEqual(bits(tensors["grad/output"]), bits(kept[0]))
        self.assertEqual(bits(tensors["step/2/grad/output"]), bits(kept[3]))
        self.assertIn("some gradients alone", self.no_program(run))

    def test_steps_in_which_nothing_happens(self):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)

        def loop(rec):
            for number in range(4):
                with rec.watch():
                    if number == 1:
                        continue
                    if number == 3:
                        break
                    rec.loss(model(torch.randn(5, 4)).sum()).backward()
                    optimizer.step()

        _, run, said = self.record(model, loop, optimizer=optimizer)
        self.assertEqual((run["steps"], said), (2, ""))
        self.assertIn("program", run)

    def test_modules_that_are_replaced(self):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)

        def loop(rec):
            self.step(rec, model, optimizer)
            model[2] = nn.Linear(8, 1)
            self.step(rec, model, optimizer)

        _, run, _ = self.record(model, loop, optimizer=optimizer)
        self.assertIn("2: it was replaced while it was recorded", run["not_recorded"])
        self.assertIn("2 was replaced", self.no_program(run))

    def test_calls_that_are_not_seen(self):
        def step(rec, call):
            with rec.watch():
                rec.loss(call(torch.ones(5, 4)).sum()).backward()

        def before(rec, model):
            loss = model(torch.ones(5, 4)).sum()
            with rec.watch():
                rec.loss(loss).backward()

        compiled = nn.Linear(4, 2)
        compiled.compile(backend="eager")
        for model, loop, why in (
            (compiled, lambda rec, model: step(rec, model), "the model is compiled, and no call of it is seen"),
            (nn.Linear(4, 2), lambda rec, model: step(rec, model.forward), "no call of the model is seen within watch()"),
            (nn.Linear(4, 2), before, "no call of the model is seen within watch()"),
            (net(), lambda rec, model: step(rec, model.forward), "its forward() is not seen when it is called alone"),
        ):
            with self.subTest(why):
                _, run, _ = self.record(model, lambda rec: loop(rec, model))
                self.assertIn(why, self.no_program(run))
                self.assertEqual(any(line.startswith("output: ") for line in run["not_recorded"]), not isinstance(model, nn.Sequential))

    def test_gradients_that_no_replay_has(self):
        def backward(rec, model, x=None):
            rec.loss(model(torch.randn(5, 4) if x is None else x).square().mean(), str(torch.rand(()))).backward()

        def takes_none(rec, model, optimizer):
            with rec.watch():
                backward(rec, model)
                model[2].weight.grad = None
                optimizer.step()

        def before(rec, model, optimizer):
            for _ in range(2):
                with rec.watch():
                    backward(rec, model)
                    optimizer.step()
                    optimizer.zero_grad()
                model(torch.randn(5, 4)).sum().backward()

        def clips_each(rec, model, optimizer):
            for _ in range(2):
                with rec.watch():
                    backward(rec, model)
                    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
            optimizer.zero_grad()

        def failed(rec, model, optimizer):
            for number in range(2):
                with contextlib.suppress(KeyError), rec.watch():
                    backward(rec, model)
                    if number == 0:
                        raise KeyError

        def adversarial(rec, model, optimizer):
            x = torch.randn(5, 4, requires_grad=True)
            with rec.watch():
                backward(rec, model, x)
                optimizer.zero_grad()
                backward(rec, model, (x + x.grad.sign()).detach())
                optimizer.step()

        def some(rec, model, optimizer):
            with rec.watch():
                rec.loss(model(torch.randn(5, 4)).sum()).backward(inputs=[model[0].weight])

        def by_hand(rec, model, optimizer):
            with rec.watch():
                output = model(torch.randn(5, 4))
                output.sum().backward()
                model[0].bias.grad = None
                model[0].bias.grad = torch.ones(8)
            with rec.watch():
                backward(rec, model)

        def twice(rec, model, optimizer):
            x = torch.randn(5, 4, requires_grad=True)
            with rec.watch():
                (model(x) + model(x)).sum().backward()

        def step_alone(rec, model, optimizer):
            with rec.watch():
                backward(rec, model)
            with rec.watch():
                rec.step_alone = model(torch.randn(5, 4))
                optimizer.step()

        for loop, why in (
            (takes_none, "the optimizer has no gradient of 2.weight in step 1"),
            (before, "0.weight has a gradient in step 2 that no recorded step left"),
            (clips_each, "0.weight has a gradient in step 2 that no recorded step left"),
            (failed, "0.weight has a gradient in step 1 that no recorded step left"),
            (adversarial, "the gradient of 0.weight was changed between two backward passes of step 1"),
            (some, "backward is asked for some gradients alone in step 1"),
            (by_hand, "0.bias has a gradient in step 2 that no recorded step left"),
            (twice, "are one tensor, and have one gradient"),
            (step_alone, "an optimizer takes its step in step 2, in which there is no backward pass"),
        ):
            with self.subTest(loop.__name__):
                model = net()
                optimizer = torch.optim.SGD(model.parameters(), 0.1)
                _, run, _ = self.record(model, lambda rec: loop(rec, model, optimizer), optimizer=optimizer)
                self.assertIn(why, self.no_program(run))
        model = net()
        model(torch.randn(5, 4)).sum().backward()
        _, run, _ = self.record(model, lambda rec: before(rec, model, torch.optim.SGD(model.parameters(), 0.1)))
        self.assertIn("0.weight has a gradient in step 1 that no recorded step left", self.no_program(run))

    def test_settings_that_the_loop_changes_between_calls(self):
        model = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.5), nn.Linear(8, 1))

        class Counts(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc, self.calls = nn.Linear(4, 1), 0

            def forward(self, x):
                self.calls += 1
                return self.fc(x)

        def calls(model, of, **values):
            optimizer = torch.optim.SGD(model.parameters(), 0.1)

            def loop(rec):
                for now in zip(*values.values()):
                    for key, value in zip(values, now):
                        setattr(of, key, value)
                    self.step(rec, model, optimizer)

            _, run, _ = self.record(model, loop, optimizer=optimizer)
            return list(run["program"].get("calls", {}).values())

        self.assertEqual(calls(model, model[1], p=[0.5, 0.4, 0.5]), [[0], [1], [0]])
        # What a forward counts is no setting, and neither is a number that it does not read.
        counts = Counts()
        self.assertEqual(calls(counts, counts, epoch=range(5)), [])
        both = calls(model, model[1], p=[0.5, 0.4, 0.4, 0.3, 0.5], epoch=range(5))
        self.assertEqual(both, [[0], [1], [1], [2], [0]])

    def test_gradients_that_a_replay_adds_to(self):
        model = nn.Embedding(7, 3, sparse=True)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)

        def loop(rec):
            for number in range(3):
                with rec.watch():
                    output = model(torch.tensor([number, 1, 5]))
                    if number != 1:
                        rec.loss(output.square().sum()).backward()
            optimizer.zero_grad()

        _, run, _ = self.record(model, loop)
        self.assertEqual(run["program"]["kept"], {"2": ["weight"], "3": ["weight"]})

    def test_writes_that_no_replay_makes(self):
        def step(rec, model, optimizer, before=None, within=None, after=None):
            with rec.watch():
                before and before(model, optimizer)
                optimizer.zero_grad()
                rec.loss(model(torch.randn(5, 4)).square().mean()).backward()
                within and within(model, optimizer)
                optimizer.step()
                after and after(model, optimizer)

        @torch.no_grad()
        def clamp(model, optimizer):
            model[0].weight.clamp_(-0.1, 0.1)

        def reset(model, optimizer):
            model[1].reset_running_stats()

        def fail(model, optimizer):
            raise KeyError

        def between(change):
            def loop(rec, model, optimizer):
                step(rec, model, optimizer)
                change(model, optimizer)
                step(rec, model, optimizer)
            return loop

        def failing(rec, model, optimizer):
            with contextlib.suppress(KeyError):
                step(rec, model, optimizer, after=fail)
            step(rec, model, optimizer)

        def loads(model, optimizer):
            optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))

        for loop, why in (
            (failing, "0.weight was written to before step 1"),
            (lambda *given: step(*given, before=clamp), "0.weight was written to before call 1 of the model in step 1"),
            (lambda *given: step(*given, within=clamp), "0.weight was written to in step 1 before the optimizer's step"),
            (lambda *given: step(*given, before=reset), "1.running_mean was written to before call 1"),
            (lambda *given: step(*given, after=reset), "1.running_mean was written to in step 1, and not by a call of the model"),
            (between(loads), "the optimizer's state of 0.weight was changed"),
            (between(lambda model, optimizer: optimizer.state.clear()), "took away from its state"),
            (between(lambda model, optimizer: optimizer.state[model[0].weight]["momentum_buffer"].mul_(0.5)), "the optimizer's state of 0.weight"),
        ):
            with self.subTest(why):
                model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 1))
                optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
                _, run, _ = self.record(model, lambda rec: loop(rec, model, optimizer), optimizer=optimizer)
                self.assertIn(why, self.no_program(run))

    def test_what_no_program_computes_alike(self):
        class Drawing(nn.Module):
            def __init__(self):
                super().__init__()
                self.generator = torch.Generator()

            def forward(self, x):
                return x + torch.rand(2, generator=self.generator)

        class Stateful(nn.Module):
            def __init__(self):
                super().__init__()
                self.cell = nn.GRUCell(2, 2)
                self.register_buffer("h", torch.zeros(2, 2))

            def forward(self, x):
                self.h = self.cell(x, self.h).detach()
                return self.h

        class Hooked(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 1)

            def forward(self, x):
                h = self.a(x)
                if h.requires_grad:
                    h.register_hook(lambda gradient: gradient * 2)
                return self.b(h)

        class Taking(nn.Module):
            def forward(self, x, value=None):
                return x * 2

        class Calling(nn.Module):
            def __init__(self, function):
                super().__init__()
                self.function = function

            def forward(self, x):
                with torch.no_grad():
                    return self.function(x) + 1

        @torch.library.custom_op("tch_parity_test::twice", mutates_args=())
        def twice(x: torch.Tensor) -> torch.Tensor:
            return x * 2

        twice.register_fake(torch.empty_like)

        def backward(rec, model):
            with rec.watch():
                rec.loss(model(torch.ones(2, 2)).sum()).backward()

        for model, loop, why in (
            (Drawing(), lambda rec, model: rec.forward(torch.ones(2)), "a Generator of the model, whose state is not recorded"),
            (Stateful(), lambda rec, model: rec.forward(torch.ones(2, 2)), "the model puts another tensor in the place of h"),
            (Hooked(), backward, "a hook changes the gradient of what a returns in step 1"),
            (Taking(), lambda rec, model: rec.forward(torch.eye(2).to_sparse()), "an argument of the model is of torch.sparse_coo"),
            (Taking(), lambda rec, model: rec.forward(torch.ones(2), 10**400), "an integer that is too large"),
            (Calling(twice), lambda rec, model: rec.forward(torch.ones(2)), "the model calls tch_parity_test::twice, which libtorch does not have"),
            (Calling(torch.vmap(torch.sin)), lambda rec, model: rec.forward(torch.ones(2)), "the model calls torch.vmap, which libtorch"),
        ):
            with self.subTest(why):
                _, run, _ = self.record(model, lambda rec: loop(rec, model))
                self.assertIn(why, self.no_program(run))
        for make, why in (
            (lambda p: torch.optim.AdamW(p, fused=True), "the optimizer has fused=True"),
            (lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01)), "the optimizer's lr is a tensor"),
        ):
            model = net()
            optimizer = make(model.parameters())
            _, run, _ = self.record(model, lambda rec: self.step(rec, model, optimizer), optimizer=optimizer)
            self.assertIn(why, self.no_program(run))

        class Complex(nn.Module):
            def __init__(self):
                super().__init__()
                self.w = nn.Parameter(torch.ones(4, dtype=torch.complex64))

            def forward(self, x):
                return (x * self.w).abs()

        model = Complex()
        optimizer = torch.optim.SGD(model.parameters())
        _, run, _ = self.record(model, lambda rec: self.step(rec, model, optimizer), optimizer=optimizer)
        self.assertIn("the optimizer has w, which is complex", self.no_program(run))

    def test_what_no_graph_has_is_seen_in_the_run(self):
        class Reversed(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x.view_as(x)

            @staticmethod
            def backward(ctx, gradient):
                return -gradient

        class Net(nn.Module):
            def __init__(self, within):
                super().__init__()
                self.a, self.b, self.within, self.h, self.calls = nn.Linear(4, 8), nn.Linear(8, 1), within, None, 0

            def forward(self, x):
                return self.b(self.within(self, torch.tanh(self.a(x))))

        def hooked(hook):
            def within(model, h):
                h.register_hook(functools.partial(hook, model))
                return h

            return within

        def remembers(model, h):
            before, model.h = model.h, h.detach()
            return h if before is None else h + before

        def notes(model, h):
            model.h = h.detach()
            return h

        def counts(model, h):
            model.calls += 1
            return h if model.calls < 2 else 2 * h

        def looked_at(model, gradient):
            model.h = gradient

        path = "by another path than the outputs of the model"
        for within, more, why in (
            (lambda _, h: Reversed.apply(h), lambda _: 0, "calls Reversed, a torch.autograd.Function, whose backward"),
            (hooked(lambda _, gradient: 2 * gradient), lambda _: 0, "a hook changes the gradient of a tensor within the model"),
            (hooked(lambda _, gradient: [gradient.mul_(2), None][1]), lambda _: 0, "a hook changes the gradient of a tensor within"),
            (hooked(looked_at), lambda _: 0, None),
            (notes, lambda model: model.h.square().sum(), None),
            (lambda model, h: setattr(model, "h", h) or h, lambda model: model.h.square().sum(), path),
            (lambda _, h: h, lambda model: sum(p.abs().sum() for p in model.parameters()), path),
            (lambda _, h: h, lambda model: 0 * model.a.weight.sum(), f"the loss of step 1 depends on a.weight {path}"),
            (remembers, lambda _: 0, None),  # each call has a program of its own
            (counts, lambda _: 0, None),
        ):
            model = Net(within)

            def loop(rec):
                for _ in range(2):
                    with rec.watch():
                        (rec.loss(model(torch.randn(5, 4)).square().mean()) + more(model)).backward()

            with self.subTest(why):
                _, run, _ = self.record(model, loop)
                if why is None:
                    self.assertIn("program", run)
                else:
                    self.assertIn(why, self.no_program(run))

    def test_what_decides_a_call_and_is_no_number_of_a_module(self):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc, self.tau, self._k, self.alpha, self.epoch = nn.Linear(4, 5), 1.0, 1.0, torch.tensor(1.0), 0
                self.options, self.config, self.layers = {"a": 1.0}, types.SimpleNamespace(a=1.0), [0, 1]

            def forward(self, x):
                x = self.fc(x) / self.tau * self._k * self.alpha * self.options["a"] * self.config.a
                return x * len(self.layers)

        class Almost(float):
            """As NumPy's numbers are, a float of another class."""

        def cached(model, i):
            model.layers = [0, 1, 2]  # as a cache that the first call fills

        for programs, change in (
            (3, lambda model, i: setattr(model, "tau", Almost(1 + i))),
            (3, lambda model, i: setattr(model, "_k", 1.0 + i)),
            (1, lambda model, i: setattr(model, "epoch", i)),
            (3, lambda model, i: setattr(model, "alpha", torch.tensor(1.0 + i))),
            (3, lambda model, i: model.alpha.fill_(1.0 + i)),
            (3, lambda model, i: model.options.update(a=1.0 + i)),
            (3, lambda model, i: setattr(model.config, "a", 1.0 + i)),
            (3, lambda model, i: model.layers.append(i)),
            (2, lambda model, i: cached(model, i) if i > 0 else None),
            (2, lambda model, i: model.alpha.fill_(1.0 + i % 2)),
        ):
            model = Net()
            optimizer = torch.optim.SGD(model.parameters(), 0.1)

            def loop(rec):
                for i in range(3):
                    change(model, i)
                    self.step(rec, model, optimizer)

            _, run, _ = self.record(model, loop, optimizer=optimizer)
            self.assertEqual(1 + len(run["program"].get("more", [])), programs)
        model = Net()

        def too_often(rec):
            for i in range(17):
                model.alpha = torch.tensor(1.0 + i)
                rec.forward(torch.randn(5, 4))

        _, run, _ = self.record(model, too_often)
        self.assertIn("more than 16 ways, by sizes, arguments, modes and settings: it computes by alpha", self.no_program(run))

    def test_writes_through_data(self):
        for when, write in (
            ("in step 1, and not by a recorded optimizer", "after"),
            ("in step 1 before the optimizer's step", "within"),
            ("in step 2 before the optimizer's step", "between"),
        ):
            model = net()
            optimizer = torch.optim.SGD(model.parameters(), 0.1)

            def clamp(now):
                for p in model.parameters() if now == write else ():
                    p.data.clamp_(-0.1, 0.1)

            def loop(rec):
                for _ in range(2):
                    with rec.watch():
                        self.forward_and_backward(rec, model, optimizer)
                        clamp("within")
                        optimizer.step()
                        clamp("after")
                    clamp("between")

            with self.subTest(write):
                _, run, _ = self.record(model, loop, optimizer=optimizer)
                self.assertEqual(self.no_program(run), f"program: 0.weight was written to {when}")

    def forward_and_backward(self, rec, model, optimizer):
        optimizer.zero_grad()
        rec.loss(model(torch.randn(5, 4)).square().mean()).backward()

    def test_buffers_that_are_replaced_are_not_kept(self):
        class Stateful(nn.Module):
            def __init__(self):
                super().__init__()
                self.cell = nn.GRUCell(4, 4)
                self.register_buffer("h", torch.zeros(5, 4))

            def forward(self, x):
                self.h = self.cell(x, self.h.detach())
                return self.h

        model, states = Stateful(), []
        optimizer = torch.optim.SGD(model.parameters(), 0.1)

        def loop(rec):
            for _ in range(5):
                self.step(rec, model, optimizer)
                states.append(weakref.ref(model.h))
            gc.collect()
            self.assertEqual([state() is None for state in states], [True] * 4 + [False])

        self.record(model, loop, optimizer=optimizer)

    def test_copies_for_digests_use_their_memory_again(self):
        buffers = Buffers()
        first, buffer = buffers.copy(torch.full((300, 100), 2.0))
        self.assertEqual((first.shape, float(first.sum())), ((300, 100), 60_000.0))
        buffers.free.append(buffer)
        second, _ = buffers.copy(torch.ones(70_000, dtype=torch.bool))
        self.assertEqual((second.data_ptr(), int(second.sum())), (first.data_ptr(), 70_000))
        third, _ = buffers.copy(torch.ones(10))
        self.assertNotEqual(third.data_ptr(), first.data_ptr())

    def test_optimizers_that_are_not_those_of_torch(self):
        class Adam(torch.optim.Adam):
            def step(self, closure=None):
                super().step(closure)
                with torch.no_grad():
                    for p in self.param_groups[0]["params"]:
                        p.mul_(0.99)

        model = net()
        optimizer = Adam(model.parameters())
        _, run, _ = self.record(model, lambda rec: self.step(rec, model, optimizer), optimizer=optimizer)
        self.assertTrue(run["optimizer"]["name"].endswith("Adam") and "." in run["optimizer"]["name"])
        self.assertIn("none of torch.optim's", self.no_program(run))

    def test_another_default_dtype(self):
        self.addCleanup(torch.set_default_dtype, torch.get_default_dtype())
        torch.set_default_dtype(torch.float64)
        model = net()
        optimizer = torch.optim.Adam(model.parameters())
        _, run, _ = self.record(model, lambda rec: self.step(rec, model, optimizer), optimizer=optimizer)
        self.assertIn("torch's default dtype is torch.float64", self.no_program(run))

    def test_a_group_that_is_added_to_the_optimizer(self):
        model = net()
        optimizer = torch.optim.SGD(model[2].parameters(), 0.1)

        def loop(rec):
            self.step(rec, model, optimizer)
            optimizer.add_param_group({"params": model[0].parameters(), "lr": 0.01})
            self.step(rec, model, optimizer)

        _, run, _ = self.record(model, loop, optimizer=optimizer)
        self.assertIn("a group of parameters was added to the optimizer before its step in step 2", self.no_program(run))

    def test_modules_within_a_compiled_one(self):
        for model, names in (
            (torch.compile(net(), backend="eager"), ["_orig_mod", "_orig_mod.0", "_orig_mod.1", "_orig_mod.2"]),
            (nn.Sequential(net(), nn.Tanh()), ["0", "0.0", "0.1", "0.2"]),
        ):
            if names[0] == "0":
                model[0].compile(backend="eager")
            _, run, _ = self.record(model, lambda rec: rec.forward(torch.randn(5, 4)))
            why = "it is within a compiled module, of which no hook sees the calls"
            self.assertEqual([line for line in run["not_recorded"] if why in line], [f"{name}: {why}" for name in names])

    def test_operators_of_inputs_with_gaps_in_memory(self):
        for given in (torch.randn(4, 10).t()[::2], torch.randn(1, 4).expand(5, 4), torch.randn(5, 12)[:, ::3]):
            copy = copied_with_strides(given)
            self.assertEqual((copy.stride(), bits(copy)), (given.stride(), bits(given)))
            self.assertNotEqual(copy.data_ptr(), given.data_ptr())

    def test_a_factor_of_zero_has_the_sign_of_the_gradients(self):
        model = net()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        clear = lambda: [p.grad.zero_() for p in model.parameters()]
        tensors, _, _ = self.record(model, lambda rec: self.step(rec, model, optimizer, clear), optimizer=optimizer, keep="digests")
        self.assertNotIn("taken/[factor]", tensors)
        self.assertIn("taken/0.weight", tensors)

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

        def named(method, *given):
            def loop(rec):
                with rec.watch():
                    getattr(rec, method)(*given)

            return lambda: self.record(model, loop)

        one, schedule = torch.ones(()), torch.optim.lr_scheduler.StepLR(optimizer, 1)
        for error, says, what in (
            (TypeError, "model is a list, and has to be a torch.nn.Module", lambda: Recorder(self.path, [model])),
            (ValueError, "dynamic_shapes has 'y', and forward takes input", lambda: Recorder(self.path, model, dynamic_shapes={"y": None})),
            (TypeError, "dynamic_shapes is 3", lambda: Recorder(self.path, model, dynamic_shapes=3)),
            (TypeError, "path is None, and has to be the name", lambda: Recorder(None, model)),
            (ValueError, "the name of the file is empty", lambda: Recorder("", model)),
            (ValueError, "is a folder: give the name of a file", lambda: Recorder(self.path.parent, model)),
            (TypeError, "initial is 3, and has to be the name", lambda: Recorder(self.path, model, initial=3)),
            (TypeError, "give the optimizer that it schedules", lambda: Recorder(self.path, model, optimizer=schedule)),
            (TypeError, "or a dict of several by name", lambda: Recorder(self.path, model, optimizer=[optimizer])),
            (TypeError, "the name of a loss is 3", named("loss", one, 3)),
            (TypeError, "the name of an input is 3", named("input", 3, one)),
            (TypeError, r"but one of shape \[2\]: give what backward", named("loss", torch.ones(2))),
            (RuntimeError, "and not its forward", lambda: self.record(model, lambda rec: None)),
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

"""What the recorder records of any loop is what plain autograd gives in a second run of the same loop.

Each loop is written once, and is run twice from the same seed: with a recorder, and with one that does nothing. In the
second run the values come from plain PyTorch: hooks that only keep what a module returned, `torch.autograd.grad` or
`.grad`, and the tensors of the model and the optimizer.
"""

import contextlib
import copy
import functools
import io
import json
import struct
import sys
import tempfile
import unittest
from pathlib import Path

import torch
from tch_parity import Recorder, compute_with
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

compute_with("portable")


class Plain:
    """Stands in for a recorder, and keeps what it names by PyTorch's own means."""

    def __init__(self, model, optimizers):
        self.model, self.optimizers = model, optimizers
        self.kept = {}
        self.step = 0
        for module in model.modules():
            module.register_forward_pre_hook(lambda *_: self.first_call())

    def first_call(self):
        if self.generator is None:
            self.generator = torch.get_rng_state()

    @contextlib.contextmanager
    def watch(self):
        self.step += 1
        self.prefix = "" if self.step == 1 else f"step/{self.step}/"
        self.generator = None
        self.outputs = []  # each with its name, and its version when the module returned it
        yield
        for name, tensor, version in self.outputs:
            if tensor.grad is not None and tensor._version == version and not tensor.grad.is_sparse:
                self.kept[f"{self.prefix}grad/{name}"] = tensor.grad.clone()
        if not torch.equal(self.generator, torch.get_rng_state()):
            self.kept[f"{self.prefix}rng"] = self.generator
        for name, tensor in [*self.model.named_parameters(), *self.model.named_buffers()]:
            self.kept[f"step/{self.step}/{escaped(name)}"] = tensor.detach().clone()
        names = {p: name for name, p in self.model.named_parameters()}
        for optimizer in self.optimizers:
            for p, state in optimizer.state.items():
                for key, value in state.items():
                    if isinstance(value, torch.Tensor):
                        self.kept[f"step/{self.step}/state/{key}/{escaped(names[p])}"] = value.clone()

    def loss(self, loss, name=None):
        suffix = "" if name is None else f"[{name}]"
        self.kept[f"{self.prefix}forward/L{suffix}"] = loss.detach().clone()
        return loss


def read(path):
    """The tensors of a safetensors file, and the crate's metadata."""
    data = Path(path).read_bytes()
    size = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + size])
    about = json.loads(header.pop("__metadata__")["tch-parity"])
    dtypes = {
        "F32": torch.float32, "F64": torch.float64, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
        "I32": torch.int32, "U8": torch.uint8, "BOOL": torch.bool, "C64": torch.complex64, "I8": torch.int8,
    }
    tensors = {}
    for name, entry in header.items():
        start, end = (8 + size + offset for offset in entry["data_offsets"])
        raw = bytearray(data[start:end])
        flat = torch.frombuffer(raw, dtype=dtypes[entry["dtype"]]) if raw else torch.empty(0, dtype=dtypes[entry["dtype"]])
        tensors[name] = flat.reshape(entry["shape"])
    return tensors, about


def bits(tensor):
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return (tensor.dtype, tuple(tensor.shape), tensor.reshape(-1).view(torch.uint8).tolist() if tensor.numel() else [])


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.relu, self.down = nn.ReLU(inplace=True), nn.Conv2d(3, 4, 1)

    def forward(self, x):
        y = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        y += self.down(x)
        return self.relu(y).mean((2, 3))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, x):
        return self.head(self.embed(x).tanh())


class Looped(nn.Module):
    def __init__(self, how=lambda f, x: f(x)):
        super().__init__()
        self.cell, self.out = nn.Linear(4, 4), nn.Linear(4, 2)
        self.how = how

    def forward(self, x):
        for _ in range(3):
            x = self.how(lambda x: torch.tanh(self.cell(x)), x)
        return self.out(x)


class Recurrent(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.rnn, self.fc = kind(4, 5, num_layers=2, batch_first=True), nn.Linear(5, 2)

    def forward(self, x):
        return self.fc(self.rnn(x)[0][:, -1])


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention, self.norm, self.fc = nn.MultiheadAttention(8, 2, batch_first=True), nn.LayerNorm(8), nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.norm(x + self.attention(x, x, x, need_weights=False)[0]).mean(1))


class Written(nn.Module):
    """Writes into a view of what a module returned."""

    def __init__(self):
        super().__init__()
        self.fc, self.out = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        y = self.fc(x) * 2
        y[:, 0] = 0
        return self.out(y)


class Named(nn.Module):
    """Has modules, a parameter and an argument with the format's own words."""

    def __init__(self):
        super().__init__()
        self.output, self.input, self.forward_ = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.L = nn.Parameter(torch.ones(4))
        self.odd = nn.ModuleDict({"a@2": nn.Linear(4, 2), "b[0]": nn.Linear(4, 2), "c/d": nn.Linear(4, 2), "e%2F": nn.Linear(4, 2)})

    def forward(self, target):
        x = self.forward_(self.input(self.output(target))) * self.L
        return sum(module(x) for module in self.odd.values())


def scalar(output):
    """A loss of any output."""
    if isinstance(output, torch.Tensor):
        output = torch.view_as_real(output) if output.is_complex() else output
        return output.float().square().mean() if output.dtype != torch.float64 else output.square().mean()
    values = output.values() if isinstance(output, dict) else output if isinstance(output, (tuple, list)) else vars(output).values()
    return sum(scalar(part) for part in values if part is not None)


def sgd(model):
    return torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)


def simple(model, inputs, optimizer=sgd, around=contextlib.nullcontext):
    """A loop of two steps over inputs that are drawn before it."""

    def loop(begin):
        made = model()
        used = optimizer(made)
        batches = [inputs() for _ in range(2)]
        with begin(made, [used]) as (rec, plain):
            for batch in batches:
                with rec.watch():
                    used.zero_grad()
                    with around():
                        loss = rec.loss(scalar(made(batch)))
                    loss.backward()
                    plain()
                    used.step()

    return loop


def randn(*shape):
    return lambda: torch.randn(*shape)


def tokens(*shape):
    return lambda: torch.randint(7, shape)


def clipped(begin):
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 5)
    batches = [torch.randn(6, 4) for _ in range(3)]
    with begin(model, [optimizer]) as (rec, plain):
        for x in batches:
            with rec.watch():
                optimizer.zero_grad()
                rec.loss(scalar(model(x))).backward()
                plain()
                nn.utils.clip_grad_norm_(model.parameters(), 0.1)
                optimizer.step()
                schedule.step()


def drawn_within(begin):
    """The loop draws its batch in the step, before the model draws in its dropout, and between two parts of it."""
    model = nn.ModuleDict({"encoder": nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.3)), "head": nn.Linear(8, 2)})
    optimizer = sgd(model)
    with begin(model, [optimizer]) as (rec, plain):
        for _ in range(2):
            with rec.watch():
                x = torch.randn(6, 4)
                optimizer.zero_grad()
                hidden = model.encoder(x)
                rec.loss(scalar(model.head(hidden + torch.rand(8)))).backward()
                plain()
                optimizer.step()


def accumulated(begin):
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    optimizer = sgd(model)
    with begin(model, [optimizer]) as (rec, plain):
        for _ in range(2):
            with rec.watch():
                optimizer.zero_grad()
                for x in torch.ones(3, 5, 4).unbind():
                    loss = scalar(model(x)) / 3
                    loss.backward()
                rec.loss(loss)
                plain()
                optimizer.step()


def adversarial(begin):
    class Gan(nn.Module):
        def __init__(self):
            super().__init__()
            self.g, self.d = nn.Linear(3, 4), nn.Linear(4, 1)

        def forward(self, x, real):
            return self.d(self.g(x)) if real is None else self.d(real)

    model = Gan()
    optimizers = [torch.optim.Adam(model.g.parameters(), 0.01), sgd(model.d)]
    noise, real = torch.randn(6, 3), torch.randn(6, 4)
    with begin(model, optimizers) as (rec, plain):
        for _ in range(2):
            with rec.watch():
                optimizers[1].zero_grad()
                rec.loss(scalar(model(noise, real)) - scalar(model(noise, None)), "d").backward()
                optimizers[1].step()
                optimizers[0].zero_grad()
                model.d.zero_grad()
                rec.loss(scalar(model(noise, None)), "g").backward()
                plain()
                optimizers[0].step()


def closure(begin):
    model = nn.Linear(3, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), 0.1, max_iter=3)
    x = torch.randn(6, 3)
    with begin(model, [optimizer]) as (rec, plain):
        for _ in range(2):
            with rec.watch():
                def evaluate():
                    optimizer.zero_grad()
                    loss = scalar(model(x) - 1)
                    loss.backward()
                    plain()
                    return loss

                rec.loss(optimizer.step(evaluate))


def frozen(model):
    model[0].requires_grad_(False)
    return model


def partly_without_graph():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x):
            with torch.no_grad():
                x = self.a(x)
            return self.b(x)

    return Net()


def of(*modules):
    return lambda: copy.deepcopy(nn.Sequential(*modules))


def parametrized():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    nn.utils.parametrizations.weight_norm(module[0])
    nn.utils.parametrizations.spectral_norm(module[1])
    return module


def pruned():
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    prune.l1_unstructured(module[0], "weight", amount=0.5)
    return module


def with_loss(kind, targets):
    """A model that has its loss, a module of its own, within."""
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc, self.criterion = nn.Linear(4, 3), kind()

        def forward(self, x):
            return self.criterion(self.fc(x), targets)

    return Net


def outputs_of(make):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        def forward(self, x):
            return make(self.fc(x))

    return Net


class Result:
    def __init__(self, logits, nothing=None):
        self.logits, self.nothing = logits, nothing


conv = of(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten())
LOOPS = {
    **{
        f"{kind.__name__}": simple(of(nn.Linear(4, 4), kind(), nn.Linear(4, 2)), randn(5, 4))
        for kind in (
            nn.ReLU, nn.ReLU6, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Sigmoid, nn.Tanh, nn.Softplus,
            nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LeakyReLU, nn.PReLU, nn.LogSigmoid, nn.Identity,
            nn.Dropout, nn.AlphaDropout,
        )
    },
    **{
        f"{kind.__name__} in place": simple(of(nn.Linear(4, 4), kind(inplace=True), nn.Linear(4, 2)), randn(5, 4))
        for kind in (nn.ReLU, nn.ELU, nn.SiLU, nn.LeakyReLU, nn.Hardtanh, nn.Dropout, nn.Mish)
    },
    **{
        f"{kind.__name__}": simple(lambda kind=kind: Recurrent(kind), randn(3, 5, 4)) for kind in (nn.RNN, nn.LSTM, nn.GRU)
    },
    "conv1d": simple(of(nn.Conv1d(2, 3, 3), nn.MaxPool1d(2), nn.Flatten()), randn(2, 2, 8)),
    "conv2d": simple(conv, randn(2, 3, 6, 6)),
    "conv3d": simple(of(nn.Conv3d(1, 2, 2), nn.AvgPool3d(2), nn.Flatten()), randn(2, 1, 5, 5, 5)),
    "transposed convolution": simple(of(nn.ConvTranspose2d(2, 3, 3), nn.AdaptiveAvgPool2d(2)), randn(2, 2, 4, 4)),
    "channels_last": simple(lambda: conv().to(memory_format=torch.channels_last), randn(2, 3, 6, 6)),
    "permuted input": simple(conv, lambda: torch.randn(2, 6, 6, 3).permute(0, 3, 1, 2)),
    "batch norm": simple(of(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)), randn(6, 4)),
    "instance and group norm": simple(of(nn.InstanceNorm2d(4, affine=True), nn.GroupNorm(2, 4)), randn(2, 4, 3, 3)),
    "layer and rms norm": simple(of(nn.LayerNorm(4), nn.RMSNorm(4), nn.Linear(4, 2)), randn(5, 4)),
    "local response norm": simple(of(nn.Conv2d(3, 4, 3), nn.LocalResponseNorm(2)), randn(2, 3, 5, 5)),
    "upsample and pixel shuffle": simple(of(nn.Conv2d(3, 4, 1), nn.PixelShuffle(2), nn.Upsample(scale_factor=2)), randn(1, 3, 3, 3)),
    "residual in place": simple(Residual, randn(4, 3, 5, 5)),
    "tied weights": simple(Tied, tokens(3, 4)),
    "sparse embedding": simple(of(nn.Embedding(7, 4, sparse=True)), tokens(3, 4), lambda m: torch.optim.SGD(m.parameters(), 0.1)),
    "embedding bag": simple(of(nn.EmbeddingBag(7, 4), nn.Linear(4, 2)), tokens(3, 4)),
    "a module in a loop": simple(Looped, randn(3, 4)),
    "reentrant checkpoint": simple(lambda: Looped(lambda f, x: checkpoint(f, x, use_reentrant=True)), lambda: torch.randn(3, 4).requires_grad_()),
    "other checkpoint": simple(lambda: Looped(lambda f, x: checkpoint(f, x, use_reentrant=False)), randn(3, 4)),
    "attention": simple(Attention, randn(2, 3, 8)),
    "encoder layer": simple(of(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)), randn(2, 3, 8)),
    "decoder-like cross attention": simple(lambda: Attention(), randn(3, 4, 8)),
    "a module under two names": simple(lambda: (lambda fc: nn.Sequential(fc, nn.Tanh(), fc))(nn.Linear(4, 4)), randn(3, 4)),
    **{
        f"{kind.__name__} within the model": simple(with_loss(kind, targets), randn(2, 4))
        for kind, targets in (
            (nn.CrossEntropyLoss, torch.tensor([2, 0])), (nn.MSELoss, torch.ones(2, 3)), (nn.L1Loss, torch.ones(2, 3)),
            (nn.SmoothL1Loss, torch.ones(2, 3)), (nn.HuberLoss, torch.ones(2, 3)), (nn.BCEWithLogitsLoss, torch.ones(2, 3)),
            (nn.KLDivLoss, torch.full((2, 3), 0.5)), (nn.PoissonNLLLoss, torch.ones(2, 3)),
            (nn.SoftMarginLoss, torch.ones(2, 3)), (nn.MultiMarginLoss, torch.tensor([2, 0])),
            (nn.MultiLabelMarginLoss, torch.tensor([[2, 0, -1], [1, -1, 0]])), (nn.MultiLabelSoftMarginLoss, torch.ones(2, 3)),
            (nn.HingeEmbeddingLoss, torch.ones(2, 3)),
        )
    },
    "unfold and fold": simple(of(nn.Conv2d(1, 2, 3), nn.Unfold(2, stride=2), nn.Fold((4, 4), 2, stride=2)), randn(2, 1, 6, 6)),
    "pruning": simple(pruned, randn(5, 4)),
    "parametrizations": simple(parametrized, randn(5, 4)),
    "frozen parts": simple(lambda: frozen(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))), randn(3, 4)),
    "parts without a graph": simple(partly_without_graph, randn(3, 4)),
    "writes into a view": simple(Written, randn(3, 4)),
    "the format's words": simple(Named, randn(3, 4)),
    "float64": simple(lambda: nn.Linear(4, 2).double(), lambda: torch.randn(3, 4).double()),
    "bfloat16": simple(lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).bfloat16(), lambda: torch.randn(3, 4).bfloat16()),
    "float16": simple(lambda: nn.Linear(4, 2).half(), lambda: torch.randn(3, 4).half()),
    "autocast": simple(of(nn.Linear(4, 4), nn.Linear(4, 2)), randn(3, 4), around=lambda: torch.autocast("cpu", torch.bfloat16)),
    "complex64": simple(lambda: nn.Linear(4, 2).to(torch.complex64), lambda: torch.randn(3, 4, dtype=torch.complex64), lambda m: torch.optim.SGD(m.parameters(), 0.1)),
    "a tuple": simple(outputs_of(lambda y: (y, y * 2, None)), randn(3, 4)),
    "a dict": simple(outputs_of(lambda y: {"logits": y, "more": [y * 3]}), randn(3, 4)),
    "an object": simple(outputs_of(Result), randn(3, 4)),
    "a leaf input": simple(of(nn.Linear(4, 2)), lambda: torch.randn(3, 4).requires_grad_()),
    "Adam": simple(of(nn.Linear(4, 2)), randn(3, 4), lambda m: torch.optim.Adam(m.parameters(), amsgrad=True)),
    "RMSprop": simple(of(nn.Linear(4, 2)), randn(3, 4), lambda m: torch.optim.RMSprop(m.parameters(), momentum=0.5)),
    "groups": simple(
        of(nn.Linear(4, 4), nn.Linear(4, 2)), randn(3, 4),
        lambda m: torch.optim.SGD([{"params": m[0].parameters(), "lr": 0.5}, {"params": m[1].parameters()}], 0.1),
    ),
    "clipping and a schedule": clipped,
    "a batch that is drawn in the step": drawn_within,
    "accumulation": accumulated,
    "a generator and a discriminator": adversarial,
    "a closure": closure,
}


def escaped(name):
    """The names of the format, as its description says."""
    name = "".join(f"%{ord(c):02X}" if c in "/@[]%" else c for c in name)
    return f".{name}" if name in ("output", "L") else name


class EveryLoop(unittest.TestCase):
    def recorded(self, loop, folder):
        path = Path(folder) / "case.safetensors"

        @contextlib.contextmanager
        def begin(model, optimizers):
            given = optimizers[0] if len(optimizers) == 1 else dict(zip("ab", optimizers))
            with Recorder(path, model, optimizer=given) as rec:
                yield rec, lambda: None

        torch.manual_seed(0)
        loop(begin)
        generator = torch.get_rng_state()
        tensors, about = read(path)
        return tensors, about, generator

    def plain(self, loop):
        """The same loop without a recorder: all outputs by hooks that keep them, and their gradients by others."""
        kept = {}

        @contextlib.contextmanager
        def begin(model, optimizers):
            rec = Plain(model, optimizers)
            for name, p in model.named_parameters():
                kept[f"param/{escaped(name)}"] = p.detach().clone()
            calls, handles = {}, []

            def leaves(name, value):
                if isinstance(value, (tuple, list)):
                    for i, part in enumerate(value):
                        yield from leaves(f"{name}[{i}]", part)
                elif isinstance(value, dict) or isinstance(value, Result):
                    for key, part in (value if isinstance(value, dict) else vars(value)).items():
                        yield from leaves(f"{name}[{key}]", part)
                elif isinstance(value, torch.Tensor):
                    yield name, value

            def keep(name):
                def hook(module, args, output):
                    if torch._C._current_graph_task_id() != -1:
                        return None
                    key = (rec.step, name)
                    calls[key] = calls.get(key, 0) + 1
                    for path, tensor in leaves(name if calls[key] == 1 else f"{name}@{calls[key]}", output):
                        kept[f"{rec.prefix}forward/{path}"] = tensor.detach().clone()
                        if tensor.requires_grad and not tensor.is_leaf:
                            tensor.retain_grad()
                            rec.outputs.append((path, tensor, tensor._version))

                return hook

            for name, module in model.named_modules():
                handles.append(module.register_forward_hook(keep(escaped(name) if name else "output")))

            def gradients():
                for name, p in model.named_parameters():
                    if p.grad is not None and not p.grad.is_sparse:
                        kept[f"{rec.prefix}grad/{escaped(name)}"] = p.grad.clone()

            yield rec, gradients
            for handle in handles:
                handle.remove()
            kept.update(rec.kept)

        torch.manual_seed(0)
        loop(begin)
        return kept, torch.get_rng_state()

    def test_every_value_is_that_of_plain_autograd(self):
        self.assertGreaterEqual(len(LOOPS), 60)
        for name, loop in LOOPS.items():
            with self.subTest(name), tempfile.TemporaryDirectory() as folder:
                tensors, about, generator = self.recorded(loop, folder)
                kept, plain_generator = self.plain(loop)
                self.assertEqual(bits(generator), bits(plain_generator), "recording draws no random numbers")
                for key, value in kept.items():
                    self.assertIn(key, tensors)
                    self.assertEqual(bits(tensors[key]), bits(value), key)
                others = {key for key in tensors if key not in kept}
                rest = ("input/", "buffer/", "grad/", "taken/", "state/")
                unknown = [key for key in others if not key.removeprefix("step/").lstrip("0123456789/").startswith(rest)]
                self.assertEqual([key for key in unknown if not key.startswith("program/") and not key.endswith("/L") and "/L[" not in key], [])
                reasons = [line for line in about["run"].get("not_recorded", []) if "backward computed none" not in line]
                self.assertEqual([line for line in reasons if "the loop does not name" not in line and not line.startswith("program: ")], [])


class GradientsOfOutputs(unittest.TestCase):
    def test_they_are_those_of_values_that_are_computed_out_of_place(self):
        class Block(nn.Module):
            def __init__(self, inplace):
                super().__init__()
                self.fc1, self.act, self.fc2 = nn.Linear(4, 4), nn.ReLU(inplace), nn.Linear(4, 4)
                self.last = nn.ReLU(inplace)

            def forward(self, x):
                y = self.fc2(self.act(self.fc1(x)))
                if self.act.inplace:
                    y += x
                else:
                    y = y + x
                return self.last(y)

        found = []
        for inplace in (False, True):
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "case.safetensors"
                torch.manual_seed(0)
                model = Block(inplace)
                x = torch.randn(5, 4)
                with Recorder(path, model, loss=nn.MSELoss()) as rec:
                    rec.step(x, torch.zeros(5, 4))
                found.append(read(path)[0])
        names = [f"grad/{name}" for name in ("fc1", "act", "fc2", "last", "output", "fc1.weight")]
        for name in names:
            self.assertEqual(bits(found[0][name]), bits(found[1][name]), name)

    def test_they_are_what_autograd_says(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 1))
        x = torch.randn(5, 4)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "case.safetensors"
            with Recorder(path, model) as rec, rec.watch():
                rec.loss(model(x).square().mean()).backward()
            recorded = read(path)[0]
        h = model[0](x)
        t = model[1](h)
        z = model[2](t)
        gradients = torch.autograd.grad(z.square().mean(), (h, t, z))
        for name, gradient in zip("012", gradients):
            self.assertEqual(bits(recorded[f"grad/{name}"]), bits(gradient))


class Programs(unittest.TestCase):
    def recorded(self, model, loop, **kwargs):
        """The tensors of a recording, and its run."""
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            path = Path(folder) / "case.safetensors"
            with Recorder(path, model, **kwargs) as rec:
                loop(rec)
            tensors, about = read(path)[:2]
        return tensors, about["run"] if "run" in about else about

    def test_the_program_is_that_of_the_first_call(self):
        model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.ReLU())
        tensors, run = self.recorded(model, lambda rec: [rec.forward(torch.ones(2, 4)) for _ in range(2)])
        self.assertIn("program/graph", tensors)
        program = run["program"]
        self.assertEqual(program["inputs"], ["input/input"])
        self.assertEqual(program["values"]["forward/0"], ["0", "linear"])
        self.assertEqual(program["values"]["forward/output"], ["", "relu"])

    def test_calls_of_another_mode_have_a_program_of_their_own(self):
        def in_another_mode(rec):
            rec.forward(torch.ones(2, 4))
            rec.model.eval()
            rec.forward(torch.ones(2, 4))

        tensors, run = self.recorded(nn.Dropout(0.5), in_another_mode)
        self.assertIn("program/2/graph", tensors)
        self.assertEqual(run["program"]["calls"], {"1": [0], "2": [1]})
        self.assertEqual(len(run["program"]["more"]), 1)

    def test_calls_in_another_state_of_autocast_have_a_program_of_their_own(self):
        low = functools.partial(torch.autocast, "cpu", torch.bfloat16)

        def loop(rec):
            rec.forward(torch.ones(2, 4))
            with low():
                rec.forward(torch.ones(2, 4))
                rec.forward(torch.ones(2, 4))
            with low(cache_enabled=False):
                rec.forward(torch.ones(2, 4))
            with low(), rec.watch():
                rec.model(torch.ones(2, 4)).float().sum().backward()
                rec.model(torch.ones(2, 4)).float().sum().backward()
            with rec.watch():
                for _ in range(2):
                    with low():
                        y = rec.model(torch.ones(2, 4))
                    y.float().sum().backward()

        program = self.recorded(nn.Linear(4, 1), loop)[1]["program"]
        states = [one.get("autocast") for one in (program, *program["more"])]
        dtypes = {"cpu": "bfloat16"}
        self.assertEqual(states, [None, {"dtypes": dtypes, "cache": True}, {"dtypes": dtypes, "cache": False}])
        self.assertEqual(program["calls"], {"1": [0], "2": [1], "3": [1], "4": [2], "5": [1, 1], "6": [1, 1]})
        self.assertEqual(program["in_one_autocast"], {"5": [2]})
        self.assertEqual(program["backwards_in_autocast"], {"5": [states[1]] * 2})

    def test_autocast_of_a_part_of_a_model_keeps_casted_weights_where_the_model_does(self):
        class Part(nn.Linear):
            def forward(self, x):
                with torch.autocast("cpu", torch.bfloat16):
                    return super().forward(super().forward(x))

        for cache in (True, False):
            torch.set_autocast_cache_enabled(cache)
            try:
                tensors, run = self.recorded(Part(4, 4), lambda rec: rec.forward(torch.ones(2, 4)))
            finally:
                torch.set_autocast_cache_enabled(True)
            graph = json.loads(bytes(tensors["program/graph"].tolist()))
            node, = (n for n in graph["graph_module"]["graph"]["nodes"] if n["target"].endswith("wrap_with_autocast"))
            given = [list(i["arg"].values())[0] for i in node["inputs"][:4]]
            self.assertEqual(given, ["cpu", 13, True, cache])
            self.assertNotIn("autocast", run["program"])

    def test_what_autocast_keeps_is_as_without_the_recorder(self):
        model, x = nn.Linear(4, 4), torch.ones(2, 4)

        def gradient(forward):
            model.zero_grad()
            with torch.autocast("cpu", torch.bfloat16):
                y = forward(x)
                with torch.no_grad():
                    model.weight.mul_(2)  # the casted weight stays as it is
                y = y + forward(x)
                self.assertEqual(torch.autocast_increment_nesting(), 2)
                torch.autocast_decrement_nesting()
            y.float().sum().backward()
            with torch.no_grad():
                model.weight.mul_(0.5)
            return model.weight.grad.clone(), y

        plain = gradient(model)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            with Recorder(Path(folder) / "case", model, operators=True) as rec, rec.watch():
                recorded = gradient(model)
        for one, other in zip(plain, recorded):
            self.assertTrue(torch.equal(one, other))

    def test_what_a_program_does_not_hold_is_not_in_the_file(self):
        low = functools.partial(torch.autocast, "cpu", torch.bfloat16)

        class Part(nn.Linear):
            def __init__(self, **options):
                super().__init__(4, 4)
                self.options = options

            def forward(self, x):
                with low(**self.options):
                    return super().forward(x)

        def within_one_autocast(rec):
            optimizer = torch.optim.SGD(rec.model.parameters(), 0.1)
            with low():
                for _ in range(2):
                    with rec.watch():
                        rec.model(torch.ones(2, 4)).float().sum().backward()
                        optimizer.step()

        def without_autocast(rec):
            with low(enabled=False):
                rec.forward(torch.ones(2, 4))

        class Branch(nn.Module):
            def forward(self, x):
                return x if x.sum() > 0 else -x

        def of_many_sizes(rec):
            for rows in range(17):
                rec.forward(torch.ones(rows + 2, 4))

        def once(rec):
            rec.forward(torch.ones(2, 4))

        for model, loop, says in [
            (nn.Linear(4, 1), within_one_autocast, "weight was written to"),
            (Part(cache_enabled=False), once, "cache_enabled=False"),
            (Part(), without_autocast, "where the loop has switched it off"),
            (nn.Identity(), of_many_sizes, "more than 16 ways"),
            (Branch(), once, "torch.export: "),
        ]:
            tensors, run = self.recorded(model, loop)
            self.assertNotIn("program/graph", tensors)
            self.assertNotIn("program", run)
            reasons = [line for line in run["not_recorded"] if line.startswith("program: ")]
            self.assertEqual(len(reasons), 1)
            self.assertIn(says, reasons[0])
        self.assertNotIn("program/graph", self.recorded(nn.Linear(4, 1), once, program=False)[0])

    def test_exporting_changes_nothing(self):
        class Counter(nn.Module):
            def __init__(self):
                super().__init__()
                self.calls, self.last = 0, None
                self.norm = nn.BatchNorm1d(4)

            def forward(self, x):
                self.calls += 1
                self.last = torch.rand_like(x) + self.norm(x)
                return self.last

        model = Counter()
        torch.manual_seed(0)
        self.recorded(model, lambda rec: rec.forward(torch.ones(2, 4)))
        drawn = torch.rand(1)
        self.assertEqual((model.calls, type(model.last)), (1, torch.Tensor))
        self.assertEqual(model.norm.num_batches_tracked.item(), 1)
        torch.manual_seed(0)
        Counter()(torch.ones(2, 4))
        self.assertEqual(drawn, torch.rand(1))


class WhatIsSaid(unittest.TestCase):
    def record(self, folder, loop, model=None, **kwargs):
        path = Path(folder) / "case.safetensors"
        model = model or nn.Linear(2, 1)
        with Recorder(path, model, **kwargs) as rec:
            loop(rec, model)
        return read(path)

    def test_a_schedule_groups_and_clipping_are_in_the_file(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
        groups = [{"params": model[0].parameters(), "lr": 0.5}, {"params": model[1].parameters()}]
        optimizer = torch.optim.SGD(groups, 0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

        def loop(rec, model):
            for _ in range(2):
                with rec.watch():
                    optimizer.zero_grad()
                    rec.loss(scalar(model(torch.ones(3, 2)))).backward()
                    nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
                    optimizer.step()
                    schedule.step()

        with tempfile.TemporaryDirectory() as folder:
            tensors, about = self.record(folder, loop, model, optimizer=optimizer)
        said = about["run"]["optimizer"]
        self.assertEqual((said["name"], said["lr"]), ("SGD", 0.5))
        self.assertEqual(said["groups"][0], {"parameters": ["0.weight", "0.bias"]})
        self.assertEqual(said["groups"][1], {"parameters": ["1.weight", "1.bias"], "lr": 0.1, "initial_lr": 0.1})
        self.assertEqual(said["changes"], [{"step": 2, "group": 0, "lr": 0.25}, {"step": 2, "group": 1, "lr": 0.05}])
        self.assertLess(tensors["taken/0.weight"].norm(), tensors["grad/0.weight"].norm())
        self.assertEqual(bits(tensors["taken/0.weight"]), bits(tensors["step/1/state/momentum_buffer/0.weight"]))

    def test_a_gradient_that_was_taken_before_another_backward_pass_added_to_it(self):
        model = nn.Linear(2, 1, bias=False)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)

        def loop(rec, model):
            with rec.watch():
                rec.loss(model(torch.ones(1, 2)).sum(), "first").backward()
                optimizer.step()
                rec.loss(model(torch.ones(1, 2)).sum(), "second").backward()
            with rec.watch():  # a closure computes what its optimizer takes
                optimizer.step(lambda: (optimizer.zero_grad(), rec.loss(model(torch.ones(1, 2)).sum()).backward()))

        with tempfile.TemporaryDirectory() as folder:
            tensors, _ = self.record(folder, loop, model, optimizer=optimizer, program=False)
        self.assertEqual(tensors["taken/weight"].tolist(), [[1.0, 1.0]])
        self.assertEqual(tensors["grad/weight"].tolist(), [[2.0, 2.0]])
        self.assertEqual(tensors["step/2/grad/weight"].tolist(), [[1.0, 1.0]])
        self.assertNotIn("step/2/taken/weight", tensors)

    def test_values_that_are_no_tensors_are_kept(self):
        class Net(nn.Module):
            def forward(self, x, scale, mode=None, limits=(1, float("inf"))):
                return {"y": x * scale, "mode": mode, "count": 3}

        with tempfile.TemporaryDirectory() as folder:
            _, about = self.record(folder, lambda rec, model: rec.forward(torch.ones(2), 3.0, limits=(1, float("inf"))), Net())
        expected = {
            "input/scale": 3.0, "input/limits[0]": 1, "input/limits[1]": "Infinity",
            "forward/output[mode]": None, "forward/output[count]": 3,
        }
        self.assertEqual(about["run"]["values"], expected)
        unnamed = "the loop does not name it: rec.loss(loss)"
        self.assertEqual(about["run"]["not_recorded"], [f"forward/L: {unnamed}", f"step/L: {unnamed}"])

    def test_an_optimizer_that_has_a_state_already(self):
        model = nn.Linear(2, 1)
        optimizer = sgd(model)
        scalar(model(torch.ones(1, 2))).backward()
        optimizer.step()
        before = copy.deepcopy(optimizer.state[model.weight]["momentum_buffer"])

        with tempfile.TemporaryDirectory() as folder:
            tensors, _ = self.record(folder, lambda rec, model: rec.forward(torch.ones(1, 2)), model, optimizer=optimizer)
        self.assertEqual(bits(tensors["state/momentum_buffer/weight"]), bits(before))

    def test_what_goes_into_parts_that_the_loop_calls_itself(self):
        model = nn.ModuleDict({"generator": nn.Linear(2, 2), "discriminator": nn.Linear(2, 1)})

        def loop(rec, model):
            with rec.watch():
                scalar(model.discriminator(torch.ones(1, 2))).backward()
                rec.loss(scalar(model.discriminator(model.generator(torch.zeros(1, 2))))).backward()

        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()) as said:
            tensors, _ = self.record(folder, loop, model)
        self.assertEqual(tensors["input/discriminator.input"].tolist(), [[1.0, 1.0]])
        self.assertEqual(tensors["input/generator.input"].tolist(), [[0.0, 0.0]])
        self.assertEqual(bits(tensors["input/discriminator.input@2"]), bits(tensors["forward/generator"]))
        why = "the loop calls parts of the model, and never the model itself: its forward() is not seen when it is called alone"
        self.assertEqual(said.getvalue(), f"recorder: not recorded: program: {why}\n")

    def test_parameters_that_are_replaced_meanwhile(self):
        model = nn.Linear(2, 1)

        def loop(rec, model):
            with rec.watch():
                rec.loss(scalar(model(torch.ones(1, 2)))).backward()
            model.load_state_dict({"weight": torch.full((1, 2), 5.0), "bias": torch.zeros(1)}, assign=True)
            with rec.watch():
                rec.loss(scalar(model(torch.ones(1, 2)))).backward()

        with tempfile.TemporaryDirectory() as folder:
            tensors, about = self.record(folder, loop, model)
        self.assertEqual(tensors["step/2/weight"].tolist(), [[5.0, 5.0]])
        self.assertEqual(tensors["step/2/grad/weight"].tolist(), [[20.0, 20.0]])
        lacks = ["program: weight was replaced by another tensor before step 2, outside of a recorded step"]
        self.assertEqual(about["run"]["not_recorded"], lacks)

    def test_an_exception_keeps_the_whole_steps_if_asked(self):
        def loop(rec, model):
            rec.forward(torch.ones(1, 2))
            with rec.watch():
                model(torch.ones(1, 2))
                raise KeyError("own")

        with tempfile.TemporaryDirectory() as folder:
            with self.assertRaises(KeyError):
                self.record(folder, loop)
            self.assertEqual(list(Path(folder).iterdir()), [])
            with self.assertRaises(KeyError):
                self.record(folder, loop, on_error="keep")
            tensors, about = read(Path(folder) / "case.safetensors")
        self.assertEqual(about["run"]["steps"], 1)
        self.assertNotIn("step/2/forward/output", tensors)

    def test_what_cannot_be_recorded_is_an_error_at_the_start(self):
        lazy = nn.Sequential(nn.LazyLinear(2))
        for error, says, make in [
            (ValueError, "run the model once", lambda folder: Recorder(folder / "x", lazy)),
            (FileNotFoundError, "no folder", lambda folder: Recorder(folder / "a" / "b", nn.Linear(1, 1))),
            (ValueError, "no regular file", lambda folder: Recorder("/dev/null", nn.Linear(1, 1))),
            (ValueError, "on_error", lambda folder: Recorder(folder / "x", nn.Linear(1, 1), on_error="no")),
            (ValueError, "numerics", lambda folder: compute_with("bitwise")),
        ]:
            with tempfile.TemporaryDirectory() as folder, self.assertRaisesRegex(error, says):
                make(Path(folder))

    def test_a_link_is_followed_and_nothing_else_is_left(self):
        with tempfile.TemporaryDirectory() as folder:
            target, link = Path(folder) / "target", Path(folder) / "case.safetensors"
            target.write_text("old")
            link.symlink_to(target)
            tensors, _ = self.record(folder, lambda rec, model: rec.forward(torch.ones(1, 2)))
            self.assertTrue(link.is_symlink() and target.stat().st_size > 100)
            self.assertEqual(len(list(Path(folder).iterdir())), 2)
            self.assertIn("forward/output", tensors)


if __name__ == "__main__":
    unittest.main(verbosity=1, argv=sys.argv)

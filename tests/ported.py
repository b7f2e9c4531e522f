"""Records the models that tests/ported.rs ports, two steps each, and exports one with a dynamic size.

    ported.py FOLDER
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from tch_parity import Recorder, compute_with

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
from ported_recurrent import RNN, Attention, Modes, States  # noqa: E402
from ported_classes import Classes, chain  # noqa: E402
from ported_refused import Branches, Custom, OtherResults  # noqa: E402
from ported_values import Buffers, Distilled  # noqa: E402
from three_layer_net import ThreeLayerNet  # noqa: E402


def attend(q, k, v, mask):
    scores = (q @ k.transpose(-2, -1)) * k.shape[-1] ** -0.5
    scores = scores.masked_fill(mask == 0, float("-inf"))
    return scores.softmax(-1) @ v


class Block(nn.Module):
    """Attention with a causal mask, and an MLP."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.proj = nn.Linear(width, width, bias=False)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(0.1))

    def forward(self, x, mask):
        b, t, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).split(c, dim=2)
        q = q.view(b, t, self.heads, c // self.heads).transpose(1, 2)
        k = k.view(b, t, self.heads, c // self.heads).transpose(1, 2)
        v = v.view(b, t, self.heads, c // self.heads).transpose(1, 2)
        y = attend(q, k, v, mask)
        y = y.transpose(1, 2).contiguous().view(b, t, c)
        x = x + self.proj(y)
        return x + self.mlp(self.norm2(x))


class Language(nn.Module):
    """Blocks between an embedding and a layer that share one weight."""

    def __init__(self):
        super().__init__()
        self.wte = nn.Embedding(11, 8)
        self.register_buffer("mask", torch.ones(6, 6).tril())
        self.blocks = nn.ModuleList(Block(8, 2) for _ in range(3))
        self.head = nn.Linear(8, 11, bias=False)
        self.head.weight = self.wte.weight

    def forward(self, tokens):
        x = self.wte(tokens)
        for block in self.blocks:
            x = block(x, self.mask)
        return self.head(x)


class AnyLength(nn.Module):
    """Positions and a mask that follow from the length, and a dropout."""

    def __init__(self):
        super().__init__()
        self.wte, self.wpe = nn.Embedding(11, 8), nn.Embedding(16, 8)
        self.drop = nn.Dropout(0.1)
        self.block = Block(8, 2)

    def forward(self, tokens):
        batch, length = tokens.shape
        positions = torch.arange(length, device=tokens.device)
        x = self.drop(self.wte(tokens) + self.wpe(positions)[None])
        mask = torch.ones(length, length).tril()
        return self.block(x, mask).reshape(batch * length, 8)


class Residual(nn.Module):
    """A block with batch norm that works in place, with and without a layer for other sizes."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.down = nn.Conv2d(inputs, outputs, 1, stride) if inputs != outputs else None

    def forward(self, x):
        identity = x if self.down is None else self.down(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += identity
        return self.relu(out)


class Images(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(Residual(3, 4, 1), Residual(4, 4, 1), Residual(4, 6, 2), Residual(6, 6, 1))
        self.fc = nn.Linear(6, 2)

    def forward(self, x):
        x = self.layers(x)
        x = x.mean((2, 3))
        return self.fc(x)


class Several(nn.Module):
    """Two inputs, a part without gradients, constants, an operator of several results, and a dict."""

    def __init__(self):
        super().__init__()
        self.left = nn.Linear(4, 3)
        self.right = nn.Linear(2, 3)
        self.scale = nn.Parameter(torch.tensor(0.5))
        self.table = torch.linspace(0, 1, 300)  # no buffer

    def forward(self, a, b):
        left = self.left(a)
        with torch.no_grad():
            weight = torch.sigmoid(left)
        right = self.right(b) * weight
        q, r = torch.linalg.qr(right)  # which tch does not bind
        right = right + q @ r * self.table[7:10]
        return {"sum": left + right * self.scale, "size": torch.linalg.vector_norm(right, dim=1) + torch.tensor([2.0])}


class Gate(nn.Module):
    """The same in both modes."""

    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(width, width)

    def forward(self, x):
        return x * torch.sigmoid(self.fc(x))


class Cell(nn.Module):
    def __init__(self, width, rate):
        super().__init__()
        self.gate = Gate(width)
        self.norm = nn.BatchNorm1d(width)
        self.drop = nn.Dropout(rate)

    def forward(self, x):
        x = x + self.drop(torch.relu(self.norm(self.gate(x))))
        if self.training:
            x = x + 0.1 * torch.randn_like(x)
        return x


class BothModes(nn.Module):
    """What differs between train() and eval(): layers of torch.nn, a number, and the model's own code."""

    def __init__(self):
        super().__init__()
        self.cells = nn.ModuleList(Cell(6, rate) for rate in (0.1, 0.2))
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        for cell in self.cells:
            x = cell(x)
        y = self.head(x) * (0.5 if self.training else 0.8)
        if not self.training:
            y = y.softmax(-1)
        # tch passes `training` as the argument before it.
        return nn.functional.rrelu(y - 0.2, training=self.training)


class Crossing(nn.Module):
    """What is computed in train() before and after a layer that both modes have."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        if self.training:
            noise = torch.randn_like(x)
        z = self.fc(x)
        if self.training:
            z = z + noise
        return self.out(z)


class ModeConstants(nn.Module):
    """Constants that are the same in both modes, some of them several times, and others that are not."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.table, self.other = torch.linspace(0, 1, 300), torch.linspace(0, 2, 300)  # no buffers

    def forward(self, x):
        x = self.fc(x) * torch.tensor([1.0, 2.0, 3.0, 4.0])
        if self.training:
            x = x + torch.tensor([0.1, 0.2, 0.3, 0.4]) + self.table[4:8]
        else:
            x = x - torch.tensor([0.5, 0.2, 0.3, 0.4]) + self.other[4:8]
        return x * torch.tensor([1.0, 2.0, 3.0, 4.0]) + self.table[:4]


class Maybe(nn.Module):
    """A block with and without a layer of its own."""

    def __init__(self, has_down):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.down = nn.Linear(4, 4) if has_down else None

    def forward(self, x):
        identity = x if self.down is None else self.down(x)
        return identity + torch.tanh(self.fc(x))


class TiedMaybe(nn.Module):
    """The weight of a layer that some blocks do not have is that of another layer."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList(Maybe(has_down) for has_down in (False, True, False))
        self.head = nn.Linear(4, 4, bias=False)
        self.head.weight = self.blocks[1].down.weight

    def forward(self, x):
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Stages(nn.Module):
    """Chains of three lengths: each begins with one block of another class, and has two blocks, three or four."""

    def __init__(self):
        super().__init__()
        chains = ([Maybe(False)] + [Gate(4) for _ in range(length - 1)] for length in (2, 3, 4, 3))
        self.stages = nn.Sequential(*(nn.Sequential(*chain) for chain in chains))

    def forward(self, x):
        return self.stages(x)


class Lib(nn.Module):
    """A class whose file would be that of the crate."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x):
        return nn.functional.threshold(x * self.weight, 0.1, 20)


class Case(nn.Module):
    """Names that mean something else in Rust, and numbers that are nearly known ones."""

    def __init__(self):
        super().__init__()
        self.p = nn.Parameter(torch.ones(4))
        self._p = nn.Parameter(torch.zeros(4))
        self.main = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.lib = Lib()

    def forward(self, x):
        x = self.main(x) * self.p + self._p + torch.tensor([3.14159, 2.71828, 1.0, 0.5]) * 3.14
        return nn.functional.interpolate(self.lib(x)[None, None], size=(5, 7))[0, 0]


class Written(nn.Module):
    """Lines and names that are read with care, and operators of which tch has another method."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(4, 4), nn.Linear(4, 4)
        self.alias = self.encoder
        self.forward_ = nn.Linear(4, 4)
        self.größe = nn.Parameter(torch.ones(4))
        self.register_buffer("order", torch.tensor([2, 0, 1]), persistent=False)
        self.drop = nn.Dropout(0.0)
        self.rnn = nn.GRU(4, 4)

    def forward(self, _x, x):
        z = self.encoder(_x); y = self.decoder(x)  # noqa: E702
        parts = [torch.relu(z), torch.tanh(y)]
        h = self.forward_(parts[0] + parts[1]) * self.größe
        h = self.drop(h).clamp(-2, 2) - 1 / (h.abs() + 1)
        h[:, 0] = 0.5
        h[:, 1:] = x[:, 1:]
        h = h @ self.größe.diag().t() + h.var() + 3 // (x.abs() + 1)
        g, _ = self.rnn(h[None])
        h = self.alias(
            g[0].masked_fill(
                x > 0, -1e9),
        )  # the same layer
        return {"z": z[self.order], "sum": h}


class Scaled(nn.Module):
    """What depends on sizes, which two of these modules read."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(8, 8)

    def forward(self, x):
        B, T, C = x.shape
        y = self.fc(x).view(B, T, 2, C // 2)
        y = (y / T**0.5).reshape(B * T, C)
        return x + (y * (B * T + 1)).view(B, T, C) * T**-0.5


class Sizes(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(Scaled() for _ in range(2))

    def forward(self, x, pairs):
        for layer in self.layers:
            x = layer(x)
        s = x.shape[0]
        return x * s + s / (x.abs() + 1) / (s - 0.5), x > 0, pairs.view(-1, 2).sum(1)


class Largest(nn.Module):
    """What has no gradient."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(x).argmax(-1)


def record(path, model, make, loss_of, both_modes=False, dynamic_shapes=None):
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    with Recorder(path, model, optimizer=optimizer, dynamic_shapes=dynamic_shapes) as rec:
        for inputs in (make(), make()):
            with rec.watch():
                optimizer.zero_grad()
                loss_of(model(*inputs)).backward()
                optimizer.step()
        if both_modes:
            model.eval()
            rec.forward(*make())


def square(y):
    return y.square().mean()


def main(folder):
    compute_with("portable")
    torch.manual_seed(7)
    models = {
        "three-layer-net": (ThreeLayerNet(2, 3, 2), lambda: (torch.randn(4, 2, requires_grad=True),), lambda y: square(y[0] - 1)),
        "language": (Language(), lambda: (torch.randint(11, (2, 6)),), square),
        "states": (States(), lambda: (torch.randn(3, 6, 5), torch.randn(3, 7, 5)), square),
        "rnn": (RNN(), lambda: (torch.randn(3, 2, 4),), square),
        "attention": (Attention(), lambda: (torch.randn(3, 5, 8),), square),
        "images": (Images(), lambda: (torch.randn(2, 3, 8, 8),), square),
        "tied-maybe": (TiedMaybe(), lambda: (torch.randn(3, 4),), square),
        "stages": (Stages(), lambda: (torch.randn(3, 4),), square),
        "names": (Case(), lambda: (torch.randn(3, 4),), square),
        "written": (Written(), lambda: (torch.randn(3, 4), torch.randn(3, 4)), lambda y: square(y["z"]) + square(y["sum"])),
        "several": (Several(), lambda: (torch.randn(3, 4), torch.randn(3, 2)), lambda y: square(y["sum"]) + square(y["size"])),
    }
    models["buffers"] = (Buffers(), lambda: (torch.randn(2, 6, 4),), square)
    models["distilled"] = (Distilled(), lambda: (torch.randn(2, 4),), square)
    (folder / "checkpoints").mkdir()
    for name in ("buffers", "language"):
        state = {key: value.clone() for key, value in models[name][0].state_dict().items()}
        save_file(state, folder / f"checkpoints/{name}.safetensors")
    for name, (model, make, loss_of) in models.items():
        record(folder / f"{name}.safetensors", model, make, loss_of)
    record(folder / "classes.safetensors", Classes(), lambda: (torch.randn(3, 4),), square)
    record(folder / "classes-in-both-modes.safetensors", Classes(), lambda: (torch.randn(3, 4),), square, both_modes=True)
    record(folder / "chain.safetensors", chain(), lambda: (torch.randn(3, 4),), square)
    record(folder / "both-modes.safetensors", BothModes(), lambda: (torch.randn(4, 6),), square, both_modes=True)
    record(folder / "mode-constants.safetensors", ModeConstants(), lambda: (torch.randn(3, 4),), square, both_modes=True)
    record(folder / "crossing.safetensors", Crossing(), lambda: (torch.randn(3, 4),), square, both_modes=True)
    auto, sizes = torch.export.Dim.AUTO, iter([(2, 6), (3, 4), (4, 5)])
    any_size = {"tokens": {0: auto, 1: auto}}
    make = lambda: (torch.randint(11, next(sizes)),)  # noqa: E731
    record(folder / "any-size.safetensors", AnyLength(), make, square, both_modes=True, dynamic_shapes=any_size)
    batches = iter([2, 3, 4])
    make = lambda: (torch.randn(next(batches), 3, 5),)  # noqa: E731
    record(folder / "recurrent-modes.safetensors", Modes(), make, square, both_modes=True, dynamic_shapes={"x": {0: auto}})
    model = nn.Sequential(nn.Softplus(), nn.Dropout(0.1), nn.Softmax(-1)).eval()
    with Recorder(folder / "no-parameters.safetensors", model) as rec:
        rec.forward(torch.randn(2, 3))
    batch = torch.export.Dim("batch", min=2, max=64)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 4), nn.Tanh(), nn.Unflatten(1, (2, 2)))
    program = torch.export.export(model, (torch.randn(3, 2, 3),), strict=False, dynamic_shapes=({0: batch},))
    torch.export.save(program, folder / "any-batch.pt2")
    long, pairs = torch.export.Dim("long", min=3, max=64), 2 * torch.export.Dim("pairs", min=30, max=50)
    sizes = ({0: batch, 1: long}, {0: pairs})
    program = torch.export.export(Sizes(), (torch.randn(3, 5, 8), torch.randn(80)), strict=False, dynamic_shapes=sizes)
    torch.export.save(program, folder / "sizes.pt2")
    program = torch.export.export(Largest(), (torch.randn(3, 4),), strict=False)
    torch.export.save(program, folder / "largest.pt2")
    (folder / "refused").mkdir()
    record(folder / "refused/results.safetensors", OtherResults(), lambda: (torch.randn(3, 4),), lambda y: square(y[0]), both_modes=True)
    model, initial = Buffers(), folder / "checkpoints/initial.safetensors"
    save_file(model.state_dict(), initial)
    for path in ("referring.safetensors", "refused/outside.safetensors"):
        with Recorder(folder / path, model, keep="digests", initial=initial) as rec:
            rec.forward(torch.randn(2, 6, 4))
        model.load_state_dict(load_file(initial))
    with Recorder(folder / "refused/sizes.safetensors", nn.Linear(4, 3)) as rec:
        rec.forward(torch.randn(2, 4))
        rec.forward(torch.randn(3, 4))
    for name, model in {"cond": nn.Sequential(Branches()), "custom": nn.Sequential(Custom())}.items():
        program = torch.export.export(model, (torch.randn(3),), strict=False)
        torch.export.save(program, folder / f"refused/{name}.pt2")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

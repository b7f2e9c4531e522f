"""Models whose modules of one class differ in their numbers, their lengths and their parts."""

import torch
from torch import nn


class DropPath(nn.Module):
    """Drops whole samples, as stochastic depth does; nothing is drawn at a rate of 0."""

    def __init__(self, rate):
        super().__init__()
        self.rate = rate

    def forward(self, x):
        if self.rate == 0.0 or not self.training:
            return x
        keep = torch.empty(x.shape[0], 1).bernoulli_(1 - self.rate)
        return x * keep / (1 - self.rate)


class Unit(nn.Module):
    """A block with and without dropout, a path that is dropped twice, a scale and a shift."""

    def __init__(self, width, drop=0.0, rate=0.0, scaled=False, shift=0):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.drop = nn.Dropout(drop) if drop else nn.Identity()
        self.drop_path = DropPath(rate)
        self.scale = nn.Parameter(torch.full((width,), 0.5)) if scaled else None
        self.shift = shift

    def forward(self, x):
        if self.shift > 0:
            x = torch.roll(x, self.shift, 1)
            x = x + torch.arange(x.shape[1])
        y = self.drop(torch.tanh(self.fc1(x)))
        y = self.fc2(y)
        if self.scale is not None:
            y = y * self.scale
        x = x + self.drop_path(y)
        return x + self.drop_path(torch.sin(x))


class Stage(nn.Module):
    """A list of any length: none, one or several, of which the first widens."""

    def __init__(self, width, length, drop=0.0):
        super().__init__()
        self.units = nn.ModuleList(Unit(width, drop, 0.1 * at) for at in range(length))
        self.norm = nn.LayerNorm(width)

    def forward(self, x):
        for unit in self.units:
            x = unit(x)
        return self.norm(x)


class Widen(nn.Module):
    def __init__(self, width, wider):
        super().__init__()
        self.fc = nn.Linear(width, wider)

    def forward(self, x):
        return torch.relu(self.fc(x))


class Growing(nn.Module):
    """Layers with numbers in their names, each of which takes what all before returned."""

    def __init__(self, width, length):
        super().__init__()
        self.length = length
        for at in range(length):
            self.add_module(f"layer{at + 1}", Joined(width + 2 * at))

    def forward(self, x):
        values = [x]
        for at in range(self.length):
            values.append(self.get_submodule(f"layer{at + 1}")(values))
        return torch.cat(values, 1)


class Joined(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc = nn.Linear(width, 2)

    def forward(self, values):
        return torch.tanh(self.fc(torch.cat(values, 1)))


class Numbers(nn.Module):
    """More numbers than are told apart by their order."""

    def __init__(self, *numbers):
        super().__init__()
        self.numbers = numbers

    def forward(self, x):
        a, b, c, d, e, f, g = self.numbers
        return ((x * a + b) * c - d).clamp(e, f) * g


class Classes(nn.Module):
    def __init__(self):
        super().__init__()
        self.stages = nn.ModuleList([Stage(4, 2, 0.2), Stage(4, 0), Stage(4, 1, 0.3), Stage(4, 3)])
        self.shifted = nn.ModuleList([Unit(4, shift=1, scaled=True), Unit(4, rate=0.2), Unit(4, 0.1, scaled=True)])
        self.layer1 = nn.Sequential(Widen(4, 6))
        self.layer2 = nn.Sequential(Widen(6, 8), Widen(8, 8), Widen(8, 8), Widen(8, 8))
        self.nested = nn.ModuleList(nn.ModuleList(Widen(8, 8) for _ in range(length)) for length in (2, 1, 3))
        self.growing = nn.Sequential(Growing(8, 2), Growing(12, 4))
        self.numbers = nn.ModuleList([Numbers(1.5, 0.1, 2.0, 0.2, -3.0, 3.0, 0.5), Numbers(0.5, 0.3, 1.1, 0.4, -2.0, 2.0, 0.7)])
        self.head = nn.Sequential(nn.Linear(20, 4), *(Widen(4, 4) for _ in range(9)), nn.Tanh())

    def forward(self, x):
        for stage in self.stages:
            x = stage(x)
        for unit in self.shifted:
            x = unit(x)
        x = self.layer2(self.layer1(x))
        for blocks in self.nested:
            for block in blocks:
                x = block(x)
        x = self.growing(x)
        for numbers in self.numbers:
            x = numbers(x)
        return self.head(x)


def chain():
    """A model that is nothing but thirty equal blocks."""
    return nn.Sequential(*(Widen(4, 4) for _ in range(30)))

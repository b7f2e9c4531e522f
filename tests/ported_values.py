"""Models of tests/ported.py whose buffers and constants have values of their own, and what a port has to leave out."""

import torch
from torch import nn


class Rotary(nn.Module):
    """Tables that no checkpoint has: they differ between the modules of this class."""

    def __init__(self, base):
        super().__init__()
        angles = torch.outer(torch.arange(6.0), 1.0 / base ** torch.arange(0, 1, 0.5))
        self.register_buffer("cos_cached", angles.cos(), persistent=False)
        self.register_buffer("freqs_cis", torch.polar(torch.ones_like(angles), angles), persistent=False)
        self.register_buffer("unread", torch.ones(3), persistent=False)

    def forward(self, x):
        rotated = torch.view_as_real(torch.view_as_complex(x.view(2, 6, 2, 2)) * self.freqs_cis)
        return rotated.flatten(2) + self.cos_cached.repeat(1, 2)


class Causal(nn.Module):
    """A mask and a table that a checkpoint has, and a counter that none has and that the model writes to."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.register_buffer("bias", torch.tril(torch.ones(6, 6)).view(1, 6, 6))
        self.register_buffer("pe", torch.randn(1, 20, 4))
        self.register_buffer("seen", torch.tensor(1.0), persistent=False)
        self.register_buffer("positions", torch.arange(100).view(1, 100), persistent=False)
        self.mask = torch.full((10, 10), float("-inf")).triu(1)  # no buffer

    def forward(self, x):
        self.seen += 1
        x = x + 0.01 * self.positions[:, :6, None] + self.mask[5:, :1].exp()[0]
        scores = (x @ x.transpose(1, 2)).masked_fill(self.bias == 0, float("-inf")).softmax(-1)
        return self.fc(scores @ x + self.pe[:, :6]) * self.seen


class Buffers(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([Rotary(10.0), Rotary(100.0)])
        self.causal = Causal()
        self.norm = nn.BatchNorm1d(6)
        self.elu, self.softplus = nn.ELU(), nn.Softplus()
        self.turn = torch.polar(torch.ones(2), torch.tensor([0.5, 1.5]))  # no buffer

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        x = self.norm(self.causal(x))
        turned = torch.view_as_real(torch.view_as_complex(x.view(2, 6, 2, 2)) * self.turn)
        return self.softplus(self.elu(turned))


class Distilled(nn.Module):
    """A module that is called without gradients."""

    def __init__(self):
        super().__init__()
        self.student = nn.Linear(4, 3)
        self.teacher = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 3))

    def forward(self, x):
        with torch.no_grad():
            target = self.teacher(x)
        return self.student(x) - target

"""Models of tests/ported.py that are recurrent, or attend by torch.nn."""

import torch
from torch import nn


class Halves(nn.Module):
    """Returns a tuple within a tuple."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)

    def forward(self, x):
        y = self.fc(x)
        return y, (y * 2, y.abs().max(-1)[0])


class States(nn.Module):
    """States that go from layer to layer, as a whole and in parts, and layers in a list."""

    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = (nn.LSTM(5, 4, batch_first=True) for _ in range(2))
        self.both = nn.LSTM(4, 2, num_layers=2, bias=False, batch_first=True, bidirectional=True, dropout=0.1)
        self.layers = nn.ModuleList(nn.GRU(4, 4) for _ in range(3))
        self.last = nn.GRU(4, 4, num_layers=2, dropout=0.1)
        self.halves = Halves()
        self.first = nn.Parameter(torch.zeros(2, 1, 4))

    def forward(self, x, y):
        _, state = self.encoder(x)
        decoded, (hidden, cell) = self.decoder(y, state)
        again, (_, doubled) = self.decoder(y, (hidden, hidden * 2))
        z, _ = self.both(decoded + again + cell[-1][:, None])
        z = z.transpose(0, 1)
        for layer in self.layers:
            z, _ = layer(z)
        first = self.first.expand(2, z.size(1), 4).contiguous()
        z, (twice, _) = self.halves(self.last(z, first)[0])
        best, where = z.topk(1)
        return z + twice + best + doubled


class Modes(nn.Module):
    """Layers whose mode changes nothing, and one that drops out, for any batch."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(5, 4, num_layers=2, batch_first=True)
        self.gru = nn.GRU(4, 4, dropout=0.3)
        self.drops = nn.GRU(4, 4, num_layers=2, dropout=0.3)

    def forward(self, x):
        out, (h, c) = self.lstm(x)
        out, _ = self.gru(out.transpose(0, 1))
        return self.drops(out)[0] + h[-1] + c[0]


class RNN(nn.Module):
    """What tch has no layer for, or one of which another layer reads a weight, beside one that it has."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.RNN(4, 4, num_layers=2)
        self.projected = nn.LSTM(4, 4, proj_size=2)
        self.one = nn.GRU(4, 3)
        self.frozen = nn.LSTM(4, 3)
        self.frozen.weight_hh_l0.requires_grad = False
        self.read = nn.GRU(4, 2)
        self.usual = nn.GRU(4, 4)

    def forward(self, x):
        y, h = self.rnn(x)
        projected, *_ = self.projected(y)
        (one, last), (frozen, (hidden, *rest)) = self.one(x[:, 0]), self.frozen(x)
        read = self.read(x)[0] * self.read.weight_hh_l0.square().mean()
        means = [part.mean() for part in (projected, one, last, frozen, hidden, rest[0], read, h)]
        return self.usual(y)[0] + sum(means)


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.size(1))
        y, weights = self.attention(x, x, x, attn_mask=mask)
        return self.encoder(nn.functional.normalize(x + y)) + weights.mean()

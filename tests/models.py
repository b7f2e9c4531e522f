"""Small models that cover what programs consist of, by their names, for tests/programs.py."""

import torch
from torch import nn
from torch.nn import functional as F

MODELS = {}


def model(*shapes, **options):
    """Registers a model with the shapes of its inputs: a function of its layers, made by `layers`."""
    def register(make):
        MODELS[make.__name__] = make, shapes, options
        return make
    return register


class Of(nn.Module):
    """A model of named layers and a function that computes with them."""

    def __init__(self, function, /, **layers):
        super().__init__()
        self.function = function
        for name, layer in layers.items():
            if isinstance(layer, nn.Parameter) or not isinstance(layer, torch.Tensor):
                setattr(self, name, layer)
            else:
                self.register_buffer(name, layer)

    def forward(self, *args, **kwargs):
        return self.function(self, *args, **kwargs)


@model((5, 6), drawn_within=True)
def mlp_with_dropout():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3))


@model((2, 3, 8, 8))
def convolutions():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, stride=2, groups=2, bias=False), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
    )


@model((2, 3, 8, 8), channels_last=True)
def channels_last():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, 2))


@model((2, 3, 4, 4))
def transposed_convolution():
    return nn.Sequential(nn.ConvTranspose2d(3, 4, 2, stride=2), nn.GroupNorm(2, 4), nn.ELU(), nn.Upsample(scale_factor=1.5, mode="bilinear"))


@model((2, 4, 10))
def one_dimension():
    return nn.Sequential(nn.Conv1d(4, 4, 3, padding="same", padding_mode="reflect"), nn.InstanceNorm1d(4, affine=True), nn.PReLU(4), nn.MaxPool1d(2))


@model((2, 1, 4, 4, 4))
def three_dimensions():
    return nn.Sequential(nn.Conv3d(1, 2, 2), nn.BatchNorm3d(2), nn.Softplus(), nn.AvgPool3d(2))


@model((3, 5, 6))
def lstm():
    return Of(lambda m, x: m.head(m.lstm(x)[0]), lstm=nn.LSTM(6, 4, 2, batch_first=True, dropout=0.2), head=nn.Linear(4, 2))


@model((3, 5, 6))
def gru_of_both_directions():
    return Of(lambda m, x: m.gru(x)[1].sum(0), gru=nn.GRU(6, 4, bidirectional=True, batch_first=True))


@model((5, 3, 6))
def cell_in_a_loop():
    def function(m, x):
        state = x.new_zeros(3, 4)
        for step in x:
            state = m.cell(step, state)
        return state
    return Of(function, cell=nn.RNNCell(6, 4))


@model((2, 5, 8))
def encoder_layer():
    return nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)


@model((2, 5, 8))
def attention_with_a_mask():
    def function(m, x):
        mask = torch.full((5, 5), float("-inf")).triu(1)
        q, k, v = m.qkv(x).unflatten(-1, (3, 2, 4)).permute(2, 0, 3, 1, 4).unbind(0)
        return m.out(F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(-2))
    return Of(function, qkv=nn.Linear(8, 24), out=nn.Linear(8, 8))


@model((4, 7), integers=9)
def embeddings():
    return Of(lambda m, x: m.norm(m.words(x) + m.places(torch.arange(7))), words=nn.Embedding(9, 6, padding_idx=0), places=nn.Embedding(7, 6), norm=nn.LayerNorm(6))


@model((4, 6))
def tied_parameters():
    a, b = nn.Linear(6, 6), nn.Linear(6, 6)
    b.weight = a.weight
    return Of(lambda m, x: m.b(m.a(x).tanh()), a=a, b=b)


@model((4, 6))
def views_that_are_written():
    def function(m, x):
        y = m.fc(x)
        z = y * 2
        z[:, 0] = 1.5
        z[1:, 2:4].mul_(y[1:, 2:4])
        z.view(2, 12)[0].add_(1)
        halves = torch.empty(4, 6)
        halves[:, :3] = 0.5
        halves[:, 3:] = y[:, 3:]
        return z * halves
    return Of(function, fc=nn.Linear(6, 6))


@model((4, 6))
def in_place():
    return Of(lambda m, x: m.b(F.relu_(m.a(x).mul_(2).add_(m.c, alpha=0.5))), a=nn.Linear(6, 6), b=nn.Linear(6, 3), c=nn.Parameter(torch.ones(6)))


@model((4, 6))
def buffers_that_change():
    def function(m, x):
        m.count.add_(1)
        m.mean.mul_(0.9).add_(x.detach().mean(0), alpha=0.1)
        return m.fc(x - m.mean) * m.scale
    return Of(function, fc=nn.Linear(6, 6), count=torch.tensor(0), mean=torch.zeros(6), scale=torch.tensor(2.0))


@model((4, 6))
def frozen_and_without_gradients():
    def function(m, x):
        with torch.no_grad():
            scale = m.b(x).abs().mean()
        return m.a(x) * scale + m.frozen(x)
    frozen = nn.Linear(6, 6)
    frozen.requires_grad_(False)
    return Of(function, a=nn.Linear(6, 6), b=nn.Linear(6, 6), frozen=frozen)


@model((4, 6))
def indices():
    def function(m, x):
        y = m.fc(x)
        rows, columns = torch.tensor([0, 2, 3]), torch.tensor([1, 1, 5])
        picked = y[rows, columns] + y[:, columns].sum()
        spread = torch.zeros(4, 6).scatter_add(1, torch.zeros(4, 2, dtype=torch.int64), y[:, :2])
        put = y.index_put((rows,), torch.ones(6), accumulate=True)
        return y.gather(1, y.argmax(1, keepdim=True)).sum() + picked.sum() + (spread + put).sum()
    return Of(function, fc=nn.Linear(6, 6))


@model((4, 6))
def lists_of_tensors():
    def function(m, x):
        a, b = m.fc(x).chunk(2, dim=1)
        c, d, e = a.split([1, 1, 1], dim=1)
        return torch.cat([torch.stack([a, b]).flatten(0, 1), torch.cat((c, d, e, *b.unbind(1)[:0]), 1)]), torch.block_diag(a, b)
    return Of(function, fc=nn.Linear(6, 6))


@model((4, 6))
def several_results():
    def function(m, x):
        y = m.fc(x)
        values, _ = y.topk(2, dim=1, largest=True)
        ordered, _ = y.sort(descending=True)
        highest, _ = y.max(dim=1)
        variance, mean = torch.var_mean(y, dim=0, correction=0)
        return {"values": values, "rest": (ordered, highest), "moments": [variance, mean]}
    return Of(function, fc=nn.Linear(6, 6))


@model((4, 6))
def dtypes():
    return Of(lambda m, x: (m.fc(x).double().exp().to(torch.float32) + m.low(x.bfloat16()).float()), fc=nn.Linear(6, 6), low=nn.Linear(6, 6, dtype=torch.bfloat16))


@model((4, 6))
def numbers_and_strings():
    def function(m, x, scale=1.0, kind="tanh", offset=None):
        y = F.gelu(m.fc(x), approximate=kind) * scale
        y = torch.einsum("ij,kj->ik", y, y).clamp(min=-3).masked_fill(torch.eye(4).bool(), float("inf"))
        y = torch.where(y > 1e3, 0.0, y)
        return F.pad(y, (1, 2), value=0.5) if offset is None else y
    return Of(function, fc=nn.Linear(6, 6))


@model((4, 8))
def fourier():
    return Of(lambda m, x: torch.view_as_real(torch.fft.rfft(m.fc(x), norm="ortho") * m.filter).pow(2).sum(-1), fc=nn.Linear(8, 8), filter=nn.Parameter(torch.ones(5)))


@model((4, 6))
def linear_algebra():
    def function(m, x):
        y = m.fc(x)
        square = y.T @ y + torch.eye(6)
        return torch.linalg.solve(square, y.T).norm(dim=0) + torch.linalg.cholesky(square).diagonal().log().sum() + y.cumsum(1).logsumexp(1)
    return Of(function, fc=nn.Linear(6, 6))


@model((4, 6))
def complex_numbers_and_lists_of_booleans():
    def function(m, x):
        y = m.fc(x)
        _, mean, deviation = torch.native_layer_norm(x, [6], None, None, 1e-5)
        gradient = torch.ops.aten.native_layer_norm_backward(x, x, [6], mean, deviation, None, None, [True, False, False])[0]
        return (y * (0.5 + 2j)).abs() + gradient + torch.full((), 1j).imag + y.to(torch.float8_e4m3fn).float()
    return Of(function, fc=nn.Linear(6, 6))


@model((4, 6), requires_grad=True)
def inputs_with_gradients():
    return nn.Sequential(nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 1))


@model((4, 6))
def evaluated():
    return nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 2)).eval()


@model((4, 6))
def one_module_three_times():
    return Of(lambda m, x: m.act(m.fc(m.act(m.fc(m.act(m.fc(x)))))), fc=nn.Linear(6, 6), act=nn.Tanh())


@model((4, 6))
def parametrized():
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 6)), nn.utils.parametrizations.spectral_norm(nn.Linear(6, 3)))


@model((4, 6))
def random_numbers():
    return Of(lambda m, x: m.fc(x) + torch.randn(4, 6) * 0.1 + torch.rand_like(x) + torch.bernoulli(torch.full((4, 6), 0.5)), fc=nn.Linear(6, 6))


@model((4, 6))
def loss_within():
    def function(m, x):
        logits = m.fc(x)
        return {"loss": F.cross_entropy(logits, torch.tensor([0, 1, 2, 3]), label_smoothing=0.1), "logits": logits}
    return Of(function, fc=nn.Linear(6, 6))


@model((4, 6))
def names_of_the_format():
    return Of(lambda m, x: m.output(m.L(x)), L=nn.Linear(6, 6), output=nn.Linear(6, 2))


@model((2, 4, 6))
def losses_and_distances():
    def function(m, x):
        a, b = m.fc(x)
        return F.cosine_similarity(a, b).sum() + F.huber_loss(a, b) + torch.cdist(a, b).mean() + F.kl_div(a.log_softmax(1), b.softmax(1), reduction="batchmean")
    return Of(function, fc=nn.Linear(6, 6))


@model((4, 6))
def outputs_of_outputs():
    """The loss depends on outputs from which another output is computed, as that of a variational autoencoder does."""
    def function(m, x):
        mean, spread = m.mean(x.tanh()), m.spread(x)
        return m.decoder(mean + torch.exp(0.5 * spread)), mean, spread
    return Of(function, mean=nn.Linear(6, 3), spread=nn.Linear(6, 3), decoder=nn.Linear(3, 6))


@model((3, 5, 6))
def states_and_outputs():
    """The loss depends on the last hidden states of an LSTM, on what is computed from all of them, and on both states of
    a cell, one of which is computed from the other within one operator."""
    def function(m, x):
        y, (h, c) = m.lstm(x)
        return {"probabilities": m.head(y).softmax(-1), "states": (h, c), "y": y, "cell": m.cell(x[:, 0])}
    return Of(function, lstm=nn.LSTM(6, 4, batch_first=True), cell=nn.LSTMCell(6, 4), head=nn.Linear(4, 2))


@model((3, 5, 8), forward_alone=True)
def called_with_and_without_gradients():
    """A linear layer of rows that are not contiguous takes another kernel where gradients are off."""
    return Of(lambda m, x: m.gru(m.fc(x.transpose(0, 1)))[0], fc=nn.Linear(8, 6), gru=nn.GRU(6, 4, batch_first=True))


@model((2, 400))
def large_layers():
    """The file is large enough to be mapped into memory."""
    return nn.Sequential(nn.Linear(400, 400), nn.Tanh(), nn.Linear(400, 2))


@model((4, 6), added_up=True)
def gradients_that_are_added_up():
    return nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))


@model((4, 6), several=True)
def called_several_times():
    """Three calls a step, of which two are reached by one backward pass, and the third by another one."""
    return Of(lambda m, x: m.head(m.dropout(m.norm(m.fc(F.relu(m.fc(x)))))), fc=nn.Linear(6, 6, bias=False), norm=nn.BatchNorm1d(6), dropout=nn.Dropout(0.2), head=nn.Linear(6, 2))


@model((4, 6), various=True)
def other_sizes_and_modes():
    """Steps of other sizes, with another argument, and in another mode than the first one."""
    return Of(lambda m, x, scale=1.0: m.head(m.dropout(m.norm(m.fc(x)))) * scale, fc=nn.Linear(6, 6, bias=False), norm=nn.BatchNorm1d(6), dropout=nn.Dropout(0.2), head=nn.Linear(6, 2))


@model((4, 6), in_turn=True)
def trained_in_turn():
    """Two parts, of which each step trains one, and leaves the gradients of the other as an earlier step left them."""
    return Of(lambda m, x: (m.judge(m.maker(x)), m.judge(m.maker(x).detach())), maker=nn.Linear(6, 6), judge=nn.Linear(6, 1))

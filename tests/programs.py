"""Records two training steps of small models, whose programs cover what programs consist of.

    tests/programs.py FOLDER SEED [MODEL…]

It prints the name of each recorded case. The Rust side of the test replays them.
"""

import sys
import warnings
from pathlib import Path

import torch
from tch_parity import Recorder, compute_with
from torch import nn
from torch.nn import functional as F

warnings.simplefilter("ignore")
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
        return z
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


def total(output):
    """A loss that depends on every output of float numbers; of a model that has one, its own."""
    if isinstance(output, dict) and "loss" in output:
        return output["loss"]
    leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(output) if leaf.is_floating_point()]
    return sum((leaf * leaf).mean() for leaf in leaves)


OPTIMIZERS = [
    lambda p: torch.optim.SGD(p, 0.05, momentum=0.9, nesterov=True, weight_decay=0.01),
    lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.01),
    lambda p: torch.optim.AdamW(p, 0.01, amsgrad=True),
    lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.5, centered=True),
    lambda p: torch.optim.Adagrad(p, 0.05),
    lambda p: torch.optim.NAdam(p, 0.01),
]


def record(path, name, number):
    make, shapes, options = MODELS[name]
    net = make()
    draw = lambda shape: torch.randint(options["integers"], shape) if "integers" in options else torch.randn(shape)  # noqa: E731
    trained = [p for p in net.parameters() if p.requires_grad]
    optimizer = OPTIMIZERS[number % len(OPTIMIZERS)](trained)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    if options.get("added_up"):
        return record_added_up(path, net, draw)
    if options.get("several"):
        return record_several(path, net, draw, optimizer)
    if options.get("various"):
        return record_various(path, net, draw, optimizer)
    kwargs = {"scale": 0.5} if name == "numbers_and_strings" else {}
    with Recorder(path, net, optimizer=optimizer, operators=True) as recorder:
        for _ in range(2):
            inputs = [draw(shape) for shape in shapes]
            if options.get("channels_last"):
                inputs = [x.to(memory_format=torch.channels_last) for x in inputs]
            if options.get("requires_grad"):
                inputs = [x.requires_grad_() for x in inputs]
            with recorder.watch():
                if options.get("drawn_within"):
                    inputs = [draw(shape) for shape in shapes]
                optimizer.zero_grad()
                loss = total(net(*inputs, **kwargs))
                recorder.loss(loss).backward()
                if number % 2:
                    nn.utils.clip_grad_norm_(trained, 0.5)
                optimizer.step()
                schedule.step()


def record_added_up(path, net, draw):
    """One of two optimizers steps in each third step, by the gradients of the three."""
    first, second = torch.optim.Adam(net[0].parameters(), 0.01), torch.optim.SGD(net[2].parameters(), 0.05, momentum=0.9)
    with Recorder(path, net, optimizer={"first": first, "second": second}, operators=True) as recorder:
        for step in range(6):
            x = draw((4, 6))
            with recorder.watch():
                second.zero_grad(set_to_none=step % 2 == 0)
                recorder.loss(total(net(x))).backward()
                second.step()
                if step % 3 == 2:
                    nn.utils.clip_grad_norm_(net[0].parameters(), 0.1)
                    first.step()
                    first.zero_grad()


def record_several(path, net, draw, optimizer):
    with Recorder(path, net, optimizer=optimizer, operators=True) as recorder:
        for _ in range(2):
            with recorder.watch():
                optimizer.zero_grad()
                first, second = net(draw((4, 6))), net(draw((4, 6)))
                (first - second).square().mean().backward()
                net(draw((4, 6))).square().mean().backward()
                optimizer.step()


def record_various(path, net, draw, optimizer):
    with Recorder(path, net, optimizer=optimizer, operators=True) as recorder:
        for rows, scale in (4, 1.0), (7, 1.0), (4, 1.0), (4, 0.5):
            with recorder.watch():
                optimizer.zero_grad()
                net(draw((rows, 6)), scale=scale).square().mean().backward()
                optimizer.step()
        net.eval()
        recorder.forward(draw((4, 6)), scale=1.0)


def record_lbfgs(path):
    net = nn.Linear(6, 2)
    optimizer = torch.optim.LBFGS(net.parameters(), max_iter=3)
    x = torch.randn(4, 6)

    def closure():
        optimizer.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        return loss

    with Recorder(path, net, optimizer=optimizer) as recorder, recorder.watch():
        optimizer.step(closure)


def record_autocast(path):
    net = nn.Linear(6, 2)
    with Recorder(path, net) as recorder, recorder.watch(), torch.autocast("cpu", torch.bfloat16):
        net(torch.randn(4, 6)).float().square().mean().backward()


# Runs that no program replays, recorded where they are named.
WITHOUT = {"lbfgs": record_lbfgs, "autocast": record_autocast}


def main(folder, seed, *names):
    compute_with("portable")
    for name in WITHOUT.keys() & set(names):
        WITHOUT[name](Path(folder) / f"{name}.safetensors")
    for number, name in enumerate(MODELS):
        if names and name not in names:
            continue
        torch.manual_seed(int(seed) + number)
        record(Path(folder) / f"{name}.safetensors", name, number)
        print(name)


if __name__ == "__main__":
    main(*sys.argv[1:])

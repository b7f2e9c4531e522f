"""Models that are trained in mixed precision: the loop is within torch.autocast, or a part of the model is."""

import torch
from models import Of, model
from tch_parity import Recorder
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint


def autocast(dtype=torch.bfloat16, **options):
    return torch.autocast("cpu", dtype, **options)


@model((5, 6), around=autocast)
def autocast_mlp():
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.GELU(), nn.Dropout(0.3), nn.Linear(8, 3))


@model((2, 3, 8, 8), around=autocast)
def autocast_convolutions():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2))


@model((2, 4, 8), around=lambda: autocast(torch.float16))
def autocast_to_float16():
    return nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)


def norm(weight, x):
    """That of transformers' Llama."""
    wide = x.float()
    return weight * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)


@model((2, 4, 8), around=autocast)
def autocast_of_a_llama():
    """An attention with rotary embeddings, which are computed without autocast, as transformers has it."""
    def function(m, x):
        q, k, v = m.qkv(norm(m.weight, x)).view(2, 4, 3, 2, 4).permute(2, 0, 3, 1, 4)
        with torch.autocast(device_type=x.device.type, enabled=False):
            angles = torch.arange(4).float()[:, None] * m.frequencies.float()
            cos, sin = (f(torch.cat((angles, angles), -1)).to(q.dtype) for f in (torch.cos, torch.sin))
        q, k = (t * cos + torch.cat((-t[..., 2:], t[..., :2]), -1) * sin for t in (q, k))
        weights = F.softmax(torch.matmul(q, k.transpose(2, 3)) * 0.5, dim=-1, dtype=torch.float32).to(q.dtype)
        return x + m.out(torch.matmul(weights, v).transpose(1, 2).reshape(2, 4, 8))
    return Of(function, weight=nn.Parameter(torch.ones(8)), qkv=nn.Linear(8, 24, bias=False), out=nn.Linear(8, 8, bias=False), frequencies=torch.rand(2))


def twice():
    """A weight that is casted once and used twice, so that its gradients are added up in the lower precision."""
    return Of(lambda m, x: m.head(m.fc(m.fc(x).relu())), fc=nn.Linear(6, 6), head=nn.Linear(6, 2))


@model((4, 6), around=autocast)
def autocast_of_one_weight_twice():
    return twice()


@model((4, 6), around=lambda: autocast(cache_enabled=False))
def autocast_without_a_cache():
    return twice()


def switched_off(m, x):
    y = m.fc(x)
    with torch.autocast("cpu", enabled=False):
        z = m.exact(y.float()).exp()
    return m.fc(z.to(y.dtype))


@model((4, 6), around=autocast)
def autocast_switched_off_in_a_part():
    return Of(switched_off, fc=nn.Linear(6, 6), exact=nn.Linear(6, 6))


@model((4, 6))
def autocast_in_a_part():
    def function(m, x):
        with autocast():
            y = m.fc(m.fc(x).relu())
            with autocast(enabled=False):
                y = m.fc(y.float())
        return m.fc(y)
    return Of(function, fc=nn.Linear(6, 6))


@model((4, 6), around=autocast)
def autocast_with_a_checkpoint():
    return Of(lambda m, x: m.head(checkpoint(lambda y: m.fc(m.fc(y)).relu(), m.fc(x), use_reentrant=False)), fc=nn.Linear(6, 6), head=nn.Linear(6, 2))


def of_steps(step):
    """A loop of two steps; step(net, draw) returns the loss, or None after a backward of its own."""
    def loop(path, net, draw, optimizer):
        with Recorder(path, net, optimizer=optimizer, operators=True) as recorder:
            for _ in range(2):
                with recorder.watch():
                    optimizer.zero_grad()
                    loss = step(net, lambda: draw((4, 6)))
                    if loss is not None:
                        loss.backward()
                    optimizer.step()
    return loop


def in_one(net, draw):
    with autocast():
        return (net(draw()).float() - net(draw()).float()).square().mean()


@model((4, 6), loop=of_steps(in_one))
def autocast_around_two_calls():
    return twice()


def in_each(net, draw):
    with autocast():
        first = net(draw())
    with autocast():
        return (first.float() - net(draw()).float()).square().mean()


@model((4, 6), loop=of_steps(in_each))
def autocast_around_each_of_two_calls():
    return twice()


def backward_within(net, draw):
    with autocast():
        net(draw()).float().square().mean().backward()
        loss = net(draw()).float().square().mean()
    loss.backward()


@model((4, 6), loop=of_steps(backward_within))
def autocast_around_one_backward_of_two():
    return Of(switched_off, fc=nn.Linear(6, 6), exact=nn.Linear(6, 6))


def of_all_kinds(net, draw):
    with autocast():
        with torch.no_grad():
            target = net(draw())
        outputs = [target, net(draw())]
        with autocast(enabled=False):
            outputs.append(net(draw()))
        with autocast():
            outputs.append(net(draw()))
    outputs.append(net(draw()))
    with autocast(torch.float16):
        outputs.append(net(draw()))
    return sum(output.float().square().mean() for output in outputs)


@model((4, 6), loop=of_steps(of_all_kinds))
def autocast_in_some_calls():
    return twice()


def added_up(path, net, draw, optimizer):
    """Two steps of one context add up their gradients."""
    with Recorder(path, net, optimizer=optimizer, operators=True) as recorder:
        for _ in range(2):
            with autocast():
                for half in range(2):
                    with recorder.watch():
                        net(draw((4, 6))).float().square().mean().backward()
                        if half:
                            optimizer.step()
                            optimizer.zero_grad()


@model((4, 6), loop=added_up)
def autocast_around_two_steps():
    return twice()


def scaled(path, net, draw, optimizer):
    """A scaler of losses, which skips the step whose gradients are infinite."""
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    with Recorder(path, net, optimizer=optimizer, operators=True) as recorder:
        for step in range(4):
            with recorder.watch():
                optimizer.zero_grad()
                with autocast(torch.float16):
                    loss = F.cross_entropy(net(draw((4, 6))), torch.tensor([0, 1, 2, 0])) * (float("inf") if step == 1 else 1)
                scaler.scale(recorder.loss(loss)).backward()
                if step == 2:
                    scaler.unscale_(optimizer)
                    nn.utils.clip_grad_norm_(net.parameters(), 0.1)
                scaler.step(optimizer)
                scaler.update()


@model((4, 6), loop=scaled)
def autocast_with_a_scaler():
    return nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 3))

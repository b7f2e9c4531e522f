"""Small models with the operators of the zoo's programs (tests/zoo_operators.txt) that those of models.py lack."""

import torch
from models import Of, model
from torch import nn
from torch.nn import functional as F


@model((4, 6))
def stochastic_depth():
    """As torchvision drops a whole branch of a sample."""
    def function(m, x):
        noise = torch.empty((4, 1), dtype=x.dtype, device=x.device).bernoulli_(0.8)
        noise.div_(0.8)
        return x + m.fc(x) * noise
    return Of(function, fc=nn.Linear(6, 6))


@model((2, 3, 8, 8))
def activations_in_place():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.Hardswish(inplace=True), nn.Conv2d(4, 4, 3), nn.SiLU(inplace=True), nn.Dropout(0.2, inplace=True),
        nn.Conv2d(4, 4, 3), nn.Hardsigmoid(), nn.Flatten(), nn.Linear(16, 2),
    )


@model((2, 4, 4, 6))
def shifted_windows():
    """As Swin rolls an image, and masks the windows at its border."""
    def function(m, x):
        y = torch.roll(m.fc(x), shifts=(-1, -1), dims=(1, 2))
        windows = x.new_zeros((4, 4))
        windows[:2, :2] = 1
        apart = windows.flatten().unsqueeze(0) - windows.flatten().unsqueeze(1)
        mask = apart.masked_fill(apart != 0, -100.0).masked_fill(apart == 0, 0.0)
        return torch.roll(m.out(y).flatten(1, 2).transpose(1, 2) @ mask, (1, 1), (1, 2))
    return Of(function, fc=nn.Linear(6, 6), out=nn.Linear(6, 3))


@model((2, 5, 8))
def rotary_positions():
    """As Llama turns queries and keys, after a norm without a mean."""
    def function(m, x):
        y = x.to(torch.float32)
        y = m.weight * (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)
        inverse = m.inverse[None, :, None].float().expand(2, -1, 1).to(x.device)
        angles = (inverse @ torch.arange(5)[None, None, :].float()).transpose(1, 2)
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos().to(dtype=x.dtype, device=x.device), angles.sin().to(dtype=x.dtype, device=x.device)
        q, k = m.qk(y).split(8, dim=2)
        turned = [z * cos + torch.cat((-z[..., 4:], z[..., :4]), dim=-1) * sin for z in (q, k)]
        return torch.ops.aten.alias.default(turned[0]) + turned[1]
    return Of(function, qk=nn.Linear(8, 16), weight=nn.Parameter(torch.ones(8)), inverse=torch.tensor([1.0, 0.1, 0.01, 0.001]))


@model((2, 5), integers=9)
def masks_of_words():
    """As transformers find out which word may look at which, and shift labels."""
    def function(m, words):
        places = torch.arange(5)
        causal = places[None, :] <= places[:, None]
        packed = torch.diff(words, prepend=words[:, :1]) != 1
        segments = packed.cumsum(-1)
        same = segments[:, :, None] == segments[:, None, :]
        allowed = causal & same & (words >= 1)[:, None, :]
        bias = torch.where(allowed, 0.0, torch.finfo(torch.float32).min)
        h = m.words(words)
        scores = torch.where(causal, torch.addmm(m.bias, h.view(-1, 6), m.weight).view(2, 5, 5), bias)
        shifted = words.new_zeros(words.shape)
        shifted[:, 1:] = words[:, :-1].clone()
        shifted.masked_fill_(shifted == 0, 2)
        weight = torch.full_like(scores, 0.5) * words.new_ones((1, 5)).repeat(2, 1)[:, None]
        weight = torch.where(causal, weight, 0.0)
        return (scores + bias.clamp(min=-1)).softmax(-1) * weight * m.places(shifted)[..., :1]
    return Of(function, words=nn.Embedding(9, 6), places=nn.Embedding(9, 6), bias=nn.Parameter(torch.zeros(5)), weight=nn.Parameter(torch.ones(6, 5) / 6))


@model((4, 6))
def buckets_of_positions():
    """As T5 sorts distances into buckets."""
    def function(m, x):
        distance = torch.arange(6)[None, :] - torch.arange(4)[:, None]
        near = torch.min(distance, torch.zeros_like(distance)).abs()
        far = torch.min(3 + (near.float() / 3).clamp(min=1).log().to(torch.long), torch.full_like(near, 5))
        return m.fc(x) + m.bias(torch.where(near < 3, near, far))[..., 0]
    return Of(function, fc=nn.Linear(6, 6), bias=nn.Embedding(6, 1))

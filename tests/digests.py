"""Records one run with values and with digests: all into the folder that is named.

values.safetensors keeps every tensor, and digests.safetensors their digests; wrong.safetensors is a run with another
layer. dtypes.safetensors and dtypes_digests.safetensors have a tensor of each dtype.
"""

import copy
import math
import os
import sys
from pathlib import Path

import torch
from tch_parity import Recorder, Trace, compute_with
from tch_parity.copies import DTYPES
from tch_parity.digest import digest
from torch import nn

folder = Path(sys.argv[1])
os.chdir(folder)
compute_with("portable")
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(0.2), nn.Linear(144, 9))
model.to(memory_format=torch.channels_last)
batches = [(torch.randn(5, 2, 8, 8), torch.randint(9, (5,))) for _ in range(2)]


def save(path, tensors):
    """A plain safetensors file, as any program would write it."""
    trace = Trace()
    for name, tensor in tensors.items():
        trace.push(name, tensor)
    trace.save(path)


def record(path, model, **options):
    torch.manual_seed(1)
    model = copy.deepcopy(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    with Recorder(path, model, optimizer=optimizer, **options) as rec:
        for x, target in batches:
            with rec.watch():
                optimizer.zero_grad()
                loss = rec.loss(nn.functional.cross_entropy(model(x), rec.input("target", target)))
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
    return rec


Path("cases").mkdir()
save("model.safetensors", {"of_something_else": torch.ones(3), **model.state_dict()})
record("cases/values.safetensors", model)
recorded = record("cases/digests.safetensors", model, keep="digests", initial="model.safetensors")
assert recorded.case.trace.initial["file"] == "../model.safetensors", recorded.case.trace.initial
record("plain.safetensors", model, keep="digests", program=False)
other = copy.deepcopy(model)
other[1].eps = 1e-3
record("wrong.safetensors", other, keep="digests", program=False)

# The model is not what the checkpoint holds, and nothing is written.
with torch.no_grad():
    other[0].bias[0] += 1
for path, says in (("model.safetensors", "0.bias of the model is another one"), (__file__, "is no safetensors file")):
    try:
        record("never.safetensors", other, initial=path)
        raise SystemExit(f"{path} was taken")
    except ValueError as error:
        assert says in str(error), error
save("nothing.safetensors", {"x": torch.ones(1)})
try:
    record("never.safetensors", model, initial="nothing.safetensors")
    raise SystemExit("a checkpoint without a parameter was taken")
except ValueError as error:
    assert "has no parameter and no buffer of Sequential" in str(error), error
assert not Path("never.safetensors").exists()

# What is forgotten no longer counts.
trace = Trace(lambda name, tensor, own: digest(tensor))
trace.push("a", torch.ones(300))
trace.forget("a")
assert trace.header == 0, trace.header

# Every dtype, with what is no number, other nans than the usual one, and no elements.
odd32 = torch.tensor([math.nan, -math.nan, math.inf, -math.inf, -0.0])
values, digests = Trace(), Trace(lambda name, tensor, own: digest(tensor))
for dtype, name in DTYPES.items():
    numbers = torch.randint(0, 2, (3, 50)) if dtype in (torch.bool, torch.float8_e8m0fnu) else torch.randint(0, 100, (3, 50))
    tensors = [numbers.to(dtype), torch.zeros(0, 2).to(dtype)]
    if dtype.is_floating_point and "8" not in name:
        size = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
        odd = torch.tensor([math.nan, -math.nan, math.inf, -math.inf, -0.0, 1e-3, 3.0], dtype=dtype)
        other_nan = odd.clone()
        other_nan.view(size)[:2] += 1
        assert digest(odd)["sha256"] == digest(other_nan)["sha256"]
        assert (digest(odd)["nan"], digest(odd)["inf"]) == (2, 2)
        tensors += [odd, other_nan, torch.full((4,), math.nan, dtype=dtype)]
    if dtype == torch.complex64:
        tensors.append(torch.complex(odd32, odd32.flip(0)))
    elif name.startswith("F8"):
        tensors.append(torch.arange(256).to(torch.uint8).view(dtype))  # every one
    for at, tensor in enumerate(tensors):
        values.push(f"{name}/{at}", tensor)
        digests.push(f"{name}/{at}", tensor)
for one, other in ((0x7F, 0xFF), (0x7D, 0xFE)):
    several = [torch.tensor([byte], dtype=torch.uint8).view(torch.float8_e5m2) for byte in (one, other)]
    assert digest(several[0])["sha256"] == digest(several[1])["sha256"]
for trace, path in ((values, "dtypes.safetensors"), (digests, "dtypes_digests.safetensors")):
    trace.describe({}, {})
    trace.save(path)

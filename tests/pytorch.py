#!/usr/bin/env python3
"""PyTorch's side of the tests: draws cases, and says what PyTorch makes of them.

    pytorch.py init --seed S --count N --out FILE     initial parameters of N seeded ThreeLayerNets
    pytorch.py tensors --seed S --count N --out DIR   N random tensors and their repr
    pytorch.py dtypes --seed S --count N --out DIR    N random tensors of the other dtypes that PyTorch prints, and their repr
    pytorch.py hard --out DIR                         the hard cases of repr that tests/data/ keeps
    pytorch.py grad_fn                                the repr of a few results of differentiable operations
    pytorch.py views                                  the repr of tensors whose bytes are not what they stand for
    pytorch.py refused --out DIR                      cases that PyTorch refuses, and what it says
    pytorch.py nets --out DIR                         runs of nets of several sizes, and the names of their files
    pytorch.py optimizer                              which parameters the notebook's optimizer steps
"""

import argparse
import json
import random
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
from reference import ThreeLayerNet, Trace, compute_with, drawn, notebook_data, notebook_model, sgd, train  # noqa: E402

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]
INTEGERS = [torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8]
DTYPES = 2 * FLOATS + INTEGERS + 2 * [torch.int64, torch.bool]


def init(rng, count, out):
    trace = Trace()
    for i in range(count):
        seed = rng.choice([rng.randrange(10), rng.randrange(2**63), -1 - rng.randrange(2**63)])
        # Every fourth net has a layer without units, or without inputs.
        lowest = 0 if i % 4 == 0 else 1
        dims = [rng.randint(lowest, rng.choice([3, 20, 130])) for _ in range(3)]
        torch.manual_seed(seed)
        for name, p in ThreeLayerNet(*dims).named_parameters():
            trace.push(f"{i} {seed} {' '.join(map(str, dims))} {name}", p)
    trace.save(out)


def random_shape(rng):
    dim = rng.randrange(5)
    kind = rng.choice(["small", "small", "empty", "long", "summarized"])
    shape = [rng.randint(1, 5) for _ in range(dim)]
    if dim and kind == "empty":
        shape[rng.randrange(dim)] = 0
    elif dim and kind == "long":
        shape[rng.randrange(dim)] = rng.randint(6, 40)
    elif dim and kind == "summarized":
        # Around the threshold of 1,000 elements, in one long dimension or in several.
        while torch.Size(shape).numel() <= rng.choice([980, 1000]):
            at = rng.randrange(dim)
            shape[at] += rng.randint(1, 1 + 1000 // dim**2)
    return shape


def random_floats(rng, generator, shape, dtype):
    def uniform(low, high):
        return torch.rand(shape, generator=generator, dtype=torch.float64) * (high - low) + low

    style = rng.choice(["normal", "integers", "wide", "edges", "ties", "bits", "zeros"])
    if style == "normal":
        t = torch.randn(shape, generator=generator, dtype=torch.float64) * 10 ** rng.uniform(-3, 3)
    elif style == "integers":
        t = uniform(-1, 1) * 10 ** rng.uniform(0, 10)
        t = t.round()
    elif style == "wide":
        t = 10 ** uniform(-rng.uniform(0, 40), rng.uniform(0, 40)) * uniform(-1, 1).sign()
    elif style == "edges":
        # Where the choice between fixed and scientific turns: 1e-4, 1e8, and a ratio of 1,000.
        low = rng.choice([1e-4, 0.1, 1.0, 1e5])
        t = low * 10 ** (3 * uniform(0, 1).round()) * (1 + uniform(-1, 1).round() * rng.choice([0, 1e-7, 1e-3]))
    elif style == "ties":
        t = uniform(-400, 400).round() / 2 ** rng.randint(1, 8)
    elif style == "bits":
        size = torch.empty((), dtype=dtype).element_size()
        raw = torch.randint(0, 256, [*shape, size], generator=generator, dtype=torch.uint8)
        t = raw.view(dtype).reshape(shape)
    else:
        t = torch.zeros(shape, dtype=torch.float64)
    t = t.to(dtype)
    specials = rng.choice([[], [], [0.0], [-0.0], [float("nan")], [float("inf")], [0.0, -0.0, 5e-324],
                           [float("nan"), float("inf"), -float("inf"), -0.0]])
    for special in specials:
        where = torch.rand(shape, generator=generator) < rng.choice([0.05, 0.3, 1.0])
        t = torch.where(where, torch.tensor(special, dtype=torch.float64).to(dtype), t)
    return t, style


def random_tensor(rng, generator):
    dtype = rng.choice(DTYPES)
    shape = random_shape(rng)
    if dtype.is_floating_point:
        return random_floats(rng, generator, shape, dtype)
    if dtype == torch.bool:
        return torch.rand(shape, generator=generator) < rng.choice([0.0, 0.5, 1.0]), "bool"
    info = torch.iinfo(dtype)
    limit = rng.choice([3, 100, info.max])
    return torch.randint(max(info.min, -limit), limit, shape, generator=generator, dtype=dtype), "integers"


def write_reprs(tensors, out):
    """The tensors, what `tch-parity show` must print of them, and their repr where they require grad."""
    out.mkdir(parents=True, exist_ok=True)
    trace = Trace()
    with open(out / "show.txt", "w") as show, open(out / "requires_grad.txt", "w") as requires_grad:
        for name, t in tensors:
            trace.push(name, t)
            print(name, repr(t), sep="\t", file=show)
            if t.is_floating_point():
                print(name, repr(t.requires_grad_()), sep="\t", file=requires_grad)
    trace.save(out / "tensors.safetensors")


def tensors(rng, count, out):
    generator = torch.Generator().manual_seed(rng.randrange(2**63))
    drawn = (random_tensor(rng, generator) for _ in range(count))
    write_reprs(((f"{i} {style} {t.dtype} {list(t.shape)}", t) for i, (t, style) in enumerate(drawn)), out)


# The dtypes that safetensors has and a recording does not, by their names in a file.
OTHER_DTYPES = {
    "U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E4M3FNUZ": torch.float8_e4m3fnuz,
    "F8_E5M2FNUZ": torch.float8_e5m2fnuz, "F8_E8M0": torch.float8_e8m0fnu, "F4": torch.float4_e2m1fn_x2,
}


def dtypes(rng, count, out):
    """Writes tensors of random bytes, and of bytes that hardly differ, so that every format is met."""
    out.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(rng.randrange(2**63))
    header, data = {}, bytearray()
    with open(out / "show.txt", "w") as show:
        for i in range(count):
            name, dtype = rng.choice(list(OTHER_DTYPES.items()))
            shape = random_shape(rng)
            if name == "F4" and not shape:
                shape = [3]  # PyTorch does not print one without dimensions
            size = torch.empty((), dtype=dtype).element_size()
            low = rng.randrange(256)
            high = rng.choice([256, min(low + 4, 256), low + 1])
            raw = torch.randint(min(low, high - 1), high, [*shape, size], generator=generator, dtype=torch.uint8)
            if dtype.is_complex and rng.random() < 0.8:
                value, _ = random_floats(rng, generator, [*shape, 2], torch.float32)
                raw = value.contiguous().view(torch.uint8).reshape([*shape, size])
            t = raw.view(dtype).reshape(shape)
            label = f"{i:04} {dtype} {shape}"
            print(label, repr(t), sep="\t", file=show)
            if name == "F4":
                shape = [*shape[:-1], 2 * shape[-1]]
            begin = len(data)
            data += raw.numpy().tobytes()
            header[label] = {"dtype": name, "shape": shape, "data_offsets": [begin, len(data)]}
    header = json.dumps(header).encode()
    (out / "tensors.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + data)


def views():
    """Prints tensors that are lazily conjugated or negated, that autograd calls invalid, and of dtypes that a file
    does not hold."""
    real, imaginary = torch.tensor([1.5, -0.25]), torch.tensor([2.0, -3.0])
    z = torch.complex(real, imaginary)
    print(z.conj(), z.conj().imag, torch.view_as_real(z).conj(), z[0].conj(), sep="\n")
    print(torch.complex(real.double(), imaginary.double()), z.to(torch.complex32), sep="\n")
    many = torch.complex(torch.arange(1200.0), -torch.arange(1200.0))
    print(many, many.conj().imag, z.requires_grad_(), sep="\n")
    for dtype in (torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz):
        print(real.to(dtype), torch.arange(1200.0).to(dtype), sep="\n")
    base = torch.ones(2, requires_grad=True)
    with torch.no_grad():
        view = base[:1]
        view.zero_()
    print(view)


def hard(out):
    nan, inf = float("nan"), float("inf")
    values = {
        "a nan is wider than its column": [nan, 1.0],
        "nothing but nan": [nan, nan],
        "nothing but zeros, of both signs": [0.0, -0.0],
        "an inf among integers": [1.0, inf, -inf],
        "a zero of either sign in scientific mode": [1e-5, 0.0, -0.0, nan],
        "ratio of 1000 stays fixed": [1.0, 1000.0],
        "ratio above 1000 turns scientific": [1.0, 1001.0],
        "1e8 stays fixed": [1e8],
        "above 1e8 turns scientific": [100000008.0],
        "1e-4 in float64 stays fixed": [1e-4],
        "below 1e-4 turns scientific": [9.9e-5],
        "ties round to even": [0.03125, 0.09375, 0.15625, -0.03125],
        "an integer in scientific mode": [3.0, 300000.0, 0.0],
        "a scalar nan": nan,
        "a scalar -0.": -0.0,
        "a scalar exponent of three digits": 1e-300,
        "no elements": [],
        "no elements in two dimensions": torch.empty(0, 3),
        "no elements in four dimensions": torch.empty(2, 0, 1, 3),
        "no integers": torch.empty(0, dtype=torch.int64),
        "no booleans": torch.empty(2, 0, dtype=torch.bool),
        "1000 elements are all shown": torch.arange(1000.0),
        "1001 elements are summarized": torch.arange(1001.0),
        "only the long dimension is summarized": torch.arange(1400.0).reshape(2, 100, 7),
        "six rows are not cut": torch.arange(1200).reshape(6, 200),
        "the middle that is not shown decides nothing": torch.tensor([1.0] * 500 + [1e-9] + [2.0] * 500),
        "the widest line": torch.full((2, 30), -1234.5),
        "a suffix on a line of its own": torch.full((9,), 1234.5, dtype=torch.float64),
        "a suffix that just fits": torch.full((7,), 10.25, dtype=torch.float64),
        "the last line decides, not the first": torch.full((2, 12), 1.5, dtype=torch.float64),
        "blank lines between matrices": torch.arange(8.0).reshape(2, 2, 2),
        "two blank lines in four dimensions": torch.arange(16).reshape(2, 2, 2, 2),
        "booleans": torch.tensor([[True, False], [False, True]]),
        "the ends of int64": torch.tensor([-(2**63), 2**63 - 1]),
        "the ends of float64": torch.tensor([5e-324, 1.7976931348623157e308], dtype=torch.float64),
        "float16": torch.tensor([65504.0, 6e-8], dtype=torch.float16),
        "bfloat16": torch.tensor([3.140625, -1.0], dtype=torch.bfloat16),
        "float32 subnormals": torch.tensor([1e-45, -1e-40]),
    }
    tensors = {}
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            tensors[name] = value
        else:
            for dtype in (torch.float32, torch.float64):
                tensors[f"{name}, {dtype}"] = torch.tensor(value, dtype=dtype)
    write_reprs(tensors.items(), out)


def grad_fn():
    x, y = notebook_data()
    model, _ = notebook_model()
    h, results = model(x)
    for t in (*results.values(), torch.nn.functional.binary_cross_entropy(h, y)):
        print(t)
    print(x.sum(), x * x, x.view(2), torch.cat([x, x]), x[0], x.detach(), x.grad)


def optimizer():
    """Steps the notebook's own optimizer, then one made from the parameters that the model has."""
    model, notebooks = notebook_model()
    x, y = notebook_data()
    torch.nn.functional.binary_cross_entropy(model(x)[0], y).backward()
    for name, optimizer in (("notebook", notebooks), ("ours", torch.optim.SGD(model.parameters(), lr=0.1))):
        before = [p.detach().clone() for p in model.parameters()]
        optimizer.step()
        changed = [not torch.equal(p, b) for p, b in zip(model.parameters(), before)]
        held = [any(p is q for group in optimizer.param_groups for q in group["params"]) for p in model.parameters()]
        print(f"{name}: holds {sum(held)} of the model's {len(held)} parameters, changed {sum(changed)}")


def refused(out):
    """Writes each case as if it had been run, and prints its name and PyTorch's message."""
    out.mkdir(parents=True, exist_ok=True)
    nan = float("nan")
    environment = compute_with("portable")
    cases = {
        "label-above-1": dict(y=1.5),
        "label-below-0": dict(y=-0.25),
        "label-nan": dict(y=nan),
        "input-nan": dict(x=nan),
        "nesterov-without-momentum": dict(nesterov=True),
        "nesterov-with-dampening": dict(nesterov=True, momentum=0.9, dampening=0.5),
        "negative-lr": dict(lr=-0.1),
        "negative-momentum": dict(momentum=-0.5),
        "negative-weight-decay": dict(weight_decay=-1.0),
        "lr-beyond-float32": dict(lr=1e300),
    }
    for name, changes in cases.items():
        model, _ = notebook_model()
        x, y = notebook_data()
        trace = train(model, x, y, sgd(0.1), 1, environment)
        with torch.no_grad():
            x[0, 0] = changes.pop("x", 1.0)
            y[0, 0] = changes.pop("y", 0.0)
        optimizer = sgd(**{"lr": 0.1, **changes})
        trace.tensors["input/x"], trace.tensors["input/y"] = x.detach(), y
        trace.about["run"]["optimizer"] = optimizer
        trace.save(out / f"{name}.safetensors")
        try:
            train(notebook_model()[0], x, y, optimizer, 1, environment)
        except (ValueError, RuntimeError) as error:
            # libtorch leaves out the number that Python's own check adds.
            print(name, str(error).splitlines()[0].split(": -")[0], sep="\t")
        else:
            raise AssertionError(f"PyTorch does not refuse {name}")


def nets(out):
    """Sizes at which a figure shows more or less: 8 and 16 units, and 64, the most; one row and several."""
    out.mkdir(parents=True, exist_ok=True)
    environment = compute_with("portable")
    rng = random.Random(5)
    for sizes in [(1, 1, 1, 1), (2, 2, 3, 5), (3, 5, 4, 1), (8, 8, 8, 2), (9, 3, 2, 1), (8, 16, 16, 3), (17, 2, 5, 1),
                  (64, 64, 64, 2)]:
        name = "-".join(map(str, sizes)) + ".safetensors"
        train(*drawn(rng, *sizes, scale=3.0), sgd(0.1), 1, environment).save(out / name)
        print(name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = ["init", "tensors", "dtypes", "hard", "grad_fn", "views", "refused", "nets", "optimizer"]
    parser.add_argument("command", choices=commands)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.command in ("init", "tensors", "dtypes"):
        globals()[args.command](random.Random(args.seed), args.count, args.out)
    elif args.command in ("hard", "refused", "nets"):
        globals()[args.command](args.out)
    else:
        globals()[args.command]()


if __name__ == "__main__":
    main()

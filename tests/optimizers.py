"""What torch.optim computes: random optimizers on random gradients, every parameter and all state after each step.

optimizers.py FILE SEED CASES writes a safetensors file of CASES cases of each optimizer (tests/optim.rs). LBFGS
minimizes functions instead.
"""

import random
import sys

import torch
from tch_parity import Trace, environment
from tch_parity.names import parts

STEPS = 50
SHAPES = [(3, 4), (5,), (), (2, 3, 2), (17,), (6, 7), (1, 1), (4, 2), (2, 1, 3, 3)]


def magnitude(low, high):
    return 10 ** random.uniform(low, high)


def flag():
    return random.random() < 0.5


def maybe(value):
    """Half of the settings are off."""
    return value if flag() else 0.0


def like_adam():
    betas = [random.uniform(0, 0.999), random.choice([random.uniform(0, 0.9999), 0.999])]
    eps = random.choice([1e-8, 0.0, magnitude(-12, -1)])
    return {"betas": betas, "eps": eps, "weight_decay": maybe(magnitude(-4, 0)), "maximize": flag()}


def sgd():
    momentum = maybe(random.uniform(0, 1.1))
    nesterov = momentum > 0 and flag()
    dampening = 0.0 if nesterov else maybe(random.uniform(-0.5, 1.5))
    return {"momentum": momentum, "dampening": dampening, "nesterov": nesterov,
            "weight_decay": maybe(magnitude(-4, 0)), "maximize": flag()}


def adam():
    return {**like_adam(), "amsgrad": flag(), "decoupled_weight_decay": flag()}


def adamw():
    return {**like_adam(), "amsgrad": flag()}


def nadam():
    return {**like_adam(), "momentum_decay": magnitude(-4, 0), "decoupled_weight_decay": flag()}


def radam():
    return {**like_adam(), "decoupled_weight_decay": flag()}


def adadelta():
    return {"rho": random.uniform(0, 1), "eps": magnitude(-10, -2), "weight_decay": maybe(magnitude(-4, 0)),
            "maximize": flag()}


def adagrad():
    return {"lr_decay": maybe(magnitude(-4, 0)), "weight_decay": maybe(magnitude(-4, 0)),
            "initial_accumulator_value": maybe(magnitude(-4, 0)), "eps": magnitude(-12, -4), "maximize": flag()}


def rmsprop():
    return {"alpha": random.uniform(0, 1.01), "eps": magnitude(-12, -4), "weight_decay": maybe(magnitude(-4, 0)),
            "momentum": maybe(random.uniform(0, 1)), "centered": flag(), "maximize": flag()}


def rprop():
    return {"etas": [random.uniform(0.01, 0.99), random.uniform(1.01, 2)],
            "step_sizes": [magnitude(-8, -4), magnitude(-3, 2)], "maximize": flag()}


def asgd():
    return {"lambd": magnitude(-6, 0), "alpha": random.uniform(0, 1.5), "t0": random.choice([1e6, 0.0, 7.5, 20.0]),
            "weight_decay": maybe(magnitude(-4, 0)), "maximize": flag()}


def adafactor():
    return {"beta2_decay": -random.uniform(0, 1.5), "eps": [None if flag() else magnitude(-9, -2), magnitude(-5, -1)],
            "d": random.uniform(1, 3), "weight_decay": maybe(magnitude(-4, 0)), "maximize": flag()}


def sparse_adam():
    options = like_adam()
    del options["weight_decay"]
    return {**options, "eps": options["eps"] or 1e-8}


def muon():
    return {"weight_decay": maybe(magnitude(-4, 0)), "momentum": random.uniform(0, 1), "nesterov": flag(),
            "ns_coefficients": [3.4445, -4.7750, 2.0315] if flag() else [random.uniform(-5, 5) for _ in range(3)],
            "eps": magnitude(-8, -3), "ns_steps": random.randrange(0, 8),
            "adjust_lr_fn": random.choice([None, "original", "match_rms_adamw"])}


DRAW = {"SGD": sgd, "Adam": adam, "AdamW": adamw, "NAdam": nadam, "RAdam": radam, "Adamax": like_adam,
        "Adadelta": adadelta, "Adagrad": adagrad, "RMSprop": rmsprop, "Rprop": rprop, "ASGD": asgd,
        "Adafactor": adafactor, "SparseAdam": sparse_adam, "Muon": muon}


def values(shape, dtype):
    """Ordinary numbers, and in one tensor of five zeros, subnormal and huge ones."""
    numbers = torch.randn(shape, dtype=torch.float64)
    if random.random() < 0.2:
        low, high = (-320, 300) if dtype == torch.float64 else (-46, 38)
        numbers *= 10.0 ** torch.empty(shape, dtype=torch.float64).uniform_(low, high)
        numbers *= torch.rand(shape) < 0.9
    return numbers.to(dtype)


def as_bytes(tensor):
    return tensor.detach().clone(memory_format=torch.contiguous_format).reshape(-1).view(torch.uint8)


def state_of(optimizer, p):
    """A parameter's state as bytes, the integer step of SparseAdam among it."""
    for value in optimizer.state.get(p, {}).values():
        if value is not None:
            yield as_bytes(value if isinstance(value, torch.Tensor) else torch.tensor(value))


def case(trace, name, key):
    dtype = random.choice([torch.float32, torch.float32, torch.float64, torch.float64, torch.bfloat16])
    sparse = name == "SparseAdam" or name == "Adagrad" and random.random() < 0.3
    shapes = random.sample(SHAPES, 4) + [(random.randrange(1, 40), random.randrange(1, 9))]
    if sparse or name == "Muon":
        shapes = [(random.randrange(2, 12), random.randrange(1, 12)) for _ in range(3)]
        dtype = torch.float32 if dtype == torch.bfloat16 else dtype
    groups = [{**DRAW[name](), "lr": magnitude(-4, 0)}, {**DRAW[name](), "lr": magnitude(-4, 0)}]
    if sparse and name == "Adagrad":
        groups = [{**group, "weight_decay": 0.0} for group in groups]
    parameters = [torch.nn.Parameter(values(shape, dtype)) for shape in shapes]
    first = random.randrange(1, len(shapes))
    once = {key: groups[0][key] for key in ("initial_accumulator_value",) if key in groups[0]}
    groups[1] |= once  # PyTorch takes it from the constructor alone, whatever a group says
    optimizer = getattr(torch.optim, name)(
        [{"params": parameters[:first], **groups[0]}, {"params": parameters[first:], **groups[1]}], **once)
    trace.push(f"{key}/param", torch.cat([p.detach().reshape(-1) for p in parameters]))
    has, gradients, indices, after, ends = [], [], [], [], []
    for step in range(STEPS):
        if step == STEPS // 2:
            for group in optimizer.param_groups:
                group["lr"] *= 0.3
        optimizer.zero_grad()
        for p in parameters:
            has.append(random.random() < 0.85)
            if not has[-1]:
                continue
            if sparse:
                index = torch.randint(p.shape[0], (random.randrange(0, 6),))
                gradient = values((len(index), p.shape[1]), dtype)
                (torch.nn.functional.embedding(index, p, sparse=True) * gradient).sum().backward()
                indices += [torch.tensor([len(index)]), index]
            else:
                gradient = values(p.shape, dtype)
                p.grad = gradient.clone()
            gradients.append(gradient.reshape(-1))
        optimizer.step()
        now = [as_bytes(p) for p in parameters] + [b for p in parameters for b in state_of(optimizer, p)]
        after += now
        ends.append(sum(len(b) for b in now))
    trace.push(f"{key}/has", torch.tensor(has).to(torch.uint8))
    trace.push(f"{key}/grad", torch.cat(gradients) if gradients else torch.empty(0, dtype=dtype))
    if sparse:
        trace.push(f"{key}/index", torch.cat(indices))
    trace.push(f"{key}/after", torch.cat(after))
    trace.push(f"{key}/length", torch.tensor(ends))
    return {"optimizer": name, "groups": groups, "first": first, "shapes": [list(shape) for shape in shapes],
            "sparse": sparse}


FUNCTIONS = {
    "rosenbrock": lambda x, a, b: (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum(),
    "quadratic": lambda x, a, b: ((a @ x - b) ** 2).sum(),
    "logistic": lambda x, a, b: (torch.nn.functional.softplus(a @ x) - b * (a @ x)).mean(),
    "quartic": lambda x, a, b: ((a @ x) ** 4).mean() - (b * (a @ x)).sum(),
}


def lbfgs(trace, key):
    dtype = random.choice([torch.float32, torch.float64])
    sizes = [random.randrange(1, 9) for _ in range(3)]
    parameters = [torch.nn.Parameter(torch.randn(n, dtype=dtype)) for n in sizes]
    a, b = torch.randn(11, sum(sizes), dtype=dtype), torch.rand(11, dtype=dtype)
    options = {"lr": random.choice([1.0, magnitude(-3, 0)]), "max_iter": random.randrange(1, 25),
               "max_eval": random.choice([None, random.randrange(3, 30)]), "history_size": random.randrange(1, 12),
               "tolerance_grad": magnitude(-9, -3), "tolerance_change": magnitude(-12, -5),
               "line_search_fn": random.choice([None, "strong_wolfe", "strong_wolfe"])}
    function = random.choice(list(FUNCTIONS))
    optimizer = torch.optim.LBFGS(parameters, **options)
    trace.push(f"{key}/param", torch.cat([p.detach() for p in parameters]))
    trace.push(f"{key}/a", a)
    trace.push(f"{key}/b", b)

    def closure():
        optimizer.zero_grad()
        loss = FUNCTIONS[function](torch.cat(parameters), a, b)
        loss.backward()
        return loss

    for step in range(8):
        trace.push(f"{key}/loss/{step}", optimizer.step(closure))
        trace.push(f"{key}/after/{step}", torch.cat([p.detach() for p in parameters]))
        for name, value in optimizer.state[parameters[0]].items():
            for path, leaf in parts(name, value):
                # An empty list of changes is no tensor, and `al` is room for intermediate results.
                empty = isinstance(leaf, list)
                if leaf is not None and not empty and not name.startswith("al"):
                    dtype_of = torch.int64 if isinstance(leaf, int) and name != "H_diag" else torch.float64
                    leaf = leaf if isinstance(leaf, torch.Tensor) else torch.tensor(leaf, dtype=dtype_of)
                    trace.push(f"{key}/state/{step}/{path}", leaf)
    return {"optimizer": "LBFGS", "groups": [options], "first": 0, "shapes": [[n] for n in sizes], "sparse": False,
            "function": function}


def clip(trace, key):
    """Gradients before and after they are clipped, and their norm."""
    dtype = random.choice([torch.float32, torch.float64, torch.bfloat16])
    shapes = random.sample(SHAPES, 4)
    parameters = [torch.nn.Parameter(torch.zeros(shape, dtype=dtype)) for shape in shapes]
    for p in parameters[1:]:
        p.grad = values(p.shape, dtype)
    trace.push(f"{key}/grad", torch.cat([p.grad.reshape(-1) for p in parameters[1:]]))
    limit = magnitude(-2, 2)
    norm_type = random.choice([2.0, 2.0, 1.0, 3.0, 0.5, 0.0, float("inf"), float("-inf")])
    by_value = random.random() < 0.3
    if by_value:
        torch.nn.utils.clip_grad_value_(parameters, limit)
        total = torch.zeros((), dtype=dtype)
    else:
        total = torch.nn.utils.clip_grad_norm_(parameters, limit, norm_type)
    trace.push(f"{key}/total", total)
    trace.push(f"{key}/clipped", torch.cat([p.grad.reshape(-1) for p in parameters[1:]]))
    try:
        torch.nn.utils.get_total_norm([p.grad for p in parameters[1:]], norm_type, error_if_nonfinite=True)
        message = None
    except RuntimeError as error:
        message = str(error)
    return {"shapes": [list(shape) for shape in shapes], "limit": limit, "norm_type": str(norm_type),
            "by_value": by_value, "message": message}


def refused():
    """Options at and beyond their limits, with PyTorch's message, or none where PyTorch takes them."""
    for name, draw in {**DRAW, "LBFGS": lambda: {"tolerance_grad": 1e-7}}.items():
        options = {**draw(), "lr": 0.1}
        for key, value in options.items():
            parts = range(len(value)) if isinstance(value, list) else [None]
            for part in parts:
                for odd in (-magnitude(-3, 3), 0.0, 1.0, random.uniform(1, 3)):
                    if isinstance(value, (bool, int, str)) or value is None:
                        continue
                    changed = odd if part is None else [odd if i == part else v for i, v in enumerate(value)]
                    changed = {**options, key: changed}
                    try:
                        getattr(torch.optim, name)([torch.nn.Parameter(torch.zeros(2, 2))], **changed)
                        message = None
                    except ValueError as error:
                        message = str(error)
                    yield {"optimizer": name, "options": changed, "message": message}


def main(path, seed, cases):
    random.seed(seed)
    torch.manual_seed(random.randrange(2**60))
    torch.set_num_threads(1)
    trace = Trace()
    run = [case(trace, name, f"{name}/{i}") for name in DRAW for i in range(int(cases))]
    run += [lbfgs(trace, f"LBFGS/{i}") for i in range(int(cases))]
    clips = [clip(trace, f"clip/{i}") for i in range(200)]
    trace.describe({"cases": run, "clips": clips, "refused": list(refused())}, environment())
    trace.save(path)


if __name__ == "__main__":
    main(*sys.argv[1:])

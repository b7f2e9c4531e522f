"""What torch.optim.lr_scheduler computes: random schedules, and every learning rate and momentum of 300 steps.

schedules.py FILE SEED CASES writes a safetensors file of CASES cases of each schedule (tests/schedules.rs).
"""

import random
import sys
import warnings

import torch
from tch_parity import Trace, environment
from torch.optim import lr_scheduler

STEPS = 300


def magnitude(low, high):
    return 10 ** random.uniform(low, high)


def flag():
    return random.random() < 0.5


def per_group(draw):
    return draw() if flag() else [draw(), draw()]


def function():
    return random.choice([{"base": random.uniform(0.9, 1.01)}, {"inverse": magnitude(-3, 0)}])


def callable_of(function):
    if "base" in function:
        return lambda epoch: function["base"] ** epoch
    return lambda epoch: 1 / (1 + function["inverse"] * epoch)


def rate():
    return magnitude(-4, 0)


def momentum():
    return {"cycle_momentum": flag(), "base_momentum": per_group(lambda: random.uniform(0.1, 0.8)),
            "max_momentum": per_group(lambda: random.uniform(0.8, 0.99))}


def cyclic():
    return {"base_lr": per_group(rate), "max_lr": per_group(rate), "step_size_up": random.randrange(1, 60),
            "step_size_down": random.choice([None, random.randrange(1, 60)]), "gamma": random.uniform(0.95, 1),
            "mode": random.choice(["triangular", "triangular2", "exp_range"]), **momentum()}


def one_cycle():
    return {"max_lr": per_group(rate), "total_steps": random.randrange(STEPS, 400),
            "pct_start": random.uniform(0.1, 0.45), "anneal_strategy": random.choice(["cos", "linear"]),
            "div_factor": magnitude(0, 2), "final_div_factor": magnitude(0, 5), "three_phase": flag(), **momentum()}


def plateau():
    return {"mode": random.choice(["min", "max"]), "factor": random.uniform(0.1, 0.95),
            "patience": random.randrange(0, 12), "threshold": magnitude(-5, -1), "cooldown": random.randrange(0, 6),
            "threshold_mode": random.choice(["rel", "abs"]), "min_lr": per_group(lambda: magnitude(-8, -3)),
            "eps": magnitude(-9, -4)}


PLAIN = {
    "StepLR": lambda: {"step_size": random.randrange(1, 80), "gamma": random.uniform(0.1, 1.1)},
    "MultiStepLR": lambda: {"milestones": random.choices(range(STEPS), k=random.randrange(0, 9)),
                            "gamma": random.uniform(0.1, 1.1)},
    "ConstantLR": lambda: {"factor": random.uniform(0.01, 1), "total_iters": random.randrange(0, 200)},
    "LinearLR": lambda: {"start_factor": random.uniform(0.01, 1), "end_factor": random.uniform(0, 1),
                         "total_iters": random.randrange(1, 400)},
    "ExponentialLR": lambda: {"gamma": random.uniform(0.9, 1.01)},
    "PolynomialLR": lambda: {"total_iters": random.randrange(1, 400), "power": random.choice([1.0, random.uniform(0, 4)])},
    "CosineAnnealingLR": lambda: {"T_max": random.randrange(1, 150), "eta_min": magnitude(-6, -2)},
    "CosineAnnealingWarmRestarts": lambda: {"T_0": random.randrange(1, 60), "T_mult": random.randrange(1, 4),
                                            "eta_min": magnitude(-6, -2)},
    "LambdaLR": lambda: {"functions": [function() for _ in range(random.randrange(1, 3))]},
    "MultiplicativeLR": lambda: {"functions": [function() for _ in range(random.randrange(1, 3))]},
}
CYCLES = {"CyclicLR": cyclic, "OneCycleLR": one_cycle}


def part():
    name = random.choice(list(PLAIN))
    return {"name": name, **PLAIN[name]()}


def composed():
    return [part() for _ in range(random.randrange(1, 4))]


def sequential():
    parts = composed()
    if flag():
        parts[0] = {"name": "ChainedScheduler", "schedulers": composed()}
    return {"schedulers": parts, "milestones": sorted(random.sample(range(1, STEPS), len(parts) - 1))}


DRAW = {**PLAIN, **CYCLES, "ReduceLROnPlateau": plateau, "SequentialLR": sequential,
        "ChainedScheduler": lambda: {"schedulers": composed()}}


def build(optimizer, name, **options):
    if "functions" in options:
        functions = [callable_of(function) for function in options["functions"]]
        return getattr(lr_scheduler, name)(optimizer, functions if len(functions) > 1 else functions[0])
    if "schedulers" in options:
        options["schedulers"] = [build(optimizer, **part) for part in options["schedulers"]]
    if name == "ChainedScheduler":
        return lr_scheduler.ChainedScheduler(**options, optimizer=optimizer)
    return getattr(lr_scheduler, name)(optimizer=optimizer, **options)


def record(optimizer_name, lrs, name, options, metrics):
    parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in lrs]
    groups = [{"params": [p], "lr": lr} for p, lr in zip(parameters, lrs)]
    optimizer = getattr(torch.optim, optimizer_name)(groups)
    scheduler = build(optimizer, name, **options)
    seen = []
    for metric in metrics:
        seen += [scheduler.get_last_lr()]
        seen += [[group["betas"][0] if "betas" in group else group["momentum"] for group in optimizer.param_groups]]
        optimizer.step()
        scheduler.step(metric) if name == "ReduceLROnPlateau" else scheduler.step()
    return torch.tensor(seen, dtype=torch.float64)


REFUSED = [
    ("ConstantLR", {"factor": 1.5}), ("ConstantLR", {"factor": -0.1}), ("LinearLR", {"start_factor": 0.0}),
    ("LinearLR", {"start_factor": 1.5}), ("LinearLR", {"end_factor": -0.5}), ("LinearLR", {"end_factor": 2.0}),
    ("CosineAnnealingWarmRestarts", {"T_0": 0, "T_mult": 1}), ("CosineAnnealingWarmRestarts", {"T_0": 3, "T_mult": 0}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 0}), ("OneCycleLR", {"max_lr": 0.1, "total_steps": -3}),
    ("OneCycleLR", {"max_lr": 0.1, "total_steps": 9, "pct_start": 2.5}),
    ("OneCycleLR", {"max_lr": [0.1, 0.2, 0.3], "total_steps": 9}), ("CyclicLR", {"base_lr": [0.1], "max_lr": 0.2}),
    ("CyclicLR", {"base_lr": 0.1, "max_lr": 0.2, "base_momentum": [0.1, 0.2, 0.3]}),
    ("ReduceLROnPlateau", {"factor": 1.0}), ("ReduceLROnPlateau", {"min_lr": [0.1, 0.2, 0.3]}),
    ("LambdaLR", {"functions": [{"base": 0.9}] * 3}), ("MultiplicativeLR", {"functions": [{"base": 0.9}] * 3}),
    ("ChainedScheduler", {"schedulers": []}), ("SequentialLR", {"schedulers": [], "milestones": []}),
    ("SequentialLR", {"schedulers": [{"name": "ExponentialLR", "gamma": 0.9}], "milestones": [3, 5]}),
]


def refused():
    """Options that PyTorch refuses, with its messages."""
    for name, options in REFUSED:
        try:
            record("SGD", [0.1, 0.2], name, dict(options), [])
        except ValueError as error:
            yield {"optimizer": "SGD", "lrs": [0.1, 0.2], "name": name, "options": options, "message": str(error)}


def main(path, seed, cases):
    random.seed(seed)
    warnings.simplefilter("ignore")
    trace = Trace()
    run = []
    for name, draw in DRAW.items():
        done = 0
        while done < int(cases):
            options = draw()
            case = {"optimizer": random.choice(["SGD", "Adam"]), "lrs": [rate(), rate()], "name": name, "options": options}
            metrics = [10 * 0.98**i + random.gauss(0, 0.3) for i in range(STEPS)]
            try:
                seen = record(case["optimizer"], case["lrs"], name, dict(options), metrics)
            except ZeroDivisionError:
                continue  # tests/schedules.rs has such cases of its own
            trace.push(f"{len(run)}/seen", seen)
            trace.push(f"{len(run)}/metrics", torch.tensor(metrics, dtype=torch.float64))
            run.append(case)
            done += 1
    trace.describe({"cases": run, "refused": list(refused())}, environment())
    trace.save(path)


if __name__ == "__main__":
    main(*sys.argv[1:])

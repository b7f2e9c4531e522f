"""Puts back what running a model once more changes. It knows modules and generators of random numbers, and no export."""

import collections
import contextlib
import io
import logging
import pickle
import random
import sys
import warnings

import torch


@contextlib.contextmanager
def unchanged(model):
    """Puts back the generators, the modules' attributes, warnings and logging. What is printed meanwhile is lost.

    Yields a list, which has the names of the generators beside PyTorch's own that were drawn from, when it ends.
    """
    containers, generators = reachable(model)
    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    logger = logging.getLogger("torch")
    level, limit = logger.level, sys.getrecursionlimit()
    drawn, said = [], io.StringIO()
    with warnings.catch_warnings(), torch.random.fork_rng(devices), contextlib.ExitStack() as silent:
        silent.enter_context(contextlib.redirect_stdout(said))
        silent.enter_context(contextlib.redirect_stderr(said))
        warnings.simplefilter("ignore")
        logger.setLevel(logging.CRITICAL)
        try:
            yield drawn
        finally:
            sys.setrecursionlimit(limit)
            logger.setLevel(level)
            for container, content in containers:
                put_back(container, content)
            for name, state, get, put in generators:
                if pickle.dumps(get()) != pickle.dumps(state):
                    drawn.append(name)
                    put(state)


def reachable(model):
    """What a forward can change: the containers in the modules, each with what it holds, and the generators.

    Lists, dicts, sets and deques are containers, also within each other. So is the dict of a module's attributes.
    A generator is its name, its state, and the functions that return and set it.
    """
    found, generators = {}, []

    def note(name, get, put):
        generators.append((name, get(), get, put))

    note("Python's random", random.getstate, random.setstate)
    numpy = sys.modules.get("numpy.random")
    if numpy is not None:
        note("numpy.random", numpy.get_state, numpy.set_state)
    values = [module.__dict__ for module in model.modules() if not isinstance(module, torch.jit.ScriptModule)]
    while values:
        value = values.pop()
        if id(value) in found:
            continue
        if isinstance(value, (list, tuple, set, dict, collections.deque)):
            found[id(value)] = value, list(value.items() if isinstance(value, dict) else value)
            values += value.values() if isinstance(value, dict) else value
        elif isinstance(value, torch.Generator):
            found[id(value)] = value, None
            note("a torch.Generator of its own", lambda own=value: own.get_state().tolist(), set_state_of(value))
        elif isinstance(value, random.Random):
            found[id(value)] = value, None
            note("a random.Random of its own", value.getstate, value.setstate)
        elif numpy is not None and isinstance(value, numpy.Generator):
            found[id(value)] = value, None
            bits = value.bit_generator
            note("a numpy.random.Generator of its own", lambda own=bits: own.state, lambda state, own=bits: setattr(own, "state", state))
        elif numpy is not None and isinstance(value, numpy.RandomState):
            found[id(value)] = value, None
            note("a numpy.random.RandomState of its own", value.get_state, value.set_state)
    containers = [(value, content) for value, content in found.values() if content is not None and not isinstance(value, tuple)]
    return containers, generators


def set_state_of(generator):
    """A function that sets the state of a torch.Generator."""
    return lambda state: generator.set_state(torch.tensor(state, dtype=torch.uint8))


def put_back(container, content):
    """Gives a container its former content, if it has another one."""
    is_dict = isinstance(container, dict)
    now = list(container.items() if is_dict else container)
    if is_dict:
        same = len(now) == len(content) and all(a is b and c is d for (a, c), (b, d) in zip(now, content))
    else:
        same = len(now) == len(content) and all(a is b for a, b in zip(now, content))
    if same:
        return
    container.clear()
    (container.extend if isinstance(container, (list, collections.deque)) else container.update)(content)

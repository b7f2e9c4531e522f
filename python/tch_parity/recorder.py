"""Records training steps of a model, whatever the loop. It knows modules, autograd and optimizers, and no file format."""

import contextlib
import fnmatch
import functools
import inspect

import torch
from torch import nn

from .case import Case
from .checkpoints import checkpoints
from .gradients import Call, Gradients
from .hooks import Hook
from .names import FACTOR, LOSS, OUTPUT, TARGET, distinct, escaped, of_module, parts
from .numerics import environment
from .optimizers import Optimizer
from .programs import Programs
from .trace import ensure_writable
from .writes import Writes


class Recorder:
    """Records training steps of a model into a case file, which is written when the `with` ends well.

    path       the file
    model      any torch.nn.Module; each of its modules is recorded under its name in named_modules(), the
               model itself as "output"; of several calls the second is NAME@2, of several outputs the first
               is NAME[0]
    optimizer  the optimizer, or a dict of several by name: their hyper-parameters and state are recorded
    loss       loss(output, target) is what step() starts backward from; without one, the model's output is the loss
    only, skip patterns of module names, such as "layers.*.norm?": those that are recorded, and those that
               are not
    on_error   "discard" writes no file if the `with` ends by an exception, "keep" one of the whole steps
    program    whether torch.export is asked for the model's program at its first call
    keep       "values" keeps every tensor, "digests" the SHA-256 and a summary of those that a replay only computes
    operators  whether the digest of what each operator of the program returns is recorded: the program is run once more
    initial    a safetensors file with the model's initial parameters and buffers, which the case then refers to

    What cannot be recorded is printed to stderr, and listed in the file's `run` under "not_recorded".
    """

    def __init__(self, path, model, *, optimizer=None, loss=None, only=("*",), skip=(), on_error="discard", program=True,
                 keep="values", initial=None, operators=False):
        self.path, self.model, self.loss_function, self.on_error = path, model, loss, on_error
        ensure_writable(path)
        if on_error not in ("discard", "keep"):
            raise ValueError(f'on_error is {on_error!r}, and has to be "discard" or "keep"')
        if keep not in ("values", "digests"):
            raise ValueError(f'keep is {keep!r}, and has to be "values" or "digests"')
        if loss is not None and not callable(loss):
            raise TypeError(f"loss is {loss!r}, and has to be a function: loss(output, target)")
        if isinstance(model, torch.jit.ScriptModule):
            raise TypeError("a ScriptModule takes no hooks: record the module that it was made of")
        named = optimizer if isinstance(optimizer, dict) else {} if optimizer is None else {None: optimizer}
        if isinstance(optimizer, dict) and not all(isinstance(name, str) for name in named):
            raise TypeError("the names of the optimizers have to be strings")
        self.optimizers = [Optimizer(name, one) for name, one in named.items()]
        only, skip = ([patterns] if isinstance(patterns, str) else patterns for patterns in (only, skip))

        def wanted(name):
            return any(fnmatch.fnmatchcase(name, p) for p in only) and not any(fnmatch.fnmatchcase(name, p) for p in skip)

        self.outermost = None  # the module whose call is within no other one
        modules = {of_module(name): module for name, module in model.named_modules()}
        self.modules = {name: module for name, module in modules.items() if wanted(name)}
        if not self.modules:
            raise ValueError(f"no module of {type(model).__name__} is recorded: only={only}, skip={skip}")
        self.case = Case(path, keep, initial)
        self.case.leave_out([name for name in modules if name not in self.modules], "left out by only= or skip=", quiet=True)
        tensors = [*model.named_parameters(), *model.named_buffers()]
        uninitialized = [name for name, t in tensors if isinstance(t, nn.parameter.UninitializedTensorMixin)]
        if uninitialized:
            raise ValueError(f"{uninitialized[0]} has no shape yet: run the model once before it is recorded")
        self.steps = 0
        self.is_open = self.step_open = False
        self.writes = Writes()
        self.programs = Programs(model, self.case, program, operators)
        self.hooks = contextlib.ExitStack()
        self.gradients = Gradients()
        self.hooks.callback(self.gradients.close)
        devices = {p.device for p in [*model.parameters(), *model.buffers()]}
        if len(devices) > 1:
            raise ValueError(f"the model is on several devices: {sorted(map(str, devices))}")
        self.device = next(iter(devices), torch.device("cpu"))
        self.environment = environment(device=self.device)

    def __enter__(self):
        if self.steps or self.is_open:
            raise RuntimeError("a Recorder records one run: make another one")
        self.case.open()
        self.hooks.callback(self.case.close)
        self.is_open = True
        try:
            self._begin_recording()
        except BaseException:
            self.hooks.close()
            raise
        return self

    def _begin_recording(self):
        """Records what the run starts from, and registers the hooks."""
        for section, tensors in (("param", self.model.named_parameters()), ("buffer", self.model.named_buffers())):
            for name, tensor in tensors:
                self.case.push_initial(f"{section}/{of_module(name)}", name, tensor)
        checkpoint = self.case.checkpoint
        if checkpoint is not None and not checkpoint.names:
            raise ValueError(f"{checkpoint.path} has no parameter and no buffer of {type(self.model).__name__}")
        self.parameters = self._parameters()
        self._states("state/")
        self._leave_out_of_optimizers()
        self.writes.note([*self.model.parameters(), *self.model.buffers()])
        self.known = {name for name, _ in self.model.named_modules()}
        self.last_hooks = {}  # the hooks that see what modules return, by the module's id
        for name, module in self.model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                self.case.leave_out([of_module(name)], "a ScriptModule takes no hooks")
                continue
            enter = Hook(functools.partial(self._entered, of_module(name)))
            self.hooks.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            self.hooks.callback(module.register_forward_hook(Hook(self._left), always_call=True).remove)
        for name, module in self.modules.items():
            if not isinstance(module, torch.jit.ScriptModule):
                handle = module.register_forward_hook(Hook(functools.partial(self._returned, name)))
                self.last_hooks[id(module)] = handle.id
                self.hooks.callback(handle.remove)
        for optimizer in self.optimizers:
            hook = Hook(functools.partial(self._taken, optimizer))
            self.hooks.callback(optimizer.optimizer.register_step_pre_hook(hook).remove)
            hook = Hook(functools.partial(self._stepped, optimizer))
            self.hooks.callback(optimizer.optimizer.register_step_post_hook(hook).remove)

    def _leave_out_of_optimizers(self):
        """Says what an optimizer has that is none of the model's and none of its formula's."""
        held = [p for o in self.optimizers for group in o.optimizer.param_groups for p in group["params"]]
        if len({id(p) for p in held}) < len(held):
            self.programs.give_up("two optimizers hold the same parameter")
        for optimizer in self.optimizers:
            parameters, keys = optimizer.others(self._names())
            kind = type(optimizer.optimizer).__name__
            if parameters:
                self.case.leave_out([f"optimizer/{kind}"], f"{parameters} of its parameters are none of the model's")
            self.case.leave_out([f"optimizer/{key}" for key in keys], f"a key of a group that is no argument of {kind}", quiet=True)

    def __exit__(self, error, *_):
        self.is_open = False
        with self.hooks:
            if error is None or self.on_error == "keep" and self.steps > 0:
                self._save()

    def _save(self):
        if self.steps == 0:
            raise RuntimeError(f"nothing was recorded into {self.path}: call watch(), step() or forward()")
        run = {"model": type(self.model).__name__}
        if self.loss_function is not None:
            run["loss"] = getattr(self.loss_function, "__name__", type(self.loss_function).__name__)
        names = self._names()
        described = {o.name: o.described(names, list(names.values())) for o in self.optimizers}
        run.update({"optimizer": described[None]} if None in described else {"optimizers": described} if described else {})
        run["steps"] = self.steps
        if self.case.values:
            run["values"] = self.case.values
        programs = self.programs.described(self.modules, self.steps, [o.stepped for o in self.optimizers])
        if programs is not None:
            run["program"] = programs
        if self.case.not_recorded:
            run["not_recorded"] = self.case.not_recorded
        self.case.save(run, self.environment)

    @contextlib.contextmanager
    def watch(self):
        """Records one step of your own loop, whatever is in it."""
        if not self.is_open:
            raise RuntimeError("a Recorder records within its `with`")
        if self.step_open:
            raise RuntimeError("watch() is within another watch()")
        begun = self._begin()
        try:
            yield self
            self._end()
        except BaseException:
            in_case, in_programs, in_optimizers = begun
            self.programs.rollback(self.steps, in_programs)
            for optimizer, in_optimizer in zip(self.optimizers, in_optimizers):
                optimizer.rollback(in_optimizer)
            self.case.rollback(in_case)
            self.steps -= 1
            raise
        finally:
            self.step_open = False
            self.gradients.end()

    def loss(self, loss, name=None):
        """Records a loss of this step, of several each by a name of its own, and returns it."""
        if not self.step_open:
            raise RuntimeError("loss() is called outside of watch()")
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise TypeError("the loss is no tensor of one element")
        name = LOSS if name is None else f"{LOSS}[{escaped(name)}]"
        if name in self.losses:
            raise ValueError(f"a loss is recorded as {name} in this step already: give each a name, as in rec.loss(loss, 'second')")
        self.case.push(f"forward/{name}", loss)
        self.losses[name] = loss.detach().clone()
        return loss

    def input(self, name, value):
        """Records something else that the step starts from, such as the loss's target, and returns it."""
        if not self.step_open:
            raise RuntimeError("input() is called outside of watch()")
        if escaped(name) in self.named_inputs:
            raise ValueError(f"an input or an argument is recorded as {name!r} in this step already: choose another name")
        self.named_inputs.add(escaped(name))
        self._input(escaped(name), value)
        return value

    def step(self, *args, **kwargs):
        """zero_grad, forward, loss, backward, and the optimizer's step; returns the loss.

        The last positional argument is the target where there is a loss; all others are the model's.
        """
        if self.loss_function is not None and not args:
            raise TypeError("step(*inputs, target): the target is missing")
        if len(self.optimizers) > 1:
            raise TypeError("step() takes one optimizer: use watch() with several")
        if any(isinstance(o.optimizer, torch.optim.LBFGS) for o in self.optimizers):
            raise TypeError("step() passes no closure, which LBFGS needs: use watch()")
        inputs, target = (args[:-1], args[-1:]) if self.loss_function is not None else (args, ())
        with self.watch():
            self.target = target
            for optimizer in self.optimizers:
                optimizer.optimizer.zero_grad()
            for _, tensor in [*self.parameters, *parts("", [inputs, kwargs])]:
                if isinstance(tensor, torch.Tensor) and tensor.is_leaf:
                    tensor.grad = None
            output = self.model(*inputs, **kwargs)
            loss = self.loss_function(output, *target) if self.loss_function is not None else output
            if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
                raise TypeError(
                    "the loss is no tensor of one element: give Recorder a loss= that returns one, or call forward()"
                )
            self.loss(loss)
            if not loss.requires_grad:
                raise RuntimeError("the loss depends on nothing that requires grad: call forward() instead of step()")
            loss.backward()
            for optimizer in self.optimizers:
                optimizer.optimizer.step()
        return loss.detach()

    def forward(self, *inputs, **kwargs):
        """A forward pass alone; returns the model's output."""
        with self.watch(), torch.no_grad():
            return self.model(*inputs, **kwargs)

    def _begin(self):
        self.steps += 1
        self.step_open = True
        begun = self.case.begin(self.steps), self.programs.begin(), [o.begin() for o in self.optimizers]
        self.before = {}  # the calls of modules before the model's call that has begun
        self.calls, self.outer_calls = {}, {}  # how often each module was called, and from outside of the model
        self.recomputed = {}  # by the node of a checkpoint: the calls in it, those still to be recomputed first
        self.inputs = []  # the names of the leaves among the inputs that require a gradient
        self.losses = {}
        self.named_inputs = set()  # those that input() named, and the model's arguments
        self.target = ()
        self.outermost = None
        self.generators = self._generators()
        self.called = False  # whether a module was
        for name, state in self.generators.items():
            self.case.trace.keep(self.case.prefix + name, state)
        self.parameters = self._parameters()
        written = self.writes.changed([*self.parameters, *self._buffers()])
        if written is not None:
            self.programs.give_up(f"{written} was written to before step {self.steps}, outside of a recorded step")
            self.writes.note([*self.model.parameters(), *self.model.buffers()])
        self.gradients.begin(self.steps, self.parameters)
        return begun

    def _end(self):
        for name, state in self._generators().items():
            if torch.equal(state, self.generators[name]):  # nothing was drawn
                self.case.trace.forget(self.case.prefix + name)
        of_output = [call for call in self.gradients.of_outputs if call.module == OUTPUT]
        calls_parts = bool(self.outer_calls.keys() - {OUTPUT})
        lacks_output = OUTPUT not in self.modules
        self.programs.end_step(self.steps, of_output, calls_parts, lacks_output, self.gradients.arrived)
        added = [name for name, _ in self.model.named_modules() if name not in self.known]
        if added:
            self.known.update(added)
            self.case.leave_out(map(of_module, added), "it was added to the model while it was recorded")
            self.programs.give_up(f"{added[0]} was added to the model in step {self.steps}")
        if self.gradients.arrived:
            self._push_gradients()
        if self.gradients.kept:
            self.programs.kept[str(self.steps)] = self.gradients.kept
        passes = self.gradients.passes(OUTPUT)
        if len(passes) > 1:
            self.programs.backwards[str(self.steps)] = passes
        after = f"step/{self.steps}/"
        if not self.losses:
            self.case.leave_out([f"forward/{LOSS}", f"step/{LOSS}"], "the loop does not name it: rec.loss(loss)", quiet=True)
        for name, loss in self.losses.items():
            self.case.push(after + name, loss, "")
        self.parameters = self._parameters()  # they may be others now
        written = self.writes.changed(self.parameters)
        if written is not None:
            self.programs.give_up(f"{written} was written to in step {self.steps}, and not by a recorded optimizer")
        self.writes.note([*self.model.parameters(), *self.model.buffers()])
        for name, tensor in [*self.parameters, *self._buffers()]:
            self.case.push(after + name, tensor, "")
        self._states(f"{after}state/")
        self.case.outputs.clear()

    def _generators(self):
        """The states of the generators that the model can draw from."""
        cpu = {"rng": torch.get_rng_state()}
        return {**cpu, "rng[cuda]": torch.cuda.get_rng_state(self.device)} if self.device.type == "cuda" else cpu

    def _parameters(self):
        return [(of_module(name), p) for name, p in self.model.named_parameters()]

    def _buffers(self):
        return [(of_module(name), buffer) for name, buffer in self.model.named_buffers()]

    def _names(self):
        """The parameters' names by id; a tied parameter has the first of its names."""
        return {id(p): name for name, p in self.parameters}

    def _entered(self, name, module, args, kwargs):
        """The call of a module, which may be within that of another one."""
        ours = self.last_hooks.get(id(module))
        if ours is not None and next(reversed(module._forward_hooks)) != ours:
            module._forward_hooks.move_to_end(ours)  # a hook that was added since may return something else
        if not self.step_open or self.programs.exporting or self.outermost is not None or checkpoints()[1] is not None:
            return
        self.outermost = module
        self.gradients.watch_parameters(self._parameters())
        if not self.called:
            # The loop may have drawn its batch in the step, and that is among the inputs.
            self.called = True
            self.generators = self._generators()
            for generator, state in self.generators.items():
                self.case.trace.replace(self.case.prefix + generator, state)
        if module is self.model:
            self._arguments(args, kwargs)
        else:
            number = self.outer_calls[name] = self.outer_calls.get(name, 0) + 1
            for argument, value in arguments(module, args, kwargs):
                self._input(f"{name}.{escaped(argument)}" + (f"@{number}" if number > 1 else ""), value)

    def _left(self, module, *_):
        if module is self.outermost and not self.programs.exporting:
            self.outermost = None

    def _arguments(self, args, kwargs):
        """What the model is called with."""
        number = self.outer_calls[OUTPUT] = self.outer_calls.get(OUTPUT, 0) + 1
        self.before = dict(self.calls)
        for name, state in self._generators().items() if number > 1 else ():
            if not torch.equal(state, self.generators[name]):  # something was drawn before it
                self.case.trace.keep(f"{self.case.prefix}{name}@{number}", state)
        named = []
        for name, value in arguments(self.model, args, kwargs):
            clashes = name == TARGET and self.loss_function is not None or number == 1 and escaped(name) in self.named_inputs
            named.append((f".{name}" if clashes else escaped(name), value))
        self.named_inputs.update(escaped(name) for name, _ in named)
        updated = number > 1 and any(o.stepped and o.stepped[-1] == self.steps for o in self.optimizers)
        self.programs.find(self.steps, args, kwargs, updated)
        fresh = self.programs.fresh
        if fresh is not None:
            for name, value in named:
                fresh.names.update({id(leaf): f"input/{path}" for path, leaf in parts(name, value)})
        for name, value in named:
            self._input(name if number == 1 else f"{name}@{number}", value)
        if number == 1 and self.target:
            self._input(TARGET, self.target[0])
        self.programs.run_operators(number, args, kwargs)

    def _input(self, name, value):
        for path, leaf in parts(name, value):
            if not isinstance(leaf, torch.Tensor):
                self.case.value(f"input/{path}", leaf)
                continue
            if self.case.push(f"input/{path}", leaf) and leaf.requires_grad and leaf.is_leaf:
                self.inputs.append(f"input/{path}")
                self.gradients.watch_input(f"input/{path}", leaf)

    def _taken(self, optimizer, _, args, kwargs):
        """The gradients as the optimizer takes them, where they are others than backward left."""
        if not self.step_open:
            return
        optimizer.note(self.steps)
        if any(callable(given) for given in [*args[1:], *kwargs.values()]):
            return  # a closure computes those that it takes
        self._take(optimizer)

    def _stepped(self, optimizer, _, args, kwargs):
        """What an optimizer did is written by it; and where a closure computed the gradients, they are those now."""
        if not self.step_open:
            return
        self.writes.note(p for group in optimizer.optimizer.param_groups for p in group["params"])
        if any(callable(given) for given in [*args[1:], *kwargs.values()]):
            self._take(optimizer)

    def _take(self, optimizer):
        names = self._names()
        for group in optimizer.optimizer.param_groups:
            for p in group["params"]:
                name = names.get(id(p))
                if name is not None and p.grad is not None:
                    self.gradients.take(name, p.grad)

    def _returned(self, name, _module, _args, output):
        self._output(name, output)

    def _output(self, module, output):
        if not self.step_open or self.programs.exporting:
            return
        nodes, recomputes = checkpoints()
        if recomputes is None:
            number = self.calls[module] = self.calls.get(module, 0) + 1
            call = Call(module, module if number == 1 else f"{module}@{number}")
            self.gradients.of_outputs.append(call)
            leaves = list(parts(call.name, output))
            for name, tensor in leaves:
                if not isinstance(tensor, torch.Tensor):
                    self.case.value(f"forward/{name}", tensor)
                elif self.case.push_output(f"forward/{name}", tensor):
                    call.recorded.append(name)
            if self.programs.fresh is not None:
                number -= self.before.get(module, 0)
                own = module if number == 1 else f"{module}@{number}"  # as if the call were the first
                names = {id(leaf): own + name[len(call.name):] for name, leaf in leaves if name in call.recorded}
                self.programs.fresh.returned(module, number, output, names)
        else:
            # A recomputation is no call of its own. A checkpoint with a node of its own computes without a graph
            # first, so that the gradients are those of what it recomputes.
            calls = self.recomputed.get(recomputes)
            if not calls or calls[0].module != module:
                return
            call = calls.pop(0)
            leaves = parts(call.name, output)
        for node in nodes:
            self.recomputed.setdefault(node, []).append(call)
        for name, tensor in leaves:
            if name in call.recorded and name not in call.gradients and tensor.requires_grad:
                self.gradients.watch_output(call, name, tensor)

    def _push_gradients(self):
        """In the order in which backward computes them: each output's, then its module's own parameters'."""
        arrived = self.gradients.leaves
        parameters = {name: p for name, p in self.parameters if p.requires_grad or name in arrived}
        for call in reversed(self.gradients.of_outputs):
            for name, gradient in reversed(call.gradients.items()):
                self._push_gradient(name, gradient)
            for own in self.modules[call.module]._parameters:
                full = of_module(own) if call.module == OUTPUT else f"{call.module.removeprefix('.')}.{escaped(own)}"
                if parameters.pop(full, None) is not None:
                    self._push_gradient(full, self.gradients.of_leaf(full))
        for name in [*parameters, *self.inputs]:
            self._push_gradient(name, self.gradients.of_leaf(name))
        self.gradients.finish_taken()
        factor = self.gradients.factor() if self.gradients.taken and self.case.of_digests else None
        if factor is not None:
            self.case.trace.push(self.case.prefix + FACTOR, factor)
            self.case.factor = factor
        for gradient in self.gradients.taken.values():
            self.case.keep("taken/", gradient)

    def _push_gradient(self, name, gradient):
        if gradient is None:
            self.case.leave_out([f"grad/{name}"], "backward computed none")
        else:
            self.case.keep("grad/", gradient)

    def _states(self, prefix):
        for optimizer in self.optimizers:
            for name, value in optimizer.state(self._names()):
                if isinstance(value, (bool, int, float)):
                    value = torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else torch.int64)
                if isinstance(value, torch.Tensor) and not self.case.holds(prefix + name):
                    self.case.push(prefix + name, value, "")


def arguments(module, args, kwargs):
    """The arguments of a call of forward by name; of **kwargs each by its own."""
    try:
        signature = inspect.signature(module.forward)
        named = dict(signature.bind(*args, **kwargs).arguments)
    except (TypeError, ValueError):  # forward itself says what is wrong
        return []
    pairs = []
    for name, value in named.items():
        of_any_name = signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD
        pairs.extend(value.items() if of_any_name else [(name, value)])
    return distinct(pairs)

"""Records training steps of a model, whatever the loop. It knows modules, autograd and optimizers, and no file format."""

import contextlib
import fnmatch
import functools

import torch

from .backward import push_gradients
from .beyond import TensorHooks
from .case import Case
from .checked import check_choices, check_file, check_loss, check_model, check_name, check_shapes, optimizers
from .checkpoints import checkpoints
from .copies import is_whole
from .generators import Generators
from .gradients import Gradients
from .hooks import Hook, within_compiled
from .names import LOSS, OUTPUT, TARGET, arguments, escaped, of_module, parts
from .numerics import environment
from .outputs import Outputs
from .programs import Programs
from .writes import Writes


def tensors_of(module):
    """The parameters and the buffers of a module."""
    yield from module.parameters()
    yield from module.buffers()


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
    dynamic_shapes  the sizes that the program leaves open, as torch.export.export takes them, for a port that takes any;
                    a dict of those of each call's arguments, in which arguments without any may be missing
    initial    a safetensors file with the model's initial parameters and buffers, which the case then refers to

    What cannot be recorded is printed to stderr, and listed in the file's `run` under "not_recorded".
    """

    def __init__(self, path, model, *, optimizer=None, loss=None, only=("*",), skip=(), on_error="discard", program=True,
                 keep="values", initial=None, operators=False, dynamic_shapes=None):
        self.path, self.model, self.loss_function, self.on_error = path, model, loss, on_error
        check_file(path, initial)
        check_choices(on_error, keep, loss)
        self.device = check_model(model)
        check_shapes(dynamic_shapes, model)
        self.optimizers = optimizers(optimizer)
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
        self.steps = 0
        self.is_open = self.step_open = False
        self.writes = Writes()
        self.programs = Programs(model, self.case, program, operators, dynamic_shapes, self.device)
        self.hooks = contextlib.ExitStack()
        self.gradients = Gradients()
        self.hooks.callback(self.gradients.close)
        self.outputs = Outputs(self.case, self.programs, self.gradients)
        self.generators = Generators(self.device, self.case.trace)
        self.tensor_hooks = TensorHooks(self.gradients.hook_changes)
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
                if not self.case.push_initial(f"{section}/{of_module(name)}", name, tensor) or not is_whole(tensor):
                    self.programs.give_up(f"{name} is of a kind that no case holds as one tensor")
        checkpoint = self.case.checkpoint
        if checkpoint is not None and not checkpoint.names:
            raise ValueError(f"{checkpoint.path} has no parameter and no buffer of {type(self.model).__name__}")
        self.parameters = self._parameters()
        self._states("state/")
        self._leave_out_of_optimizers()
        self.writes.note(tensors_of(self.model), by_bits=self.programs.wanted)
        for optimizer in self.optimizers:
            optimizer.note_state()
        self.known = dict(self.model.named_modules())
        self.last_hooks = {}  # the hooks that see what modules return, by the module's id
        for name, module in self.model.named_modules():
            if isinstance(module, torch.jit.ScriptModule):
                self.case.leave_out([of_module(name)], "a ScriptModule takes no hooks")
                continue
            enter = Hook(functools.partial(self._entered, of_module(name)))
            self.hooks.callback(module.register_forward_pre_hook(enter, with_kwargs=True).remove)
            self.hooks.callback(module.register_forward_hook(Hook(self._left), always_call=True).remove)
        within = [of_module(name) for name in within_compiled(self.model)]
        self.case.leave_out(within, "it is within a compiled module, of which no hook sees the calls")
        first = Hook(self._before_call)  # hooks of the model's own may write to its buffers, as spectral_norm does
        self.hooks.callback(self.model.register_forward_pre_hook(first, prepend=True).remove)
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
            raise RuntimeError(
                f"nothing was recorded into {self.path}: call step() or forward(), or within watch() the model itself,"
                " and not its forward()"
            )
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
            if self._did_something():
                self._end()
            else:  # the loop went on at once
                self._rollback(*begun)
        except BaseException:
            self._rollback(*begun)
            raise
        finally:
            self.step_open = False
            self.gradients.end()

    def loss(self, loss, name=None):
        """Records a loss of this step, of several each by a name of its own, and returns it."""
        if not self.step_open:
            raise RuntimeError("loss() is called outside of watch()")
        check_loss(loss, name)
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
        check_name(name)
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
        begun = self.case.begin(self.steps), self.programs.begin(), [o.begin() for o in self.optimizers], self.writes.begin()
        self.outputs.begin()
        self.outer_calls = {}  # how often each module was called from outside of the model
        self.inputs = []  # the names of the leaves among the inputs that require a gradient
        self.losses = {}
        self.named_inputs = set()  # those that input() named, and the model's arguments
        self.target = ()
        self.outermost = None
        self.generators.begin(self.case.prefix)
        self.parameters = self._parameters()
        tensors = [*self.parameters, *self._buffers()]
        if self.programs.wanted and self.writes.changed(tensors, by_bits=False) is not None:
            self._watch_modules()  # that is the better reason
            self._written(tensors, f"before step {self.steps}, outside of a recorded step")
            self.writes.note([tensor for _, tensor in tensors], by_bits=False)
        self.gradients.begin(self.steps, self.parameters)
        return begun

    def _end(self):
        self.generators.end()
        of_output = [call for call in self.gradients.of_outputs if call.module == OUTPUT]
        lacks_output = OUTPUT not in self.modules
        self.gradients.finish()
        self.programs.end_step(self.steps, of_output, self._called(), lacks_output, self.gradients, self._stepped_now())
        self._watch_modules()
        if self.gradients.arrived:
            push_gradients(self.case, self.gradients, self.modules, self.parameters, self.inputs)
        passes = self.gradients.passes(OUTPUT)
        if len(passes) > 1:
            self.programs.backwards[str(self.steps)] = passes
        states = self.gradients.autocasts(OUTPUT)
        if any(states):
            self.programs.in_autocast[str(self.steps)] = states
        after = f"step/{self.steps}/"
        if not self.losses:
            self.case.leave_out([f"forward/{LOSS}", f"step/{LOSS}"], "the loop does not name it: rec.loss(loss)", quiet=True)
        for name, loss in self.losses.items():
            self.case.push(after + name, loss, "")
        self.parameters = self._parameters()  # they may be others now
        buffers = self._buffers()
        self._written(self.parameters, f"in step {self.steps}, and not by a recorded optimizer", by_bits=True)
        self._written(buffers, f"in step {self.steps}, and not by a call of the model", by_bits=True)
        tensors = [*self.parameters, *buffers]
        self.writes.note([tensor for _, tensor in tensors], by_bits=False)
        for name, tensor in tensors:
            self.case.push(after + name, tensor, "")
        self._states(f"{after}state/")
        self.case.outputs.clear()

    def _rollback(self, in_case, in_programs, in_optimizers, in_writes):
        """Forgets the step that is open."""
        self.programs.rollback(self.steps, in_programs)
        for optimizer, in_optimizer in zip(self.optimizers, in_optimizers):
            optimizer.rollback(in_optimizer)
        self.case.rollback(in_case)
        self.writes.rollback(in_writes)
        self.gradients.rollback()
        self.steps -= 1

    def _did_something(self):
        """Whether there is anything to record of the step that is open."""
        named = self.generators.called or self.losses or self.named_inputs or self.gradients.arrived or self._stepped_now()
        return bool(named) or self.writes.changed([*self._parameters(), *self._buffers()], by_bits=False) is not None

    def _called(self):
        """The modules that the loop called, but for what computes a loss of the model's outputs and holds nothing."""
        called = list(self.outer_calls)
        behind = called[called.index(OUTPUT) + 1:] if OUTPUT in called else []
        modules = {of_module(name): module for name, module in self.model.named_modules()} if behind else {}
        return {name for name in called if name not in behind or any(True for _ in tensors_of(modules[name]))}

    def _stepped_now(self):
        """Whether an optimizer has taken its step in the step that is open."""
        return any(o.stepped and o.stepped[-1] == self.steps for o in self.optimizers)

    def _written(self, named, when, by_bits=False):
        """Whether something has written to a tensor, which no program does."""
        written = self.writes.changed(named, by_bits) if self.programs.wanted else None
        if written is not None:
            self.programs.give_up(f"{written} {when}")
        return written is not None

    def _watch_modules(self):
        """Says which modules came into the model since, and have no hooks."""
        for name, module in self.model.named_modules():
            if self.known.get(name) is not module:
                what = "replaced" if name in self.known else "added to the model"
                self.known[name] = module
                self.case.leave_out([of_module(name)], f"it was {what} while it was recorded")
                self.programs.give_up(f"{name} was {what} while it was recorded, by step {self.steps}")

    def _parameters(self):
        return [(of_module(name), p) for name, p in self.model.named_parameters()]

    def _buffers(self):
        return [(of_module(name), buffer) for name, buffer in self.model.named_buffers()]

    def _names(self):
        """The parameters' names by id; a tied parameter has the first of its names."""
        return {id(p): name for name, p in self.parameters}

    def _before_call(self, *_):
        """Looks for writes before a call of the model."""
        if self.step_open and not self.programs.exporting and self.outermost is None and self.programs.wanted:
            number = self.outer_calls.get(OUTPUT, 0) + 1
            tensors = [*self._parameters(), *self._buffers()]
            self._written(tensors, f"before call {number} of the model in step {self.steps}", by_bits=number > 1)

    def _entered(self, name, module, args, kwargs):
        """The call of a module, which may be within that of another one."""
        ours = self.last_hooks.get(id(module))
        if ours is not None and next(reversed(module._forward_hooks)) != ours:
            module._forward_hooks.move_to_end(ours)  # a hook that was added since may return something else
        if not self.step_open or self.programs.exporting or self.outermost is not None or checkpoints()[1] is not None:
            return
        self.outermost = module
        self.tensor_hooks.begin()
        self.parameters = self._parameters()
        self.gradients.watch_parameters(self.parameters)
        self.generators.begin_call()
        if module is self.model:
            self._arguments(args, kwargs)
        else:
            number = self.outer_calls[name] = self.outer_calls.get(name, 0) + 1
            for argument, value in arguments(module, args, kwargs):
                self._input(f"{name}.{escaped(argument)}" + (f"@{number}" if number > 1 else ""), value)

    def _left(self, module, *_):
        if module is not self.outermost or self.programs.exporting:
            return
        self.outermost = None
        self.tensor_hooks.end()
        if self.programs.wanted:
            buffers = self._buffers()
            replaced = self.writes.replaced(buffers)
            if replaced is not None:
                self.programs.give_up(f"the model puts another tensor in the place of {replaced}")
            self.writes.note([buffer for _, buffer in buffers], by_bits=True)

    def _arguments(self, args, kwargs):
        """What the model is called with."""
        number = self.outer_calls[OUTPUT] = self.outer_calls.get(OUTPUT, 0) + 1
        self.outputs.begin_call()
        if number > 1:
            self.generators.begin_later_call(number)
        named = []
        for name, value in arguments(self.model, args, kwargs):
            clashes = name == TARGET and self.loss_function is not None or number == 1 and escaped(name) in self.named_inputs
            named.append((f".{name}" if clashes else escaped(name), value))
        self.named_inputs.update(escaped(name) for name, _ in named)
        self.programs.find(self.steps, args, kwargs, self._stepped_now())
        fresh = self.programs.fresh
        if fresh is not None:
            for (name, _), (_, value) in zip(named, arguments(self.model, *fresh.given)):
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
        self._written(self.parameters, f"in step {self.steps} before the optimizer's step", by_bits=True)
        not_replayed = optimizer.not_replayed(self._names()) if self.programs.wanted else None
        if not_replayed is not None:
            self.programs.give_up(not_replayed)
        if any(callable(given) for given in [*args[1:], *kwargs.values()]):
            return  # a closure computes those that it takes
        self._take(optimizer)

    def _stepped(self, optimizer, _, args, kwargs):
        """What an optimizer did is written by it; and where a closure computed the gradients, they are those now."""
        if not self.step_open:
            return
        held = [p for group in optimizer.optimizer.param_groups for p in group["params"]]
        self.writes.note(held, by_bits=self.programs.wanted)
        optimizer.note_state()
        if any(callable(given) for given in [*args[1:], *kwargs.values()]):
            self._take(optimizer)

    def _take(self, optimizer):
        names = self._names()
        for group in optimizer.optimizer.param_groups:
            for p in group["params"]:
                name = names.get(id(p))
                if name is not None:
                    self.gradients.take(name, p.grad)

    def _returned(self, name, _module, _args, output):
        if self.step_open and not self.programs.exporting:
            self.outputs.returned(name, output)

    def _states(self, prefix):
        for optimizer in self.optimizers:
            for name, value in optimizer.state(self._names()):
                if isinstance(value, (bool, int, float)):
                    value = torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else torch.int64)
                if isinstance(value, torch.Tensor) and not self.case.holds(prefix + name):
                    self.case.push(prefix + name, value, "")

"""Records what a torch.nn.Module computes, so that a port of it can be compared tensor by tensor.

One file, to import or to copy; it needs nothing but torch.

    from recorder import Recorder, compute_with

    compute_with("portable")  # before torch computes anything: the same bits on every x86-64 machine
    model, optimizer = ...
    with Recorder("case.safetensors", model, optimizer=optimizer, loss=torch.nn.MSELoss()) as rec:
        rec.step(x, target)

The file is a safetensors file; docs/format.md describes it.
"""

import contextlib
import ctypes
import fnmatch
import inspect
import json
import os
import re
import sys
import tempfile
from pathlib import Path

import torch
import torch.utils.checkpoint

FORMAT = 1

# As safetensors names them, in the order in which it lays tensors out, so that a file is the same bytes
# whoever writes it.
DTYPES = {
    torch.int64: "I64",
    torch.float64: "F64",
    torch.float32: "F32",
    torch.int32: "I32",
    torch.bfloat16: "BF16",
    torch.float16: "F16",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}

# The most memory that strides may take: so many times the bytes of the elements, or so many bytes.
MAX_SPREAD, MAX_SPAN = 16, 1 << 20

PORTABLE = {"ATEN_CPU_CAPABILITY": "default", "MKL_CBWR": "COMPATIBLE", "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}


def compute_with(numerics, device="cpu"):
    """Chooses "portable" or "native" kernels, and returns the fingerprint of this environment.

    To be called before torch first computes: only then do ATen, MKL and cuBLAS read the variables.
    """
    os.environ["NVIDIA_TF32_OVERRIDE"] = "0"
    if numerics == "portable":
        os.environ.update(PORTABLE)
        torch.set_num_threads(1)  # MKL chooses other kernels for small matrices where it has two
        torch.backends.mkldnn.set_flags(False)  # oneDNN compiles its kernels for the CPU that it meets
        torch.backends.nnpack.set_flags(False)  # NNPACK is there only on CPUs with AVX2
    else:
        for name in PORTABLE:
            os.environ.pop(name, None)
    return environment(numerics, torch.device(device))


def environment(numerics=None, device=torch.device("cpu")):
    """The fingerprint that the crate's Environment::current makes."""
    if numerics is None:
        portable = all(os.environ.get(name) == value for name, value in PORTABLE.items())
        portable &= torch.get_num_threads() == 1
        portable &= not torch.backends.mkldnn.enabled and not torch._C._get_nnpack_enabled()
        numerics = "portable" if portable else "native"
    config = torch.__config__.show()

    def line(start):
        found = re.search(rf"^ *- {re.escape(start)}(.*)$", config, re.MULTILINE)
        return found[1].strip() if found else ""

    if numerics == "portable" and line("CPU capability usage:") not in ("DEFAULT", ""):
        raise RuntimeError('compute_with("portable") came too late: torch had computed before')
    cpu = Path("/proc/cpuinfo")
    name = re.search(r"^model name\s*:(.*)$", cpu.read_text(), re.MULTILINE) if cpu.exists() else None
    about = {
        "torch": re.search(r"TORCH_VERSION=([^,]*)", config)[1],
        "cpu_capability": line("CPU capability usage:"),
        "threads": torch.get_num_threads(),
        "numerics": numerics,
        "device": str(device),
        "device_name": name[1].strip() if name else "",
        "mkl": line("Intel(R) oneAPI Math Kernel Library Version"),
        "onednn": line("Intel(R) MKL-DNN"),
    }
    if device.type == "cuda":
        about["device_name"] = torch.cuda.get_device_name(device)
        about["cuda"] = {
            "runtime": line("CUDA Runtime"),
            "cudnn": line("CuDNN"),
            "cublas_workspace": os.environ.get("CUBLAS_WORKSPACE_CONFIG", ""),
            "tf32": False,
        }
    return about


class Trace:
    """Named tensors in order, as they are when they come in; the same file as the crate's Trace."""

    def __init__(self):
        self.tensors = {}
        self.strides = {}
        self.about = {}

    def push(self, name, tensor):
        if name in self.tensors:
            raise ValueError(f"two tensors named {name}")
        if tensor.dtype not in DTYPES or tensor.layout != torch.strided:
            raise ValueError(f"{name}: a case holds no {tensor.dtype}, {tensor.layout}")
        copy = tensor.detach()
        copy = copy.clone(memory_format=torch.contiguous_format) if copy.device.type == "cpu" else copy.cpu().contiguous()
        self.tensors[name] = copy.resolve_neg() if copy.is_neg() else copy
        strides = strides_to_keep(tensor)
        if strides:
            self.strides[name] = strides

    def describe(self, run, environment):
        self.about = {"run": run, "environment": environment}

    def save(self, path):
        """Writes beside the file and renames; no tensor is copied once more."""
        path = Path(path)
        strides = {"strides": self.strides} if self.strides else {}
        metadata = {"format": FORMAT, "order": list(self.tensors), **strides, **self.about}
        header = {"__metadata__": {"tch-parity": compact(metadata)}}
        offset = 0
        rank = {dtype: i for i, dtype in enumerate(DTYPES)}
        laid_out = sorted(self.tensors.items(), key=lambda item: (rank[item[1].dtype], item[0].encode()))
        for name, tensor in laid_out:
            end = offset + tensor.nbytes
            header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [offset, end]}
            offset = end
        header = compact(header).encode()
        header += b" " * (-len(header) % 8)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".recorder.", delete=False, buffering=0) as file:
            try:
                write(file, len(header).to_bytes(8, "little") + header)
                small = bytearray()  # tensors, of which each would cost a call of its own
                for _, tensor in laid_out:
                    if tensor.nbytes < 1 << 16:
                        small += ctypes.string_at(tensor.data_ptr(), tensor.nbytes)
                    if tensor.nbytes >= 1 << 16 or len(small) >= 1 << 20:
                        write(file, small)
                        small = bytearray()
                    if tensor.nbytes >= 1 << 16:
                        write(file, (ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr()))
                write(file, small)
                umask = os.umask(0)
                os.umask(umask)
                os.chmod(file.name, 0o666 & ~umask)  # as any new file, and not as a temporary one
                os.replace(file.name, path)
            except BaseException:
                os.unlink(file.name)
                raise


def strides_to_keep(tensor):
    """The strides of a tensor, or None where they are those of a new one, or leave gaps that would be too large."""
    strides, contiguous, stored = list(tensor.stride()), [], 1
    for n in reversed(tensor.shape):
        contiguous.insert(0, stored)
        stored *= n
    span = 1 + sum((n - 1) * stride for n, stride in zip(tensor.shape, strides))
    large = span * tensor.element_size() > max(MAX_SPREAD * tensor.nbytes, MAX_SPAN)
    return None if tensor.numel() == 0 or strides == contiguous or large else strides


def write(file, data):
    """All of it: one call writes 2 GiB at most."""
    data = memoryview(data).cast("B")
    while data:
        data = data[file.write(data):]


def compact(value):
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


class Recorder:
    """Records training steps of a model into a case file, which is written when the `with` ends well.

    path       the file
    model      any torch.nn.Module; each of its modules is recorded under its name in named_modules(), the
               model itself as "output"; of several calls the second is NAME@2, of several outputs the first
               is NAME[0]
    optimizer  stepped after each backward, if given
    loss       loss(output, target) is what backward starts from; without one, the model's output is the loss
    only, skip patterns of module names, such as "layers.*.norm?": those that are recorded, and those that
               are not

    What cannot be recorded is printed to stderr, and listed in the file's `run` under "not_recorded".
    """

    def __init__(self, path, model, *, optimizer=None, loss=None, only=("*",), skip=()):
        self.path, self.model, self.optimizer, self.loss = path, model, optimizer, loss
        only, skip = ([patterns] if isinstance(patterns, str) else patterns for patterns in (only, skip))

        def wanted(name):
            return any(fnmatch.fnmatchcase(name, p) for p in only) and not any(fnmatch.fnmatchcase(name, p) for p in skip)

        self.modules = {name or "output": module for name, module in model.named_modules()}
        if len(self.modules) != sum(1 for _ in model.named_modules()):
            raise ValueError('a submodule is named "output", which is the name of the whole model\'s output')
        left_out = [name for name in self.modules if not wanted(name)]
        self.modules = {name: module for name, module in self.modules.items() if wanted(name)}
        if not self.modules:
            raise ValueError(f"no module of {type(model).__name__} is recorded: only={only}, skip={skip}")
        self.trace = Trace()
        self.steps = 0
        self.not_recorded = [f"{name}: left out by only= or skip=" for name in left_out]
        self.hooks = contextlib.ExitStack()
        devices = {p.device for p in [*model.parameters(), *model.buffers()]}
        if len(devices) > 1:
            raise ValueError(f"the model is on several devices: {sorted(map(str, devices))}")
        self.environment = environment(device=next(iter(devices), torch.device("cpu")))

    def __enter__(self):
        self.parameters = dict(self.model.named_parameters())
        for name, p in self.parameters.items():
            self.trace.push(f"param/{name}", p)
        for name, b in self.model.named_buffers():
            self.trace.push(f"buffer/{name}", b)
        for name, module in self.modules.items():
            handle = module.register_forward_hook(lambda module, args, output, name=name: self._output(name, output))
            self.hooks.callback(handle.remove)
        return self

    def __exit__(self, error, *_):
        self.hooks.close()
        if error is not None:
            return
        if self.steps == 0:
            raise RuntimeError(f"nothing was recorded into {self.path}: call step() or forward()")
        run = {"model": type(self.model).__name__}
        if self.loss is not None:
            run["loss"] = getattr(self.loss, "__name__", type(self.loss).__name__)
        if self.optimizer is not None:
            group = {k: v for k, v in self.optimizer.param_groups[0].items() if k != "params"}
            plain = {k: v for k, v in group.items() if isinstance(v, (bool, int, float, str, list, tuple))}
            run["optimizer"] = {"name": type(self.optimizer).__name__, **plain}
        run["steps"] = self.steps
        if self.not_recorded:
            run["not_recorded"] = self.not_recorded
        self.trace.describe(run, self.environment)
        self.trace.save(self.path)

    def step(self, *args, **kwargs):
        """zero_grad, forward, loss, backward, and the optimizer's step; returns the loss.

        The last positional argument is the target where there is a loss; all others are the model's.
        """
        if self.loss is not None and not args:
            raise TypeError("step(*inputs, target): the target is missing")
        inputs, target = (args[:-1], args[-1:]) if self.loss is not None else (args, ())
        output = self._forward(inputs, target, kwargs, zero_grad=True)
        loss = self.loss(output, *target) if self.loss is not None else output
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1:
            raise TypeError("the loss is no tensor of one element: give Recorder a loss=, or call forward()")
        self._push("forward/L", loss)
        if not loss.requires_grad:
            raise RuntimeError("the loss depends on nothing that requires grad: call forward() instead of step()")
        loss.backward()
        self._gradients()
        if self.optimizer is not None:
            self.optimizer.step()
        self._after(loss)
        return loss.detach()

    def forward(self, *inputs, **kwargs):
        """A forward pass alone; returns the model's output."""
        with torch.no_grad():
            output = self._forward(inputs, (), kwargs, zero_grad=False)
        self._after(None)
        return output

    def _forward(self, inputs, target, kwargs, zero_grad):
        self.steps += 1
        self.prefix = "" if self.steps == 1 else f"step/{self.steps}/"
        self.calls = {}
        self.outputs = []  # of every call, in the order of execution
        self.recomputed = {}  # by the node of a checkpoint: the calls in it, those still to be recomputed first
        self.inputs = []
        signature = inspect.signature(self.model.forward)
        named = dict(signature.bind(*inputs, **kwargs).arguments)
        for name, parameter in signature.parameters.items():
            if parameter.kind is parameter.VAR_KEYWORD:
                named.update(named.pop(name, {}))  # of **kwargs, each by its own name
        named.update({"target": target[0]} if target else {})
        for name, value in named.items():
            for path, leaf in flat(name, value):
                if isinstance(leaf, torch.Tensor):
                    self._push(f"input/{path}", leaf)
                    self.inputs.append((path, leaf))
                else:
                    self._leave_out(f"input/{path}", f"{leaf!r} is no tensor")
        if zero_grad:
            for tensor in [*self.parameters.values(), *(tensor for _, tensor in self.inputs)]:
                tensor.grad = None
        return self.model(*inputs, **kwargs)

    def _output(self, module, output):
        nodes, recomputes = checkpoints()
        if recomputes is None:
            number = self.calls[module] = self.calls.get(module, 0) + 1
            call = Call(module, module if number == 1 else f"{module}@{number}")
            self.outputs.append(call)
            for name, tensor in flat(call.name, output):
                if not isinstance(tensor, torch.Tensor):
                    self._leave_out(f"forward/{name}", f"{type(tensor).__name__} is no tensor")
                elif self._push(f"forward/{name}", tensor):
                    call.recorded.append(name)
        else:
            # A recomputation is no call of its own. A checkpoint with a node of its own computes without a graph
            # first, so that the gradients are those of what it recomputes.
            calls = self.recomputed.get(recomputes)
            if not calls or calls[0].module != module:
                return
            call = calls.pop(0)
        for node in nodes:
            self.recomputed.setdefault(node, []).append(call)
        for name, tensor in flat(call.name, output):
            if name in call.recorded and name not in call.tensors and tensor.requires_grad:
                tensor.retain_grad()
                call.tensors[name] = (tensor, tensor._version)

    def _gradients(self):
        """In the order in which backward computes them: each output's, then its module's own parameters'."""
        parameters = dict(self.parameters)
        outputs = [(name, call.module, *kept) for call in self.outputs for name, kept in call.tensors.items()]
        self.outputs, self.recomputed = [], {}
        for name, module, tensor, version in reversed(outputs):
            if tensor._version != version:
                why = "overwritten in place after the module returned it, so that its gradient is another value's"
                self._leave_out(f"grad/{name}", why)
            else:
                self._gradient(name, tensor)
            for own in self.modules[module]._parameters:
                full = own if module == "output" else f"{module}.{own}"
                if full in parameters:
                    self._gradient(full, parameters.pop(full))
        for name, p in parameters.items():
            self._gradient(name, p)
        for name, tensor in self.inputs:
            if tensor.requires_grad and tensor.is_leaf:
                self._gradient(f"input/{name}", tensor)

    def _gradient(self, name, tensor):
        if tensor.grad is not None:
            self._push(f"grad/{name}", tensor.grad)
        elif tensor.requires_grad:
            self._leave_out(f"grad/{name}", "the loss does not depend on it")

    def _after(self, loss):
        after = f"step/{self.steps}"
        if loss is not None:
            self.trace.push(f"{after}/L", loss)
        # Buffers may be new tensors by now, parameters are not: the optimizer holds them.
        for name, tensor in [*self.parameters.items(), *self.model.named_buffers()]:
            self.trace.push(f"{after}/{name}", tensor)

    def _push(self, name, tensor):
        if tensor.dtype not in DTYPES or tensor.layout != torch.strided:
            self._leave_out(name, f"a case holds no {tensor.dtype}, {tensor.layout}")
            return False
        self.trace.push(self.prefix + name, tensor)
        return True

    def _leave_out(self, name, why):
        """Once, whichever the step."""
        line = f"{name}: {why}"
        if line not in self.not_recorded:
            self.not_recorded.append(line)
            print(f"recorder: not recorded: {line}", file=sys.stderr)


class Call:
    """A module's call: the names of its recorded outputs, and the tensors that have their gradients."""

    def __init__(self, module, name):
        self.module, self.name, self.recorded, self.tensors = module, name, [], {}


NO_NODE = object()  # stands for that of a checkpoint which recomputes for autograd's nodes, and has none of its own


def checkpoints():
    """The checkpoints in which a module is called: the nodes of those that compute now, the innermost first, and the
    node of the one that recomputes, or None where this is the forward pass.

    torch.utils.checkpoint is a torch.autograd.Function whose backward calls the module again (use_reentrant=True),
    or calls it again while autograd unpacks a saved tensor. Either has a frame on the stack that says so.
    """
    nodes = []
    if torch._C._current_graph_task_id() == -1 and torch.is_grad_enabled():
        return nodes, None
    frame = sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_name == "unpack_hook" and code.co_filename == torch.utils.checkpoint.__file__:
            return nodes, NO_NODE
        if code.co_name in ("forward", "backward") and code.co_argcount + bool(code.co_flags & inspect.CO_VARARGS):
            node = frame.f_locals.get(code.co_varnames[0])
            if isinstance(node, torch.autograd.function.BackwardCFunction):
                if code.co_name == "backward":
                    return nodes, node
                nodes.append(node)
        frame = frame.f_back
    return nodes, None if torch._C._current_graph_task_id() == -1 else NO_NODE


def flat(name, value):
    """The parts of a value and their names: NAME[0] of a tuple or list, NAME[key] of a dict."""
    if isinstance(value, (tuple, list)):
        for i, part in enumerate(value):
            yield from flat(f"{name}[{i}]", part)
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from flat(f"{name}[{key}]", part)
    else:
        yield name, value

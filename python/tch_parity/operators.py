"""What each operator of a program returns in Python. It knows torch.export's graphs, and no file and no recorder."""

import operator

import torch
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from .autocast import without_cache
from .copies import strides_to_keep

# What they return holds whatever the memory held before.
UNWRITTEN = {
    torch.ops.aten.empty.memory_format, torch.ops.aten.empty_like.default, torch.ops.aten.empty_strided.default,
    torch.ops.aten.new_empty.default, torch.ops.aten.new_empty_strided.default,
}


def run_operators(exported, model, args, kwargs, take):
    """Runs a program on copies of what the model is about to be called with, and passes the results on.

    take(name, tensor) is called after each operator with what it returned, by the names that the program's JSON has.
    Nothing of the run changes: parameters, buffers, inputs and the generators stay as they are.
    """
    devices = sorted({p.device.index for p in model.parameters() if p.device.type == "cuda"})
    with torch.random.fork_rng(devices), without_cache():
        Results(exported.graph_module, take).run(*copies(exported, model, args, kwargs), enable_io_processing=False)


class Results(torch.fx.Interpreter):
    """Runs a graph, and passes on what each operator returned, before anything overwrites it.

    prefix  what the names begin with: that of an operator within a part of the graph is PART.NAME
    """

    def __init__(self, graph_module, take, prefix="", unwritten=None):
        super().__init__(graph_module)
        self.take = lambda name, result: take(prefix + name, result)
        self.unwritten = {} if unwritten is None else unwritten

    def __call__(self, *args):
        return self.run(*args, enable_io_processing=False)

    def get_attr(self, target, args, kwargs):
        value = super().get_attr(target, args, kwargs)
        is_part = isinstance(value, torch.fx.GraphModule)
        return Results(value, self.take, f"{target}.", self.unwritten) if is_part else value

    def run_node(self, node):
        result = super().run_node(node)
        if node.op == "call_function" and node.target is not operator.getitem:
            if isinstance(result, torch.Tensor) and self.is_written(node, result):
                self.take(node.name, result)
            elif isinstance(result, (tuple, list)):
                # An element has the name of the first node that takes it.
                taken = {user.args[1]: user.name for user in reversed(node.users) if user.target is operator.getitem}
                for at, element in enumerate(result):
                    if at in taken and isinstance(element, torch.Tensor):
                        self.take(taken[at], element)
        return result

    def is_written(self, node, result):
        """Whether the elements are those of the program, and not what the memory held before."""
        if result.layout != torch.strided:
            return True
        storage = result.untyped_storage()
        if node.target in UNWRITTEN:
            self.unwritten[storage.data_ptr()] = storage  # kept, so that no other tensor has its address
            return False
        if storage.data_ptr() not in self.unwritten:
            return True
        if not node.target._schema.is_mutable:
            return False  # a view of it
        if result.numel() * result.element_size() == storage.nbytes():
            del self.unwritten[storage.data_ptr()]
        return True


def copied_with_strides(tensor):
    """A copy that lies in memory as a case says of the tensor."""
    if tensor.layout != torch.strided or strides_to_keep(tensor) is None:
        return tensor.clone(memory_format=torch.contiguous_format if tensor.layout == torch.strided else torch.preserve_format)
    once = tensor[tuple(slice(1) if stride == 0 else slice(None) for stride in tensor.stride())]  # what expand() repeats
    copy = torch.empty_strided(once.shape, once.stride(), dtype=tensor.dtype, device=tensor.device)
    return copy.copy_(once).expand(tensor.shape)


def copies(exported, model, args, kwargs):
    """The inputs of the graph, in its order; a tensor of several names is one copy."""
    example = exported.example_inputs[1]
    if set(kwargs) != set(example):
        raise ValueError("the call has other arguments than the program")
    given = iter(pytree.tree_leaves((args, {name: kwargs[name] for name in example})))
    named = {
        InputKind.PARAMETER: dict(model.named_parameters(remove_duplicate=False)),
        InputKind.BUFFER: dict(model.named_buffers(remove_duplicate=False)),
        InputKind.CONSTANT_TENSOR: exported.constants,
    }
    copied = {}
    inputs = []
    for spec in exported.graph_signature.input_specs:
        value = named[spec.kind][spec.target] if spec.kind in named else next(given)
        if isinstance(value, torch.Tensor):
            # With autograd as in the run, since operators choose their kernels by it. Where it records, nobody may
            # write to a leaf, so that the copy is none.
            copy = copied_with_strides(value.detach().requires_grad_(value.requires_grad))
            if value.requires_grad and not torch.is_grad_enabled():
                copy.requires_grad_()
            value = copied.setdefault(id(value), copy)
        inputs.append(value)
    return inputs

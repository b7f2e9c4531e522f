"""The program of a model, as torch.export writes it. It knows modules and torch.export, and no file and no recorder.

Exporting changes nothing of the run: neither the generator of random numbers, nor a parameter, nor an attribute.
"""

import collections
import inspect
import io
import os
import re
import zipfile
from typing import NamedTuple

import torch
from torch.export.graph_signature import InputKind
from torch.utils import _pytree as pytree

from . import autocast
from .beyond import own_functions
from .kept import Kept
from .lines import drop_short_functions, lines_of_functions
from .names import OUTPUT, of_module, plain
from .unchanged import unchanged

# What the JSON is named in the zip archive of torch.export.save, in the archive's folder.
MODEL = "/models/model.json"
# What runs a part of the graph, or marks one.
RUN = {"wrap_with_set_grad_enabled", "wrap_with_autocast", "_export_tracepoint"}


# What to do where PyTorch's own Python asks for the values of a tensor, by the file.
OF_VALUES = {
    "torch/nn/modules/transformer.py": "give tgt_is_causal, or is_causal, and nn.Transformer does not look at the mask",
    "torch/distributions/": "with validate_args=False no distribution checks its arguments",
}


class CannotExport(Exception):
    """torch.export refuses the model; the message is its reason, in one line."""


class Program:
    """The program of a model, and how its values are named in a recording.

    graph      the JSON that torch.export.save writes, as bytes
    constants  the tensors that are neither parameters nor buffers, by name
    given      the arguments that it was exported with
    names      the recorded names of the tensors among them, by id
    training   whether the model was in train() then
    settings   the attributes of its modules then
    autocast   the state of autocast then
    kept       what its modules kept then beside tensors of their own
    """

    def __init__(self, model, args, kwargs, dynamic_shapes=None, settings=None):
        self.settings, self.kept = settings, Kept(model)
        with unchanged(model) as drawn, own_functions() as functions, autocast.uncached() as uncached:
            exported, self.given = exported_apart(model, args, kwargs, dynamic_shapes)
        if drawn:
            raise CannotExport(f"the model draws random numbers from {drawn[0]}, and not from torch's generator")
        if functions:
            raise CannotExport(f"the model calls {functions[0]}, a torch.autograd.Function, whose backward torch.export leaves out")
        if (called := foreign(exported)) is not None:
            raise CannotExport(f"the model calls {called}, which libtorch does not have")
        objects = [spec.target for spec in exported.graph_signature.input_specs if spec.kind is InputKind.CUSTOM_OBJ]
        if objects:
            kind = type(exported.constants[objects[0]]).__name__
            raise CannotExport(f"the program takes {objects[0]}, a {kind} of the model, whose state is not recorded")
        self.autocast = autocast.state()
        for part in autocast.parts(exported.graph_module):
            if uncached and torch.is_autocast_cache_enabled():
                raise CannotExport("torch.export does not tell which part of the model has autocast(cache_enabled=False)")
            if part.args[2] and self.autocast is None and autocast.is_within():
                raise CannotExport("the model switches autocast on where the loop has switched it off")
            autocast.set_cache(part)
        drop_short_functions(exported)
        self.exported, self.training = exported, model.training
        self.graph = without_folders(serialized(exported, model))
        # As they are now: the loop may write to them.
        self.constants = {name: exported.constants[name].clone() for name in exported.graph_signature.lifted_tensor_constants}
        self.inputs = [id(leaf) for leaf in tensors(exported.example_inputs)]
        self.tied = tied(model)
        self.modules = {name for name, _ in model.named_modules()}
        every = [module for _, module in model.named_modules(remove_duplicate=False)]
        # Of a module with two names, the graph does not tell the calls apart.
        self.twice = {of_module(name) for name, module in model.named_modules() if every.count(module) > 1}
        self.names = {}
        self.calls = {}  # the names of the recorded tensors that a call of a module returned, by module and number

    def computes(self, other):
        """Whether it computes what another one does."""
        own, others = self.constants, other.constants
        alike = without_sizes(self.graph) == without_sizes(other.graph) and self.autocast == other.autocast and own.keys() == others.keys()
        return alike and all(torch.equal(own[name], others[name]) for name in own)

    def returned(self, module, number, output, names):
        """Notes what a call of a module returned: `names` has the recorded name of each tensor by its id."""
        if module in self.twice:
            return
        self.calls[module, number] = [names.get(id(leaf)) for leaf in pytree.tree_leaves(output)]

    def described(self, modules):
        """How the recorded tensors are named in the graph, as plain data. `modules` are the names of those recorded."""
        values = {}
        signature = self.exported.graph_signature
        returned = {(OUTPUT, 1): ("", [spec.arg for spec in signature.output_specs])}
        for entry in self.exported.module_call_graph:
            if entry.fqn and entry.signature is not None:
                # The second call of a module is NAME@1, and a name can have an @ as well.
                module, _, number = (entry.fqn, "", 0) if entry.fqn in self.modules else entry.fqn.rpartition("@")
                returned[of_module(module), int(number) + 1] = entry.fqn, entry.signature.outputs
        for called, names in self.calls.items():
            call, arguments = returned.get(called, ("", []))
            if len(arguments) != len(names):  # within a part of the graph that is a graph of its own
                continue
            for name, argument in zip(names, arguments):
                if name is not None and type(argument).__name__ == "TensorArgument":
                    values[f"forward/{name}"] = [call, argument.name]
        self.exported = self.given = None  # they hold the inputs
        inputs = [self.names.get(leaf) for leaf in self.inputs]
        described = {"inputs": inputs, "tied": self.tied, "training": self.training, "values": values}
        if self.autocast is not None:
            described["autocast"] = self.autocast
        counts = collections.Counter(module for module, _ in self.calls)
        counts = {module: counts[module] for module in modules if counts[module] != 1}
        return {**described, "counts": counts} if counts else described


def signature(model, args, kwargs, settings):
    """What decides the graph: calls of one signature have one program."""
    leaves, structure = pytree.tree_flatten((args, kwargs))
    about = [(tuple(leaf.shape), leaf.dtype) if isinstance(leaf, torch.Tensor) else plain(leaf) for leaf in leaves]
    about += repeated(leaves)
    modes = [module.training for module in model.modules()]
    casts = autocast.state(), autocast.is_within(), torch.is_autocast_cache_enabled()
    frozen = tuple(not p.requires_grad for p in model.parameters())
    return Signature(repr((about, str(structure), modes, settings, casts)), frozen)


class Signature(NamedTuple):
    """What decides the graph of a call, and which parameters are frozen."""

    of_call: str
    frozen: tuple


def export(model, args, kwargs, dynamic_shapes):
    """The exported program, in which every module's call has its outputs."""
    names = tuple(name for name, _ in model.named_modules() if name)
    options = {"strict": False, "dynamic_shapes": shapes_of_call(model, args, kwargs, dynamic_shapes)}
    with lines_of_functions(__file__):
        try:
            return torch.export.export(model, args, kwargs, **options, preserve_module_call_signature=names)
        except Exception:  # what some modules return has no name in a program
            try:
                return torch.export.export(model, args, kwargs, **options)
            except Exception as error:
                raise cannot("torch.export", error) from None


def exported_apart(model, args, kwargs, dynamic_shapes):
    """The exported program and the arguments that it was exported with.

    A tensor that is several arguments, such as inputs that are their own labels, is one of them in a program. So it is
    exported with a copy for each, if the program then has the same operators: attention asks whether its query is its key.
    """
    exported = export(model, args, kwargs, dynamic_shapes)
    leaves, structure = pytree.tree_flatten((args, kwargs))
    several = repeated(leaves)
    if not several or any(leaves[at].requires_grad for at, _ in several) or writes_to_inputs(exported):
        return exported, (args, kwargs)
    for at, _ in several:
        leaves[at] = leaves[at].clone()
    apart = pytree.tree_unflatten(leaves, structure)
    other = export(model, *apart, dynamic_shapes)
    return (other, apart) if operators(other) == operators(exported) else (exported, (args, kwargs))


def repeated(leaves):
    """The places of tensors that stand before them as well, each with the first of its places."""
    first = {}
    places = [(at, first.setdefault(id(leaf), at)) for at, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    return [(at, before) for at, before in places if at != before]


def operators(exported):
    return [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]


def writes_to_inputs(exported):
    """Whether an operator writes to an argument of the program itself."""
    for node in exported.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable:
            written = node.args[0] if node.args else None
            if isinstance(written, torch.fx.Node) and written.name in exported.graph_signature.user_inputs:
                return True
    return False


def shapes_of_call(model, args, kwargs, dynamic_shapes):
    """The open sizes by the arguments of a call, all of which torch.export asks for: those of one without any are None."""
    if not isinstance(dynamic_shapes, dict):
        return dynamic_shapes
    signature = inspect.signature(model.forward)
    return {name: dynamic_shapes.get(name) for name in signature.bind(*args, **kwargs).arguments}


def foreign(exported):
    """What a program calls that is neither an operator of libtorch nor a part of the graph that is run, or None."""
    graphs = [part.graph for part in exported.graph_module.modules() if isinstance(part, torch.fx.GraphModule)]
    for target in (node.target for graph in graphs for node in graph.nodes if node.op == "call_function"):
        if isinstance(target, torch._ops.OpOverload) and target.namespace != "aten":
            return target.name()
        if isinstance(target, torch._ops.HigherOrderOperator) and target.name() not in RUN:
            return f"torch.ops.higher_order.{target.name()}"
        if (target.__module__ or "").startswith("torch._functorch."):
            return "torch.vmap"
    return None


def cannot(function, error):
    """The reason of a function of PyTorch, in its first line."""
    lines = str(error).strip().splitlines()
    unknown = re.search(r"Found <class '([^']+)'> in (\w+), which is not a known type", lines[0] if lines else "")
    if unknown:
        hint = ": call it with use_cache=False" if ".cache_utils." in unknown[1] else ""
        return CannotExport(f"{function}: the {unknown[2]} of the model has a {unknown[1]}, which is no tensor, list or dict{hint}")
    at = re.search(r'The following call raised this error:\s+File "([^"]+)", line (\d+), in .*\n\s*(.*)', str(error))
    where = f" ({os.path.basename(at[1])}:{at[2]}: {at[3]})" if at else ""
    if type(error).__name__ == "GuardOnDataDependentSymNode":
        hint = next((f": {hint}" for file, hint in OF_VALUES.items() if at and file in at[1]), "")
        return CannotExport(f"{function}: what the model computes depends on the values of a tensor{where}{hint}")
    why = next((line.strip(" -") for line in lines[1:] if line.startswith("  - ")), None)  # which size is not open
    first = why or (lines[0] if lines else "")
    return CannotExport(f"{function}: {type(error).__name__}: {first}{where}")


def serialized(exported, model):
    """The JSON of a program, out of the archive that is PyTorch's only documented way to write it."""
    archive = io.BytesIO()
    name_namedtuples(exported)
    name_arguments(exported, model)
    try:
        torch.export.save(exported, archive)
    except Exception as error:
        raise cannot("torch.export.save", error) from None
    with zipfile.ZipFile(archive) as files:
        name = next(name for name in files.namelist() if name.endswith(MODEL))
        return files.read(name)


def name_arguments(exported, model):
    """Adds the names of the arguments that modules are given without one, which a port has as well."""
    for entry in exported.module_call_graph:
        if entry.fqn and entry.signature is not None:
            name = entry.fqn if entry.fqn in dict(model.named_modules()) else entry.fqn.rpartition("@")[0]
            parameters = inspect.signature(model.get_submodule(name).forward).parameters.values()
            entry.signature.forward_arg_names = [p.name for p in parameters if p.kind is not p.VAR_KEYWORD]


def name_namedtuples(exported):
    """Gives the classes of named tuples among arguments and outputs the names that the JSON has of them."""
    specs = [exported.call_spec.in_spec, exported.call_spec.out_spec]
    for entry in exported.module_call_graph:
        if entry.signature is not None:
            specs += [entry.signature.in_spec, entry.signature.out_spec]
    while specs:
        spec = specs.pop()
        if spec is None:
            continue
        if spec.type is collections.namedtuple:
            kind = spec.context
            known = pytree.SUPPORTED_SERIALIZED_TYPES.get(kind)
            if known is None or known.serialized_type_name == pytree.NO_SERIALIZED_TYPE_NAME_FOUND:
                pytree._register_namedtuple(kind, serialized_type_name=f"{kind.__module__}.{kind.__qualname__}")
        specs += spec.children() if callable(getattr(spec, "children", None)) else spec.children_specs


def without_folders(graph):
    """The JSON with the names of Python's files alone, so that it is the same wherever they stand."""
    return re.sub(rb'(File \\")[^"\\]*[/\\]([^"/\\]*\\")', rb"\1\2", graph)


def without_sizes(graph):
    """The JSON without the sizes of the call that it was exported at, where the program takes others as well."""
    return re.sub(rb'"hint": {"as_int": \d+}', b"", graph)


def tensors(values):
    return [leaf for leaf in pytree.tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def tied(model):
    """The names of parameters and buffers that are another one, which is recorded under the first of its names."""
    first, other = {}, {}
    for named in (model.named_parameters(remove_duplicate=False), model.named_buffers(remove_duplicate=False)):
        for name, tensor in named:
            known = first.setdefault(id(tensor), of_module(name))
            if known != of_module(name):
                other[of_module(name)] = known
    return other

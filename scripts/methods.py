"""Writes src/port/methods-VERSION.tsv: which method of tch calls an operator of PyTorch, and with which arguments.

    methods.py TCH FILE    TCH is the folder of tch's source; FILE the table to write

A line is: operator, method, "self" argument ("-" for an associated function), arguments as NAME:CODE, and what it
returns. The codes are those of TYPES; `q` stands for dtype and device as one pair. An operator is left out where no
method's arguments are among its own, or one is missing that has no default or stands before others: tch does not bind
it then, or binds it wrongly.
"""

import re
import sys
from pathlib import Path

import torch

# tch's types of arguments, each with its code, and PyTorch's types that it can stand for.
TYPES = {
    "&Tensor": ("t", {"Tensor"}),
    "Option<T>": ("o", {"Optional[Tensor]"}),
    "&[T]": ("l", {"List[Tensor]"}),
    "&[Option<T>]": ("p", {"List[Optional[Tensor]]"}),
    "i64": ("i", {"int"}),
    "impl Into<Option<i64>>": ("I", {"Optional[int]"}),
    "impl IntList": ("n", {"List[int]"}),
    "impl IntListOption": ("N", {"Optional[List[int]]"}),
    "f64": ("f", {"float"}),
    "impl Into<Option<f64>>": ("F", {"Optional[float]"}),
    "impl DoubleList": ("d", {"List[float]", "Optional[List[float]]"}),
    "bool": ("b", {"bool"}),
    "S": ("s", {"number", "Optional[number]"}),
    "&str": ("z", {"str"}),
    "Kind": ("k", {"int"}),
    "impl Into<Option<Kind>>": ("K", {"Optional[int]"}),
    "Device": ("D", {"Device"}),
    "crate::Reduction": ("r", {"int"}),
}
OPTIONS = "(Kind, Device)"  # dtype, layout, device and pin_memory
RENAMED = {"t": "tr"}  # tch's names for operators that are no words in Rust or mean something else
PLACE = ("dtype", "layout", "device", "pin_memory")
RESULTS = {"Tensor": "tensor", "Vec<Tensor>": "list", "()": "nothing", "i64": "int", "f64": "float", "bool": "bool"}


def methods(source):
    """The fallible methods of a source file: by name, the arguments with their types, and the type of the result."""
    found = {}
    pattern = r"pub fn (f_\w+)(?:<[^(]*>)?\(\s*(.*?),?\s*\) -> Result<(.*?), TchError> \{"
    for name, arguments, result in re.findall(pattern, source, re.DOTALL):
        parts = re.findall(r"(&(?:mut )?self)|(\w+): ((?:\([^)]*\)|[^,])+)", arguments)
        found[name] = [(a or b, c.strip()) for a, b, c in parts], result
    return found


def matched(schema, method):
    """The line of an operator and a method, or None where they do not fit."""
    arguments, result = method
    left = {argument.name: argument for argument in schema.arguments}
    receiver = "-"
    codes = []
    for name, kind in arguments:
        if name in ("&self", "&mut self"):
            receiver = "self" if "self" in left else next(iter(left))
            if str(left[receiver].type) != "Tensor":
                return None
            del left[receiver]
        elif kind == OPTIONS:
            if not {"dtype", "device"} <= left.keys():
                return None
            for option in PLACE:
                left.pop(option, None)
            codes.append("options:q")
        else:
            known = name.rstrip("_") if name.rstrip("_") in left else name
            if known not in left or kind not in TYPES:
                return None
            code, types = TYPES[kind]
            if str(left.pop(known).type) not in types or (code == "k") != (known == "dtype" and kind == "Kind"):
                return None
            codes.append(f"{known}:{code}")
    if any(not argument.has_default_value() for argument in left.values()):
        return None
    # tch passes the arguments that it has by their order: one that it leaves out has to stand behind them.
    order = [argument.name for argument in schema.arguments if argument.name not in PLACE]
    is_left = [name in left for name in order]
    if is_left != sorted(is_left):
        return None
    kinds = [str(value.type) for value in schema.returns]
    count = re.fullmatch(r"\((Tensor(?:, Tensor)*)\)", result)
    if count:
        result = f"tuple{count[1].count('Tensor')}"
        fits = kinds == ["Tensor"] * int(result[5:])
    else:
        fits = (result == "Tensor") == (kinds == ["Tensor"])
        result = RESULTS.get(result)
    return None if not fits or result is None else "\t".join([receiver, " ".join(codes), result])


def main(folder, path):
    source = Path(folder, "src/wrappers/tensor_fallible_generated.rs").read_text()
    known = methods(source)
    lines = []
    for schema in torch._C._jit_get_all_schemas():
        name = schema.name.removeprefix("aten::")
        if "::" in name or schema.overload_name.endswith("out") or any(a.is_out for a in schema.arguments):
            continue
        overload = schema.overload_name.lower()
        base, inplace = (name[:-1], "_") if name.endswith("_") and not name.endswith("__") else (name, "")
        base = base.lower()
        base = RENAMED.get(base, base) if not inplace else base
        names = [f"f_{base}_{overload}{inplace}"] if overload else []
        for candidate in [*names, f"f_{base}{inplace}"]:
            line = candidate in known and matched(schema, known[candidate])
            if line:
                operator = name + ("." + schema.overload_name if overload else "")
                lines.append(f"{operator}\t{candidate}\t{line}\n")
                break
    # It is written by hand in tch.
    if "pub fn f_copy_(&mut self, src: &Tensor) -> Result<(), TchError>" in Path(folder, "src/wrappers/tensor.rs").read_text():
        lines.append("copy_\tf_copy_\tself\tsrc:t\tnothing\n")
    Path(path).write_text("".join(sorted(set(lines))))


if __name__ == "__main__":
    main(*sys.argv[1:])

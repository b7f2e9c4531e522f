#!/usr/bin/env python3
"""Measures how often `tch-parity check` calls a right replay of a program different, and a wrong program the same, where
no bits are promised.

Right replays are those of the models of tests/programs.py, recorded with portable numerics for each of several seeds,
and replayed with the kernels of this machine. Wrong programs are those of the first seed with one operator, constant,
argument or input changed, where that changes a bit. Each is judged by --criterion close, which compares with the recording alone, and by accurate.

    scripts/wrong_programs.py target/debug/tch-parity [--seeds 6] [--verbose]

It prints a table and exits with 1 if `accurate` calls a right replay different or misses a wrong program.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

GRAPH = "program/graph"
# Operators that take the same arguments and compute something else.
EXCHANGED = [
    ("relu", "tanh"), ("relu_", "sigmoid_"), ("tanh", "sigmoid"), ("sigmoid", "tanh"), ("silu", "tanh"), ("add.Tensor", "sub.Tensor"),
    ("mul.Tensor", "div.Tensor"), ("sub.Tensor", "add.Tensor"), ("div.Tensor", "mul.Tensor"), ("exp", "sinh"), ("sum.dim_IntList", "mean.dim"),
    ("cumsum", "cumprod"), ("argmax", "argmin"), ("max.dim", "min.dim"), ("log", "log1p"), ("abs", "neg"), ("softmax.int", "log_softmax.int"),
]
SHARE = 0.01  # by which a float is changed


def parts(path):
    """The header of a safetensors file, and the bytes of its tensors."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    about = header.pop("__metadata__")
    return about, {name: (info, data[start:][slice(*info["data_offsets"])]) for name, info in header.items()}


def with_graph(source, target, graph):
    """Writes a case with another program."""
    about, tensors = parts(source)
    tensors[GRAPH] = {**tensors[GRAPH][0], "shape": [len(graph)]}, graph
    # The tensors of more than a byte an element come first, so that they stay aligned.
    ordered = sorted(tensors.items(), key=lambda item: item[1][0]["data_offsets"][0])
    ordered.sort(key=lambda item: item[0] == GRAPH)
    header, data = {"__metadata__": about}, bytearray()
    for name, (info, content) in ordered:
        header[name] = {**info, "data_offsets": [len(data), len(data) + len(content)]}
        data += content
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    target.write_bytes(len(text).to_bytes(8, "little") + text + data)


def wrong(graph):
    """Yields what is changed, and the changed program."""
    def nodes(program):
        return program["graph_module"]["graph"]["nodes"]

    def tensor(argument):
        return argument["arg"].get("as_tensor", {}).get("name")

    metas = json.loads(graph)["graph_module"]["graph"]["tensor_values"]
    for at, node in enumerate(nodes(json.loads(graph))):
        operator = node["target"].removeprefix("torch.ops.aten.").removesuffix(".default")
        changes = []
        for before, after in EXCHANGED:
            if operator == before:
                after = after if "." in after else f"{after}.default"
                changes.append((f"{before} is {after}", lambda node, after=after: node.update(target=f"torch.ops.aten.{after}")))
        for number, argument in enumerate(node["inputs"]):
            value = argument["arg"].get("as_float")
            # eps where it is not felt would be no mistake.
            if isinstance(value, float) and argument["name"] not in ("eps", "epsilon") and value != 0:
                def change(node, number=number, value=value):
                    node["inputs"][number]["arg"]["as_float"] = value * (1 + SHARE)
                changes.append((f"{operator}'s {argument['name']}", change))
        inputs = [argument for argument in node["inputs"] if tensor(argument)]
        if len(inputs) >= 2 and operator.split(".")[0] in ("sub", "div", "matmul", "mm", "kl_div", "linear"):
            first, second = tensor(inputs[0]), tensor(inputs[1])
            if metas[first]["sizes"] == metas[second]["sizes"] and first != second:
                def swap(node, names=(first, second)):
                    taken = [argument["arg"]["as_tensor"] for argument in node["inputs"] if tensor(argument)]
                    taken[0]["name"], taken[1]["name"] = reversed(names)
                changes.append((f"{operator}'s inputs swapped", swap))
        for what, change in changes:
            program = json.loads(graph)
            change(nodes(program)[at])
            yield f"{at}: {what}", json.dumps(program).encode()


def judged(program, folder, criterion, numerics="native"):
    """What a check of a folder calls the same, different, and an error, by the names of the files."""
    command = [program, "check", folder, "--numerics", numerics, "--criterion", criterion, "--json", "-"]
    said = subprocess.run(command, capture_output=True, text=True)
    if not said.stdout:
        sys.exit(said.stderr)
    report = json.loads(said.stdout)
    verdicts = {Path(one["name"]).name: "same" if one["passes"] else "differs" for one in report["reports"]}
    return {**{path.name: "error" for path in Path(folder).glob("*.safetensors")}, **verdicts}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", help="the tch-parity that is measured")
    parser.add_argument("--seeds", type=int, default=6, help="how many times each model is recorded (default: 6)")
    parser.add_argument("--verbose", action="store_true", help="name each that is judged wrongly")
    arguments = parser.parse_args()
    models = Path(__file__).resolve().parent.parent / "tests/programs.py"
    count, failed, table = 0, {"close": [], "accurate": []}, {"close": [], "accurate": []}
    mistakes = {}
    with tempfile.TemporaryDirectory() as scratch:
        for seed in range(arguments.seeds):
            right, changed = Path(scratch) / f"right-{seed}", Path(scratch) / "changed"
            right.mkdir()
            subprocess.run([sys.executable, models, right, str(seed)], check=True, stdout=subprocess.DEVNULL)
            count += len(list(right.glob("*.safetensors")))
            for criterion, found in failed.items():
                found += [f"seed {seed}: {name}: {said}" for name, said in judged(arguments.program, right, criterion).items() if said != "same"]
            if seed > 0:
                continue
            changed.mkdir()
            for path in sorted(right.glob("*.safetensors")):
                graph = parts(path)[1][GRAPH][1]
                for number, (what, program) in enumerate(wrong(graph)):
                    name = f"{path.stem}-{number}.safetensors"
                    mistakes[name] = f"{path.stem}: {what}"
                    with_graph(path, changed / name, program)
            # A change that leaves every bit as it was is no mistake, such as dropout's p in a model that is evaluated.
            same = [name for name, said in judged(arguments.program, changed, "bitwise", "portable").items() if said == "same"]
            for name in same:
                print(f"left out, since it computes the same bits: {mistakes.pop(name)}", flush=True)
            for criterion, missed in table.items():
                said = judged(arguments.program, changed, criterion)
                refused = sum(said[name] == "error" for name in mistakes)
                missed += [mistakes[name] for name in mistakes if said[name] == "same"]
                print(f"{criterion}: {refused} of {len(mistakes)} wrong programs are refused with an error", flush=True)
    if arguments.verbose:
        for criterion in failed:
            for line in [*failed[criterion], *(f"missed: {what}" for what in table[criterion])]:
                print(f"{criterion}: {line}")
    print("| runs of the models of `tests/programs.py` | `close` | `accurate` |\n|---|---|---|")
    print("| right, called different |" + "".join(f" {len(found)} of {count} |" for found in failed.values()))
    print("| wrong, found |" + "".join(f" {len(mistakes) - len(missed)} of {len(mistakes)} |" for missed in table.values()))
    sys.exit(bool(failed["accurate"] or table["accurate"]))


if __name__ == "__main__":
    main()

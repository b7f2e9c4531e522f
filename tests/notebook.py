#!/usr/bin/env python3
"""Validates notebooks, executes each anew under PyTorch, and says in which cells the outputs differ.

    notebook.py NOTEBOOK...
"""

import sys

import nbformat
from nbclient import NotebookClient


def outputs(cell):
    """What is shown of a code cell."""
    return [
        dict(output, text="".join(output["text"])) if "text" in output else dict(output) for output in cell.get("outputs", [])
    ]


def main(paths):
    for path in paths:
        stored = nbformat.read(path, as_version=nbformat.NO_CONVERT)
        nbformat.validate(stored)
        executed = nbformat.from_dict(stored)
        for cell in executed.cells:
            if cell.cell_type == "code":
                cell.outputs, cell.execution_count = [], None
        NotebookClient(executed, timeout=300, kernel_name="python3").execute()
        code = [(a, b) for a, b in zip(stored.cells, executed.cells, strict=True) if a.cell_type == "code"]
        printed = sum(bool(cell.outputs) for cell, _ in code)
        print(f"{path}: {len(stored.cells)} cells, {len(code)} of code, {printed} with outputs")
        for cell, again in code:
            if (outputs(cell), cell.execution_count) != (outputs(again), again.execution_count):
                print(f"DIFFERS in {cell.id}: {outputs(cell)} is stored, {outputs(again)} comes out")


if __name__ == "__main__":
    main(sys.argv[1:])

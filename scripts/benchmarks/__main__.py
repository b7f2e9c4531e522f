"""Measures every subject, or those that are named, and prints the rows. With --write, it keeps them in measured.json
beside this file, and renders docs/benchmarks.md from what is there.

A subject is a file beside this one. It has a `TITLE`, a paragraph `HOW` that says what is measured and how, and
`rows(programs)`, which yields a `Row` for each figure. Where the peer is a Python process, the same file is it.
"""

import argparse
import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

# Where reference.py is, for the subjects and for the peers.
SCRIPTS = str(Path(__file__).resolve().parent.parent)
sys.path.insert(0, SCRIPTS)
os.environ["PYTHONPATH"] = os.pathsep.join([SCRIPTS, *filter(None, [os.environ.get("PYTHONPATH")])])

import render
from machine import machine
from programs import Programs

SUBJECTS = ["notebook", "optimizers", "check", "replay", "recording", "compare"]
MEASURED = Path(__file__).with_name("measured.json")
PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"


def page():
    """The page of what was measured."""
    measured = json.loads(MEASURED.read_text())
    return render.page([(import_module(name), measured[name]) for name in SUBJECTS if name in measured])


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures speed and memory against PyTorch.")
    parser.add_argument("target", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"one of {', '.join(SUBJECTS)} (default: all)")
    parser.add_argument("--write", action="store_true", help="write the rows of these subjects into docs/benchmarks.md")
    parser.add_argument("--page", action="store_true", help="measure nothing, and print the page of what was measured")
    args = parser.parse_intermixed_args()
    if unknown := [name for name in args.subjects if name not in SUBJECTS]:
        parser.error(f"no subject {unknown[0]}: there are {', '.join(SUBJECTS)}")
    if args.page:
        print(page(), end="")
        return

    subjects = args.subjects or SUBJECTS
    if len(subjects) > 1:
        # Each in a process of its own: the largest memory of a program counts that of the process that starts it.
        write = ["--write"] if args.write else []
        for name in subjects:
            subprocess.run([sys.executable, __file__, args.target, name, *write], check=True)
        return
    programs = Programs(args.target)
    for name in subjects:
        subject = import_module(name)
        print(f"\n{subject.TITLE}", flush=True)
        rows = []
        for row in subject.rows(programs):
            print(render.line(row), flush=True)
            rows.append(row)
        if args.write:
            measured = json.loads(MEASURED.read_text()) if MEASURED.exists() else {}
            measured[name] = {"machine": machine(), "load": os.getloadavg()[1], "rows": [vars(row) for row in rows]}
            MEASURED.write_text(json.dumps(measured, indent=1) + "\n")
            PAGE.write_text(page())


main()

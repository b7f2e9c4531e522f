"""Measures every subject, or those that are named, and prints the rows; with --write, writes the page too.

A subject is a file beside this one. It has a `TITLE`, a paragraph `HOW` that says what is measured and how, and
`rows(programs)`, which yields a `Row` for each figure. Where the peer is a Python process, the same file is it.
"""

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

# Where reference.py is, for the subjects and for the peers.
SCRIPTS = str(Path(__file__).resolve().parent.parent)
sys.path.insert(0, SCRIPTS)
os.environ["PYTHONPATH"] = os.pathsep.join([SCRIPTS, *filter(None, [os.environ.get("PYTHONPATH")])])

import render
from programs import Programs

SUBJECTS = ["notebook", "optimizers", "check", "replay", "recording", "compare"]
PAGE = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"


def main():
    parser = argparse.ArgumentParser(prog="scripts/bench", description="Measures speed and memory against PyTorch.")
    parser.add_argument("target", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT", help=f"one of {', '.join(SUBJECTS)} (default: all)")
    parser.add_argument("--write", action="store_true", help="write docs/benchmarks.md, of all subjects")
    args = parser.parse_args()
    if unknown := [name for name in args.subjects if name not in SUBJECTS]:
        parser.error(f"no subject {unknown[0]}: there are {', '.join(SUBJECTS)}")
    if args.write and args.subjects:
        parser.error("--write takes no subjects: the page shows all of them, measured in one run")

    programs = Programs(args.target)
    measured = []
    for name in args.subjects or SUBJECTS:
        subject = import_module(name)
        print(f"\n{subject.TITLE}", flush=True)
        rows = []
        for row in subject.rows(programs):
            print(render.line(row), flush=True)
            rows.append(row)
        measured.append((subject.TITLE, subject.HOW, rows))
    if args.write:
        PAGE.write_text(render.page(measured))


main()

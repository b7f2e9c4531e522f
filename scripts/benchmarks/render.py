"""Rows as text: a line for a terminal, and docs/benchmarks.md."""

from statistics import median

from row import Row

HEAD = """# Benchmarks

How fast is tch-parity, and how much memory does it take? Every figure is measured beside that of a peer, in turn and
in one run, since machines differ and one machine is faster in one minute than in the next. The ratios are what counts.
A figure is the median of the rounds, and a ratio is the median of the ratios of the rounds, so that it can differ a
little from the quotient of the figures beside it.

`scripts/bench --write` has measured all of this and written this page, from the rows that it keeps in
`scripts/benchmarks/measured.json`.
"""


def figure(seconds, unit):
    if unit == "MiB":
        return f"{seconds:.1f} MiB"
    if unit == "steps/s":
        return f"{1 / seconds:,.0f} steps/s"
    for scale, name in ((1, "s"), (1e-3, "ms")):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {name}"
    return f"{seconds / 1e-6:.3g} µs"


def compared(row):
    """The ratio in words: the larger a number, the further the two are apart."""
    if row.theirs is None:
        return ""
    ratio = row.ratio()
    if row.unit == "MiB":
        return f"{ratio:.2f} times the memory"
    return f"{1 / ratio:.1f} times as fast" if ratio < 0.5 else f"{ratio:.2f} times the time"


def cells(row):
    theirs = figure(median(row.theirs), row.unit) if row.theirs else ""
    return row.what, figure(median(row.ours), row.unit), row.peer, theirs, compared(row)


def line(row):
    what, ours, peer, theirs, ratio = cells(row)
    return f"  {what:<50} {ours:>15}   {peer:<28} {theirs:>15}   {ratio}".rstrip()


def table(head, rows):
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def page(measured):
    """The page of subjects, each with its rows and the machine on which they were measured."""
    parts = [HEAD]
    machines = []
    for subject, found in measured:
        head = ["what", "tch-parity", "peer", "the peer's", "tch-parity takes"]
        rows = [cells(Row(**row)) for row in found["rows"]]
        # On a machine that has other work to do, times are longer, and differ more from round to round.
        load = f"The load average of the machine was {found['load']:.1f} at the end."
        parts.append(f"\n## {subject.TITLE}\n\n{subject.HOW.strip()} {load}\n\n{table(head, rows)}")
        same = next((titles for machine, titles in machines if machine == found["machine"]), None)
        if same is None:
            machines.append((found["machine"], same := []))
        same.append(subject.TITLE)
    parts.append("\n## The machine and the versions\n")
    for machine, titles in machines:
        parts.append(f"\n{table(['measured', ', '.join(titles)], machine.items())}")
    return "".join(parts)

"""The notebook: cold start, memory and steps a second. As `notebook.py STEPS` it is the peer in Python."""

import sys

from programs import ROUNDS, in_turn, python, rounds, run
from row import Row

TITLE = "The notebook"
HOW = """
A cold start is a new process whose files are in the page cache: `notebook` against a program of PyTorch's C++ frontend
and against Python, which compute the same step. The C++ program prints no more than the loss, and the script in Python
prints what `notebook` prints. The steps of the net, whose batch has one row, are taken on one thread, and the start is
taken off: here every tensor of every step is recorded in memory, the two peers record nothing. `worksheet` and `figure`
are measured against `notebook`.
"""
STEPS = 2_000


def train(steps):
    """Trains the net, and records nothing."""
    import torch
    from reference import notebook_data, notebook_model

    net, _ = notebook_model()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x, y = notebook_data()
    for _ in range(steps):
        optimizer.zero_grad()
        h = torch.relu(net.fc2(torch.relu(net.fc1(x))))
        loss = torch.nn.functional.binary_cross_entropy(torch.sigmoid(net.fc3(h)), y)
        loss.backward()
        optimizer.step()
    print(loss.item())


def rows(programs):
    ours, cpp = [programs.tch_parity, "notebook"], [programs.notebook_cpp, "1"]
    commands = ours, cpp, python("../reference.py", "notebook")
    taken = rounds([lambda command=command: run(command) for command in commands], ROUNDS)
    time, cpp_time, py_time = ([one[0] for one in of] for of in taken)
    memory, cpp_memory, py_memory = ([one[1] for one in of] for of in taken)
    yield Row("cold start", time, "C++ frontend", cpp_time)
    yield Row("cold start", time, "Python", py_time)
    yield Row("largest memory", memory, "C++ frontend", cpp_memory, "MiB")
    yield Row("largest memory", memory, "Python", py_memory, "MiB")

    def steps(n):
        return [*ours, "--steps", str(n)], [cpp[0], str(n)], python("notebook.py", n)

    taken = in_turn(*steps(1), *steps(STEPS + 1), OMP_NUM_THREADS="1")
    per_step = [[(b - a) / STEPS for a, b in zip(one, many)] for one, many in zip(taken[:3], taken[3:])]
    yield Row("training steps, recorded", per_step[0], "C++ frontend", per_step[1], "steps/s")
    yield Row("training steps, recorded", per_step[0], "Python", per_step[2], "steps/s")

    formats = ("text", "markdown", "html", "ipynb")
    for command in (["figure"], *(["worksheet", "--format", format] for format in formats)):
        time, notebook = in_turn([programs.tch_parity, *command], ours, count=ROUNDS)
        yield Row(" ".join(command), time, "notebook", notebook)


if __name__ == "__main__":
    train(int(sys.argv[1]))

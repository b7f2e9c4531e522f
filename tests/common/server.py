"""Runs Python programs for the tests, each in a process of its own that begins with torch imported.

Importing torch takes seconds, and the tests run Python well over a hundred times. torch computes nothing before the
fork, so that a program's own `compute_with` is as early as it is in a new interpreter.

    server.py SOCKET serve PROCESS   serves until that process has ended
    server.py SOCKET run ARG...      runs `python ARG...` by that server, with the streams, the folder and the
                                     environment of this process, and ends with the program's exit code
"""

import json
import os
import socket
import sys
import types


def run_by(path, arguments):
    """Asks the server to run a program, and returns its exit code."""
    with socket.socket(socket.AF_UNIX) as server:
        server.connect(path)
        request = {"arguments": arguments, "folder": os.getcwd(), "environment": dict(os.environ)}
        socket.send_fds(server, [b"streams"], [0, 1, 2])
        server.sendall(json.dumps(request).encode() + b"\n")
        code = server.makefile().read()
    return int(code) if code else "the server of the tests ended"


def serve(path, process):
    """Forks for every program. It returns in the forked process alone, with the program's arguments."""
    import select
    import signal

    import torch  # noqa: F401: this is what the server is there for

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(64)
        print("ready", flush=True)
        # Whoever reads what the tests print is not to wait for the server's end.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        while is_running(process):
            if not select.select([listener], [], [], 1)[0]:
                continue
            client, _ = listener.accept()
            if os.fork():
                client.close()
                continue
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            listener.close()
            return begin(client)
    os.unlink(path)
    os._exit(0)


def is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def begin(client):
    """Forks once more: the program's process gets its arguments, the other one hands back the exit code."""
    _, streams, _, _ = socket.recv_fds(client, len(b"streams"), 3)
    if not streams:
        os._exit(0)  # somebody asked whether there is a server
    request = json.loads(client.makefile().readline())
    program = os.fork()
    if program:
        _, status = os.waitpid(program, 0)
        client.sendall(str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    client.close()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    return request["arguments"]


def run(arguments):
    """Runs `-c PROGRAM ARG...` or `SCRIPT ARG...` as a new interpreter would."""
    if arguments[0] == "-c":
        _, source, *rest = arguments
        name, sys.path[0], sys.argv = "<string>", "", ["-c", *rest]
    else:
        name = arguments[0]
        with open(name, encoding="utf-8") as script:
            source = script.read()
        sys.path[0], sys.argv = os.path.dirname(os.path.abspath(name)), arguments
    main = types.ModuleType("__main__")
    if name != "<string>":
        main.__file__ = name
    sys.modules["__main__"] = main
    exec(compile(source, name, "exec"), main.__dict__)


if __name__ == "__main__":
    _, path, task, *arguments = sys.argv
    if task == "serve":
        run(serve(path, int(arguments[0])))
    elif arguments[0].startswith("-") and arguments[0] != "-c":
        os.execv(sys.executable, [sys.executable, *arguments])  # an option of the interpreter
    else:
        sys.exit(run_by(path, arguments))

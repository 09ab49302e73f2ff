"""Runs `foreword` commands for the documentation's shell snippets, each in a fork of one process that has its libraries loaded.

A snippet is run by a real shell, in which `foreword` is a small client: it hands its arguments, its folder and its three standard
streams to this server and ends with the command's exit code. Importing torch for every line would take minutes; a fork takes
milliseconds and shares nothing with the next one. This process itself computes nothing, so no threads are lost in a fork.

Usage: python command_server.py SOCKET
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import signal
import socket
import sys
import traceback

CLIENT = """\
#!{python} -IS
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({socket!r})
request = {{"arguments": sys.argv[1:], "folder": os.getcwd(), "home": os.environ["FOREWORD_HOME"]}}
socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
sys.exit(int(server.recv(16) or b"70"))
"""
MOST_BYTES = 1 << 16
PRELOADED = (
    "foreword.cli._app",
    "foreword.cli.data",
    "foreword.compiling.compilers.text",
    "foreword.engines.transformers",
    "foreword.evaluate.report",
    "foreword.prefix.operations",
    "foreword.tuning.initialisations.few_shot",
    "foreword.tuning.objectives.lm",
    "foreword.tuning.tuner",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "transformers.models.llama.modeling_llama",
    "transformers.models.qwen3.modeling_qwen3",
)


def serve(path: str) -> None:
    """Answers commands until it is ended."""
    for name in PRELOADED:
        importlib.import_module(name)
    from foreword.cli import main

    gc.freeze()  # what is loaded stays, so a fork need not look through it

    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    print("ready", flush=True)
    while True:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            answer(connection, main)
        connection.close()
        reap()


def answer(connection: socket.socket, main) -> None:
    """Runs one command in this forked process and ends it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    request, streams, _, _ = socket.recv_fds(connection, MOST_BYTES, 3)
    asked = json.loads(request)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.chdir(asked["folder"])
    os.environ["FOREWORD_HOME"] = asked["home"]
    sys.argv = ["foreword", *asked["arguments"]]
    code = 70
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        connection.sendall(str(code).encode())
        os._exit(0)


def reap() -> None:
    """Forgets the commands that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


if __name__ == "__main__":
    serve(sys.argv[1])

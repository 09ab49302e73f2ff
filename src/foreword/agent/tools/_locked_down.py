"""Runs code in a process that can do little else. A program, started twice as `python -I -S _locked_down.py`; imports nothing of Foreword.

The first start (`enter`) builds the walls that the kernel holds and then replaces itself:

- a network namespace of its own, which has no way out (and with it a user namespace, in which it has no rights);
- Landlock, where the kernel has it: files are read in Python's own folders and written in the working folder alone, TCP and signals to
  other processes are refused;
- limits of processor time, memory, size of files, open files and processes; no new privileges.

The second start (`run`) adds a wall within Python, an audit hook that refuses sockets, processes, foreign libraries and files elsewhere,
and runs the code that it reads from its standard input. The value of a last line that is an expression is printed, as at Python's prompt.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable

REFUSED = 97
"""Exit status where the network cannot be cut off."""

_NEW_USER, _NEW_NETWORK, _NEW_IPC = 0x10000000, 0x40000000, 0x08000000
_DROP_BOUND, _NO_NEW_PRIVILEGES = 24, 38
_CREATE_RULES, _ADD_RULE, _RESTRICT = 444, 445, 446
_READ, _READ_FOLDER, _EXECUTE, _WRITE = 1 << 2, 1 << 3, 1 << 0, 1 << 1
_FILE_RIGHTS = _EXECUTE | _WRITE | _READ | 1 << 14
_SYSTEM = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/random", "/dev/urandom")


def enter(settings: dict) -> None:
    """Builds the kernel's walls and becomes the second start."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_ulong
    if not hasattr(libc, "unshare") or libc.unshare(_NEW_USER | _NEW_NETWORK | _NEW_IPC) != 0:
        if not settings["allow_network"]:
            sys.stderr.write(os.strerror(ctypes.get_errno()) if hasattr(libc, "unshare") else "this system has no namespaces")
            sys.exit(REFUSED)
        if hasattr(libc, "prctl"):
            for right in range(64):
                libc.prctl(_DROP_BOUND, number(right), number(0), number(0), number(0))
    if hasattr(libc, "prctl"):
        libc.prctl(_NO_NEW_PRIVILEGES, number(1), number(0), number(0), number(0))
        _restrict_files(libc, ctypes)
    _limit(settings)
    os.execve(sys.executable, [sys.executable, "-I", "-S", "-X", "utf8", os.path.abspath(__file__), "run"], {})


def _limit(settings: dict) -> None:
    import resource

    limits = {
        resource.RLIMIT_CPU: settings["processor_seconds"],
        resource.RLIMIT_AS: settings["memory_bytes"],
        resource.RLIMIT_FSIZE: settings["file_bytes"],
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_NPROC: 0,
        resource.RLIMIT_CORE: 0,
    }
    for kind, most in limits.items():
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _restrict_files(libc, ctypes) -> None:
    """Landlock; does nothing on a kernel without it."""
    version = libc.syscall(_CREATE_RULES, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    if version < 1:
        return
    rights = (1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)) - 1
    attributes = struct.pack("=Q", rights)
    if version >= 4:
        attributes += struct.pack("=Q", 0b11)  # TCP: bind, connect
    if version >= 6:
        attributes += struct.pack("=Q", 0b11)  # abstract sockets and signals
    rules = libc.syscall(_CREATE_RULES, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    if rules < 0:
        return
    _allow(libc, ctypes, rules, os.getcwd(), rights & ~_EXECUTE)
    for path in readable():
        _allow(libc, ctypes, rules, path, (_READ | _READ_FOLDER | _EXECUTE) & rights)
    for path in _DEVICES:
        _allow(libc, ctypes, rules, path, _READ | (_WRITE if path == "/dev/null" else 0))
    libc.syscall(_RESTRICT, ctypes.c_int(rules), ctypes.c_uint(0))
    os.close(rules)


def _allow(libc, ctypes, rules: int, path: str, rights: int) -> None:
    try:
        folder = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    if not os.path.isdir(path):
        rights &= _FILE_RIGHTS
    libc.syscall(_ADD_RULE, ctypes.c_int(rules), ctypes.c_uint(1), struct.pack("=Qi", rights, folder), ctypes.c_uint(0))
    os.close(folder)


def readable() -> list[str]:
    """Where Python, its standard library and the libraries that it is linked with are; and this file."""
    paths = [sys.base_prefix, sys.base_exec_prefix, os.path.realpath(sys.executable), os.path.abspath(__file__), *_SYSTEM]
    return list(dict.fromkeys(os.path.realpath(path) for path in paths))


_MODULES = (
    *("_ctypes", "_curses", "_dbm", "_gdbm", "_multiprocessing", "_posixshmem", "_posixsubprocess", "_socket", "_sqlite3", "_ssl"),
    *("_tkinter", "ctypes", "readline", "socket", "sqlite3", "ssl", "subprocess"),
)
_REFUSED_EVENTS = (
    "ctypes.",
    "ftplib.",
    "gc.",
    "http.",
    "imaplib.",
    "mmap.",
    "pty.",
    "resource.",
    "socket.",
    "sqlite3.",
    "subprocess.",
    "urllib.",
)
_REFUSED_CALLS = (
    *(
        "code.__new__",
        "fcntl.ioctl",
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.kill",
        "os.killpg",
        "os.posix_spawn",
        "os.spawn",
        "os.startfile",
    ),
    *("os.system", "signal.pthread_kill", "syslog.openlog", "sys._current_frames"),
)
_LOOKS = ("os.chdir", "os.listdir", "os.scandir", "os.getxattr", "os.listxattr", "os.walk", "os.fwalk")
_CHANGES = (
    *("os.chflags", "os.chmod", "os.chown", "os.link", "os.mkdir", "os.remove", "os.removexattr", "os.rename", "os.rmdir", "os.setxattr"),
    *("os.symlink", "os.truncate", "os.utime"),
)


def _wall() -> Callable[[str, tuple], None]:
    """The audit hook. What it uses is bound here: the code may change any module, and the hook must not notice."""
    modules, calls, looks, changes, prefixes = map(frozenset, (_MODULES, _REFUSED_CALLS, _LOOKS, _CHANGES, _REFUSED_EVENTS))
    looked_at, changed = _paths()
    whole, is_a, error = int, isinstance, PermissionError
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def hook(event: str, arguments: tuple) -> None:
        if event == "open":
            path, _, flags = arguments
            changed(path) if is_a(flags, whole) and flags & writes else looked_at(path)
        elif event in looks:
            looked_at(arguments[0] if arguments else None)
        elif event in changes:
            for path in arguments[:2]:
                changed(path)
        elif event == "import" and arguments[0] in modules:
            raise error(f"`{arguments[0]}` cannot be used here: there is no network, and there are no other processes")
        elif event in calls or event[: event.find(".") + 1] in prefixes:
            raise error(f"`{event}` is not allowed here")

    return hook


def _paths() -> tuple[Callable[[object], None], Callable[[object], None]]:
    """What raises where a path may not be read, and where it may not be changed."""
    folder, roots, devices = os.path.realpath(os.getcwd()), tuple(readable()), frozenset(_DEVICES)
    resolve, separator, error, text = os.path.realpath, os.sep, PermissionError, str
    is_a, both, decoded = isinstance, (bytes, str), os.fsdecode

    def within(path: str, root: str) -> bool:
        return path == root or path.startswith(root.rstrip(separator) + separator)

    def looked_at(path: object) -> None:
        if not is_a(path, both):
            return
        found = resolve(decoded(path))
        if found in devices or within(found, folder):
            return
        for root in roots:
            if within(found, root):
                return
        raise error(f"files outside the working folder cannot be read here: {text(path)}")

    def changed(path: object) -> None:
        if not is_a(path, both):
            return
        found = resolve(decoded(path))
        if found != "/dev/null" and not within(found, folder):
            raise error(f"files outside the working folder cannot be changed here: {text(path)}")

    return looked_at, changed


def run() -> int:
    """Reads the code and runs it behind the hook; gives the exit status."""
    import ast
    import signal
    import traceback

    source = sys.stdin.buffer.read().decode("utf-8", "replace")
    for module in (os, sys.modules["posix"], signal, sys.modules["_signal"]):
        for name in ("pidfd_open", "pidfd_send_signal"):
            if hasattr(module, name):
                delattr(module, name)
    names: dict = {"__name__": "__main__", "__builtins__": __builtins__}
    try:
        tree = ast.parse(source, "<code>")
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        body = compile(tree, "<code>", "exec")
        value = compile(ast.Expression(last.value), "<code>", "eval") if isinstance(last, ast.Expr) else None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        sys.stderr.write("".join(traceback.format_exception_only(error)))
        return 1
    sys.argv, sys.path = [""], [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]
    sys.modules.pop("__main__", None)
    sys.addaudithook(_wall())
    try:
        exec(body, names)
        if value is not None and (found := eval(value, names)) is not None:
            sys.stdout.write(f"{found!r}\n")
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException as error:
        told = traceback.TracebackException.from_exception(error)
        told.stack = traceback.StackSummary.from_list([frame for frame in told.stack if frame.filename != __file__])
        sys.stdout.flush()
        sys.stderr.write("".join(told.format()))
        return 1
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "enter":
        enter(json.loads(sys.argv[2]))
    status = run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status & 0xFF)

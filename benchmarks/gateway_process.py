"""Servers in processes of their own, and what those take: CPU seconds and resident memory, of a process and all that it has started.

Linux only: the CPU clock of another process is read by its number (clock_getcpuclockid(3)), in nanoseconds, with threads that have ended.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
START_SECONDS = 120.0
_CPUCLOCK_SCHED = 2
_TICK = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that listens at `url`."""

    name: str
    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """CPU time so far, in user and in kernel mode, of the process and of its children, those that have ended included."""
        return sum(_own_cpu_seconds(pid) + _ended_children_seconds(pid) for pid in family(self.pid))

    def memory_mb(self) -> float:
        """Resident memory now, in 10⁶ bytes; pages that processes share are counted for each."""
        return sum(_resident_bytes(pid) for pid in family(self.pid)) / 1e6


def family(pid: int) -> list[int]:
    """A process, its children, and theirs."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                found += [int(child) for child in task.read_text(encoding="ascii").split()]
    return found


@contextlib.contextmanager
def program(name: str, arguments: Sequence[str], folder: Path) -> Iterator[Server]:
    """A Python module of these benchmarks, which says `listening PORT` first."""
    with _started([sys.executable, "-m", *arguments], folder / f"{name}.log", {}) as process:
        assert process.stdout is not None, "its output is piped"
        line = process.stdout.readline().split()
        if len(line) != 2 or line[0] != b"listening":
            raise RuntimeError(f"{name} did not start:\n{_tail(folder / f'{name}.log')}")
        yield Server(name=name, url=f"http://127.0.0.1:{int(line[1])}", pid=process.pid)


@contextlib.contextmanager
def served(name: str, command: Sequence[str], ready: str, folder: Path, environment: Mapping[str, str]) -> Iterator[Server]:
    """Any server: started with `{port}` in its arguments filled in, and waited for until it answers at the path `ready`."""
    port, log = _free_port(), folder / f"{name}.log"
    with _started([part.replace("{port}", str(port)) for part in command], log, environment, quiet=True) as process:
        url = f"http://127.0.0.1:{port}"
        _wait(process, url + ready, log)
        yield Server(name=name, url=url, pid=process.pid)


@contextlib.contextmanager
def _started(
    command: Sequence[str], log: Path, environment: Mapping[str, str], *, quiet: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as errors:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=os.environ | dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=errors if quiet else subprocess.PIPE,
            stderr=errors,
        )
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"A server ended with code {process.returncode}:\n{_tail(log)}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    raise RuntimeError(f"A server was not ready within {START_SECONDS:.0f} s:\n{_tail(log)}")


def _tail(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-2000:]


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _own_cpu_seconds(pid: int) -> float:
    """A clock's number is made of the process's as the kernel's MAKE_PROCESS_CPUCLOCK makes it. A process that is gone has none."""
    try:
        return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED)
    except OSError:
        return 0.0


def _ended_children_seconds(pid: int) -> float:
    """Of children that were waited for: `cutime` and `cstime` of proc(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[13]) + int(fields[14])) / _TICK


def _resident_bytes(pid: int) -> int:
    try:
        pages = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]
    except OSError:
        return 0
    return int(pages) * os.sysconf("SC_PAGE_SIZE")

"""`python`: runs Python code in a process of its own that has no network, few resources, and no files but those of an empty folder.

The walls stand in `_locked_down.py`. They keep a model's mistakes and an injected instruction from the network, the files and the other
processes of this machine. They are no virtual machine: whoever expects an attacker with an exploit for the kernel runs Foreword in one.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreword.agent.tools import _locked_down
from foreword.errors import ConfigError, ToolError
from foreword.prompting.tool import MOST_CHARACTERS, Tool

MOST_CODE = 50_000
"""Characters of the code."""
MOST_OUTPUT = 1_000_000
"""Bytes that the code may print before it is ended."""
MOST_FILES = 1_000
"""Files that it may write."""
_LOOK = 0.2
"""Seconds between two looks at what it has written."""
_GRACE = 3.0
"""Seconds for a process that was killed to be gone."""
_START = 0.5
"""Seconds given for Python's own start, on top of the code's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    seconds: float
    memory_bytes: int
    disk_bytes: int
    allow_network: bool


def make(
    *,
    seconds: float = 10.0,
    memory_mb: int = 512,
    disk_mb: int = 16,
    most_characters: int = MOST_CHARACTERS,
    allow_without_network_namespace: bool = False,
    name: str = "python",
) -> Tool:
    """The tool.

    Args:
        seconds: after which the code and whatever it started are ended.
        memory_mb, disk_mb: that it may use; what it writes is gone when it ends.
        most_characters: of what it prints.
        allow_without_network_namespace: run it even where the kernel gives no network namespace. Then only Landlock (TCP, from Linux 6.7)
            and the hook within Python, which code that means harm can get around, stand between it and the network.

    Raises:
        ConfigError: a number cannot be used.
    """
    if seconds <= 0 or memory_mb < 64 or disk_mb < 1:
        raise ConfigError(
            f"`seconds` must be above 0, `memory_mb` 64 or more, `disk_mb` 1 or more; got {seconds:g}, {memory_mb}, {disk_mb}."
        )
    limits = _Limits(seconds=seconds, memory_bytes=memory_mb << 20, disk_bytes=disk_mb << 20, allow_network=allow_without_network_namespace)

    async def call(arguments: Mapping[str, Any]) -> str:
        code = arguments.get("code")
        if not isinstance(code, str) or set(arguments) != {"code"}:
            raise ToolError(f'`{name}` takes one argument, a text: {{"code": "print(6 * 7)"}}.')
        if len(code) > MOST_CODE:
            raise ToolError(f"The code has {len(code):,} characters; at most {MOST_CODE:,} are taken.")
        if sys.platform != "linux":
            raise ToolError("Code can be run on Linux only: other systems have no walls to run it behind.")
        return await _told(code, limits, most_characters)

    return Tool(
        name=name,
        description=(
            f"Runs Python code (standard library only, no network, at most {seconds:g} seconds) and gives what it prints, "
            "and the value of its last line. Nothing is kept from one call to the next."
        ),
        parameters={
            "type": "object",
            "properties": {"code": {"type": "string", "description": "For instance: print(sum(range(10)))"}},
            "required": ["code"],
            "additionalProperties": False,
        },
        call=call,
        seconds=seconds + 2 * _GRACE,
        most_characters=most_characters,
    )


async def _told(code: str, limits: _Limits, most_characters: int) -> str:
    with tempfile.TemporaryDirectory(prefix="foreword-python-", ignore_cleanup_errors=True) as folder:
        status, output, ended = await _ran(code, limits, Path(folder))
    text = output.decode("utf-8", "replace").rstrip()
    if status == _locked_down.REFUSED:
        raise ToolError(
            f"Code cannot be run: this system does not let it be cut off from the network ({text[-200:]}). Allow user namespaces (sysctl "
            "kernel.unprivileged_userns_clone=1, kernel.apparmor_restrict_unprivileged_userns=0, or a container whose seccomp profile "
            "permits `unshare`), or make the tool with `allow_without_network_namespace=True`."
        )
    why = ended or _why(status)
    if not why:
        return text or "(nothing was printed)"
    # What went wrong stands at the end of what was printed.
    kept = text if len(text) <= most_characters // 2 else f"[cut]{text[-most_characters // 2 :]}"
    raise ToolError(f"{kept}\n{why}".strip())


async def _ran(code: str, limits: _Limits, folder: Path) -> tuple[int, bytes, str]:
    """Exit status, what was printed, and why it was ended where it was."""
    settings = {
        "processor_seconds": int(limits.seconds) + 1,
        "memory_bytes": limits.memory_bytes,
        "file_bytes": limits.disk_bytes,
        "allow_network": limits.allow_network,
    }
    program = Path(_locked_down.__file__).resolve()
    process = await asyncio.create_subprocess_exec(
        *(os.path.realpath(sys.executable), "-I", "-S", "-X", "utf8", str(program), "enter", json.dumps(settings)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=folder,
        env={},
        start_new_session=True,
    )
    output = bytearray()
    watch = asyncio.ensure_future(_watched(folder, limits))
    talk = asyncio.ensure_future(_talked(process, code, output))
    ended = ""
    try:
        await asyncio.wait((watch, talk), timeout=limits.seconds + _START, return_when=asyncio.FIRST_COMPLETED)
        if talk.done():
            ended = talk.result()
        else:
            ended = watch.result() if watch.done() else f"It took longer than {limits.seconds:g} seconds and was ended."
    finally:
        _kill(process)
        for task in (watch, talk):
            task.cancel()
        await asyncio.gather(watch, talk, return_exceptions=True)
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE):
                await _drained(process)
    return process.returncode if process.returncode is not None else -signal.SIGKILL, bytes(output), ended


async def _talked(process: asyncio.subprocess.Process, code: str, output: bytearray) -> str:
    """Hands over the code, and takes what is printed until there is no more or it is too much."""
    assert process.stdin is not None and process.stdout is not None
    with suppress(BrokenPipeError, ConnectionResetError):
        process.stdin.write(code.encode("utf-8", "replace"))
        await process.stdin.drain()
    process.stdin.close()
    while piece := await process.stdout.read(65_536):
        output += piece[: MOST_OUTPUT - len(output)]
        if len(output) >= MOST_OUTPUT:
            return f"It printed more than {MOST_OUTPUT:,} bytes and was ended."
    await process.wait()
    return ""


async def _drained(process: asyncio.subprocess.Process) -> None:
    """Reads what is left in the pipe of a process that is ended, so that pipe and process are given back."""
    assert process.stdout is not None
    while await process.stdout.read(65_536):
        pass
    await process.wait()


async def _watched(folder: Path, limits: _Limits) -> str:
    """Waits until more is written than may be."""
    while True:
        await asyncio.sleep(_LOOK)
        size = count = 0
        for parent, folders, files in os.walk(folder):
            count += len(folders) + len(files)
            for file in files[:MOST_FILES]:
                with suppress(OSError):
                    size += os.lstat(os.path.join(parent, file)).st_size
            if count > MOST_FILES:
                return f"It wrote more than {MOST_FILES:,} files and was ended."
            if size > limits.disk_bytes:
                return f"It wrote more than {limits.disk_bytes >> 20} MB and was ended."


def _kill(process: asyncio.subprocess.Process) -> None:
    """Ends the process and its whole group, if anything of it is left."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()


def _why(status: int) -> str:
    if status == 0:
        return ""
    if status == -signal.SIGXCPU:
        return "It took more processor time than it may and was ended."
    if status == -signal.SIGXFSZ:
        return "It wrote a larger file than it may and was ended."
    return f"It was ended by signal {-status}." if status < 0 else f"It ended with exit status {status}."

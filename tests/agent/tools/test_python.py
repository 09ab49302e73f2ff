"""Code in a process that can do little else: real processes, real walls."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from foreword.agent.tools import _locked_down, python
from foreword.errors import ConfigError
from foreword.prompting.tool import Observation, Tools

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="code is run on Linux only")


def called(code: str, **settings: Any) -> Observation:
    return asyncio.run(Tools.of([python.make(**settings)]).call("python", {"code": code}))


@pytest.fixture(scope="module", autouse=True)
def namespaces() -> None:
    """Without them the tool refuses to run, which is tested elsewhere."""
    if not called("1").ok:
        pytest.skip("this system gives no network namespace to a process without rights")


@pytest.fixture
def unhooked(tmp_path: Path) -> Path:
    """The program without the wall within Python, so that the kernel's walls can be seen to stand by themselves."""
    source = Path(_locked_down.__file__).read_text(encoding="utf-8")
    hook = "    sys.addaudithook(_wall())\n"
    assert source.count(hook) == 1
    program = tmp_path / "unhooked.py"
    program.write_text(source.replace(hook, ""), encoding="utf-8")
    return program


def behind_the_kernels_walls(program: Path, code: str, folder: Path) -> str:
    settings = '{"processor_seconds": 5, "memory_bytes": 536870912, "file_bytes": 1000000, "allow_network": false}'
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [os.path.realpath(sys.executable), "-I", "-S", "-X", "utf8", str(program), "enter", settings],
        input=code.encode(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env={},
        check=False,
    ).stdout.decode()


@pytest.fixture
def listener() -> Iterator[int]:
    """A port of this machine that takes connections."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_what_is_printed_and_the_last_value_come_back() -> None:
    assert called("print('tea')\nn = 6\nn * 7") == Observation(text="tea\n42")
    assert called("x = 1") == Observation(text="(nothing was printed)")
    assert called("def f(n): return n if n < 2 else f(n-1) + f(n-2)\nf(15)").text == "610"
    assert called("print('é', end='')").text == "é"


def test_the_standard_library_is_there_and_nothing_else() -> None:
    assert (
        called("import statistics, fractions, decimal, re, json, datetime, random, itertools, collections\nstatistics.mean([1, 2])").text
        == "1.5"
    )
    found = called("import pydantic")
    assert not found.ok
    assert "ModuleNotFoundError" in found.text


def test_an_error_is_told_after_what_was_printed() -> None:
    found = called("print('before')\n1 / 0")
    assert not found.ok
    assert found.text.startswith("before\n")
    assert "ZeroDivisionError" in found.text
    assert "_locked_down" not in found.text  # nobody needs to know how the walls are built


@pytest.mark.parametrize("code", ["a b", "print(", "\x00", "(" * 10_000, "x = " + "-" * 40_000 + "1"])
def test_code_that_is_none_is_told(code: str) -> None:
    assert not called(code).ok


def test_the_exit_status_is_told() -> None:
    assert called("import sys; sys.exit(3)").text == "It ended with exit status 3."
    assert called("import os; os._exit(5)").text == "It ended with exit status 5."
    assert called("import sys; sys.exit()").ok


REFUSED = {
    "a socket": "import socket",
    "a socket in C": "import _socket",
    "a web page": "import urllib.request",
    "a process": "import subprocess",
    "a process in C": "import _posixsubprocess",
    "a shell": "import os; os.system('true')",
    "a fork": "import os; os.fork()",
    "another program": "import os; os.execv('/bin/true', ['true'])",
    "a signal": "import os; os.kill(os.getppid(), 0)",
    "a signal by descriptor": "import os; os.pidfd_open(os.getppid())",
    "a foreign library": "import ctypes",
    "a database file": "import sqlite3",
    "a secret file": "open('/etc/passwd').read()",
    "a secret file, opened low": "import os; os.open('/etc/passwd', os.O_RDONLY)",
    "a process's memory": "open('/proc/self/mem', 'rb+')",
    "a file elsewhere": "open('/tmp/foreword-was-here', 'w')",
    "a file above": "open('../foreword-was-here', 'w')",
    "a link to a file elsewhere": "import os; os.symlink('/etc/passwd', 'p'); open('p').read()",
    "a folder elsewhere": "import os; os.listdir('/')",
    "removing elsewhere": "import os; os.remove('/tmp/nothing-here')",
    "rights elsewhere": "import os; os.chmod('/tmp', 0o777)",
    "higher limits": "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "the hook itself": "import gc; gc.get_objects()",
    "forged code": "f = (lambda: 0).__code__; f.replace(co_code=b'')",
}


@pytest.mark.parametrize("code", REFUSED.values(), ids=REFUSED)
def test_what_reaches_out_is_refused(code: str) -> None:
    found = called(code)
    assert not found.ok
    assert "Error" in found.text
    assert not os.path.lexists("/tmp/foreword-was-here")


def test_the_working_folder_can_be_used_and_is_gone_afterwards() -> None:
    found = called(
        "import os\nopen('a.txt', 'w').write('tea')\nprint(open('a.txt').read(), os.listdir('.'))\nos.remove('a.txt')\nos.getcwd()"
    )
    assert found.ok
    assert found.text.startswith("tea ['a.txt']")
    assert not os.path.exists(found.text.splitlines()[-1].strip("'"))


def test_there_is_nothing_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "tea")
    found = called("import os; sorted(os.environ)")
    assert "SECRET" not in found.text


def test_it_has_no_rights() -> None:
    assert called("import os; (os.getuid(), os.geteuid())").text != "(0, 0)"


@pytest.mark.parametrize("code", ["while True: pass", "import time; time.sleep(60)"])
def test_what_does_not_end_is_ended(code: str) -> None:
    found = called(f"print('started', flush=True)\n{code}", seconds=0.3)
    assert not found.ok
    assert "It took longer than 0.3 seconds and was ended." in found.text


def test_processor_time_is_limited_by_the_kernel_too(unhooked: Path, tmp_path: Path) -> None:
    told = behind_the_kernels_walls(unhooked, "import resource\nresource.getrlimit(resource.RLIMIT_CPU)", tmp_path / "cell")
    assert told == "(5, 5)\n"


def test_memory_is_limited() -> None:
    found = called("x = [0] * 10**9", memory_mb=128)
    assert "MemoryError" in found.text


def test_what_it_prints_is_limited() -> None:
    found = called("while True: print('x' * 1000)", most_characters=500)
    assert not found.ok
    assert "printed more than 1,000,000 bytes" in found.text
    assert len(found.text) < 1_000


def test_what_it_writes_is_limited() -> None:
    found = called("f = open('a', 'wb')\nwhile True: f.write(b'x' * 10**6)", disk_mb=2)
    assert "too large" in found.text
    found = called("import time\nfor n in range(5): open(str(n), 'wb').write(b'x' * 10**6)\ntime.sleep(30)", disk_mb=2)
    assert "wrote more than 2 MB" in found.text
    found = called("n = 0\nwhile True:\n  open(str(n), 'w').close()\n  n += 1", seconds=20)
    assert "more than 1,000 files" in found.text


def test_threads_without_end_are_refused() -> None:
    found = called("import threading, time\nfor n in range(10**5): threading.Thread(target=time.sleep, args=(60,)).start()", memory_mb=256)
    assert not found.ok


def test_a_caller_that_is_gone_ends_the_code() -> None:
    async def run() -> str:
        tools = Tools.of([python.make(seconds=7_654_320)])  # which stands in the process's arguments
        under_way = asyncio.ensure_future(tools.call("python", {"code": "import time; time.sleep(60)"}))
        await asyncio.sleep(0.3)
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout

    assert "7654321" not in asyncio.run(run())


def test_several_run_at_once_and_do_not_meet() -> None:
    async def run() -> list[Observation]:
        tools = Tools.of([python.make()])
        code = "import os\nopen('mine', 'w').write('{0}')\nprint(open('mine').read(), len(os.listdir('.')))"
        return list(await asyncio.gather(*(tools.call("python", {"code": code.format(n)}) for n in range(6))))

    assert [found.text for found in asyncio.run(run())] == [f"{n} 1" for n in range(6)]


@pytest.mark.parametrize("arguments", [{}, {"code": 1}, {"code": "1", "seconds": 99}, {"code": "1" * 60_000}])
def test_other_arguments_are_refused(arguments: dict[str, Any]) -> None:
    assert not asyncio.run(Tools.of([python.make()]).call("python", arguments)).ok


def test_settings_that_cannot_be_used_are_refused() -> None:
    with pytest.raises(ConfigError):
        python.make(memory_mb=1)
    with pytest.raises(ConfigError):
        python.make(seconds=0)


def test_the_kernel_alone_keeps_it_from_the_network(unhooked: Path, tmp_path: Path, listener: int) -> None:
    code = f"import socket\nsocket.create_connection(('127.0.0.1', {listener}), timeout=2)"
    told = behind_the_kernels_walls(unhooked, code, tmp_path / "cell")
    assert "Error" in told
    assert "unreachable" in told or "Permission" in told
    told = behind_the_kernels_walls(unhooked, "import socket\n[name for _, name in socket.if_nameindex()]", tmp_path / "cell")
    assert told == "['lo']\n"


def test_the_kernel_alone_keeps_it_from_files(unhooked: Path, tmp_path: Path) -> None:
    if ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint(1)) < 1:
        pytest.skip("this kernel has no Landlock")
    secret = tmp_path / "secret.txt"
    secret.write_text("tea")
    for code in (f"open({str(secret)!r}).read()", f"open({str(secret)!r}, 'w')", "open('/proc/self/status').read()", "open('../x', 'w')"):
        assert "PermissionError" in behind_the_kernels_walls(unhooked, code, tmp_path / "cell")
    assert behind_the_kernels_walls(unhooked, "open('x', 'w').write('1')", tmp_path / "cell") == "1\n"
    assert secret.read_text() == "tea"


def test_the_kernel_alone_takes_its_rights(unhooked: Path, tmp_path: Path) -> None:
    code = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nlibc.unshare(0x20000), libc.prctl(39, 0, 0, 0, 0)"
    assert behind_the_kernels_walls(unhooked, code, tmp_path / "cell") == "(-1, 1)\n"


def test_an_allowed_network_still_leaves_the_hook(listener: int) -> None:
    found = called(f"import socket; socket.create_connection(('127.0.0.1', {listener}))", allow_without_network_namespace=True)
    assert not found.ok


def test_without_a_namespace_it_refuses_and_says_what_to_do(tmp_path: Path) -> None:
    # A process that has used up its namespaces stands for a system that gives none.
    program = tmp_path / "refused.py"
    source = Path(_locked_down.__file__).read_text(encoding="utf-8")
    program.write_text(source.replace("_NEW_USER | _NEW_NETWORK | _NEW_IPC", "0x7fffffff"), encoding="utf-8")
    settings = '{"processor_seconds": 5, "memory_bytes": 536870912, "file_bytes": 1000000, "allow_network": false}'
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(program), "enter", settings], input=b"print(1)", capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (_locked_down.REFUSED, b"")
    assert done.stderr


def test_the_event_loop_goes_on_meanwhile() -> None:
    async def run() -> int:
        done = threading.Event()
        under_way = asyncio.ensure_future(Tools.of([python.make()]).call("python", {"code": "import time; time.sleep(0.3)"}))
        under_way.add_done_callback(lambda _: done.set())
        turns = 0
        while not done.is_set():
            await asyncio.sleep(0.01)
            turns += 1
        return turns

    assert asyncio.run(run()) > 3

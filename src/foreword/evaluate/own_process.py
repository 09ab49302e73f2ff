"""A contender in a process of its own: started, listened to, and ended with its parent. What runs in it is `measuring.py`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from foreword.evaluate.measuring import FINDING_FILE, JOB, JOB_FILE, Finding, Job

ERROR_LINES = 12
_CHILD = "import sys; from pathlib import Path; from foreword.evaluate.measuring import run_job; sys.exit(run_job(Path(sys.argv[1])))"


def run_apart(job: Job, progress: Callable[[str, int, int], None]) -> Finding | str:
    """The finding of a contender's own process, or the reason why there is none."""
    with tempfile.TemporaryDirectory(prefix="foreword-compare-") as name:
        folder = Path(name)
        (folder / JOB_FILE).write_bytes(JOB.dump_json(job))
        with (folder / "stderr").open("wb") as errors, _child(folder, errors) as process:
            assert process.stdout is not None
            for line in process.stdout:
                told = json.loads(line)
                progress(told["stage"], told["done"], told["total"])
            code = process.wait()
        written = folder / FINDING_FILE
        if not written.exists():
            return _crash(code, folder / "stderr")
        content = json.loads(written.read_text(encoding="utf-8"))
    return content["failed"] if "failed" in content else Finding.model_validate(content["finding"])


@contextmanager
def _child(folder: Path, errors: object) -> Iterator[subprocess.Popen[str]]:
    """The contender's process; ended when the block is left early."""
    # A new interpreter and not multiprocessing's spawn: that would import the caller's main script again.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    process = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,  # type: ignore[arg-type]
        text=True,
        encoding="utf-8",
        env=environment,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def _crash(code: int, errors: Path) -> str:
    """Why a process ended without a word of its own."""
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; most often that means that memory ran out" if name == "SIGKILL" else ""
        return f"Its process was ended by {name}{hint}."
    with errors.open(encoding="utf-8", errors="replace") as file:
        last = [line.rstrip() for line in deque(file, maxlen=ERROR_LINES)]
    return f"Its process failed with exit code {code}:\n" + "\n".join(last)

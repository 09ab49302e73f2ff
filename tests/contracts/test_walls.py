"""The import contracts hold for the tree as it is, and each kind of them fails when it is broken."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def checkout(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the contracts need; a test that breaks a wall breaks it here and mends it again."""
    copy = tmp_path_factory.mktemp("checkout")
    shutil.copy(repository / "pyproject.toml", copy)
    shutil.copytree(repository / "src", copy / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (copy / "tests/support").mkdir(parents=True)
    shutil.copy(repository / "tests/support/siblings.py", copy / "tests/support")
    return copy


def lint(checkout: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    """Runs import-linter on the copy, on the contracts named or on all of them."""
    chosen = [word for contract in contracts for word in ("--contract", contract)]
    program = Path(sys.executable).parent / "lint-imports"
    return subprocess.run(
        [str(program), "--no-cache", *chosen],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout / "src")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_wall_holds(checkout: Path) -> None:
    result = lint(checkout)
    assert result.returncode == 0, result.stdout + result.stderr


BREACHES: Mapping[str, tuple[str, Mapping[str, str]]] = {
    "a room imports upward": ("floors", {"cost/_breach.py": "import foreword.evaluate\n"}),
    "two rooms of one floor": ("floors", {"cost/_breach.py": "from foreword.data import reading\n"}),
    "a room that no floor lists": ("floors", {"attic.py": "ROOM = 'attic'\n"}),
    "a concrete engine named above": ("engines-by-name", {"tuning/_breach.py": "from foreword.engines import transformers\n"}),
    "torch in the data room": ("torch-free", {"data/_breach.py": "def count():\n    import torch\n    return torch.ones(1)\n"}),
    "torch behind the engine contract": (
        "torch-free",
        {"types.py": "from foreword import breach\n", "breach.py": "from transformers import AutoModel\n"},
    ),
    "a scorer imports its sibling": ("scorer-siblings", {"evaluate/scorers/breach.py": "from foreword.evaluate.scorers import accuracy\n"}),
    "a scorer reaches its sibling through a private module": (
        "scorer-siblings",
        {
            "evaluate/scorers/breach.py": "from foreword.evaluate.scorers import _breach\n",
            "evaluate/scorers/_breach.py": "from foreword.evaluate.scorers import accuracy\n",
        },
    ),
}


@pytest.mark.parametrize("breach", BREACHES)
def test_a_broken_wall_is_found(checkout: Path, breach: str) -> None:
    contract, additions = BREACHES[breach]
    originals = {path: path.read_bytes() if path.exists() else None for path in (checkout / "src/foreword" / name for name in additions)}
    try:
        for path, original in originals.items():
            added = additions[path.relative_to(checkout / "src/foreword").as_posix()]
            path.write_bytes((original or b"") + b"\n" + added.encode())
        result = lint(checkout, contract)
    finally:
        for path, original in originals.items():
            path.unlink() if original is None else path.write_bytes(original)
    assert result.returncode == 1
    assert "0 kept, 1 broken" in result.stdout, result.stdout + result.stderr


def test_private_modules_may_be_shared(checkout: Path) -> None:
    private = checkout / "src/foreword/evaluate/scorers/_shared.py"
    users = [private.with_name("first.py"), private.with_name("second.py")]
    private.write_text("WORDS = ()\n")
    for user in users:
        user.write_text("from foreword.evaluate.scorers import _shared\n")
    try:
        result = lint(checkout, "scorer-siblings")
    finally:
        for path in (private, *users):
            path.unlink()
    assert result.returncode == 0, result.stdout + result.stderr

"""One more implementation is one file, its mirrored test and its place in the docs: here the three are held together."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "src/foreword"


def walled_folders() -> list[Path]:
    """Plural folders that a `siblings` contract names, relative to the package."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    patterns = [pattern for contract in contracts if contract["type"] == "siblings" for pattern in contract["modules"]]
    return [Path(*pattern.removesuffix(".*").split(".")[1:]) for pattern in patterns]


def implementations() -> list[Path]:
    """Public modules of the plural folders, relative to the package."""
    files = [file for folder in walled_folders() for file in sorted((PACKAGE / folder).glob("*.py"))]
    return [file.relative_to(PACKAGE) for file in files if not file.name.startswith("_")]


def key(module: Path) -> str:
    """The name that the registry finds a module by."""
    return module.stem.replace("_", "-")


@pytest.fixture(scope="module")
def names_in_docs() -> set[str]:
    """Everything that the documentation sets in backticks."""
    pages = (page.read_text(encoding="utf-8") for page in (ROOT / "docs").rglob("*.md"))
    return {name for page in pages for name in re.findall(r"`([^`\n]+)`", page)}


def test_every_plural_folder_has_its_wall() -> None:
    def has_singular(folder: Path) -> bool:
        word = folder.name.removesuffix("ies") + "y" if folder.name.endswith("ies") else folder.name.removesuffix("s")
        return (folder.parent / f"{word}.py").is_file()

    plural = {init.parent for init in PACKAGE.rglob("*s/__init__.py") if has_singular(init.parent)}
    assert {folder.relative_to(PACKAGE) for folder in plural} == set(walled_folders())


def test_every_folder_is_a_package() -> None:
    bare = {file.parent for file in PACKAGE.rglob("*.py") if not (file.parent / "__init__.py").is_file()}
    assert bare == set()


def test_the_walk_finds_something() -> None:
    assert Path("engines/transformers.py") in implementations()


@pytest.mark.parametrize("module", implementations(), ids=str)
def test_has_a_mirrored_test(module: Path) -> None:
    mirror = ROOT / "tests" / module.parent / f"test_{module.name}"
    assert mirror.is_file(), f"{module} has no test of its own: write {mirror.relative_to(ROOT)}"


@pytest.mark.parametrize("module", implementations(), ids=str)
def test_is_named_in_the_docs(module: Path, names_in_docs: set[str]) -> None:
    assert key(module) in names_in_docs, f"no page under docs/ names `{key(module)}` ({module})"

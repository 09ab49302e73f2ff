"""The reference says what the code says: command-line help, and one section for every key."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from foreword import registry

SECTIONS = {
    "Engines": "foreword.engines",
    "Objectives": "foreword.tuning.objectives",
    "Initialisations": "foreword.tuning.initialisations",
    "Compilers": "foreword.compiling.compilers",
    "Scorers": "foreword.evaluate.scorers",
    "Contenders": "foreword.evaluate.contenders",
}


def test_the_command_line_pages_are_what_help_prints(tools: Callable[[str], ModuleType], repository: Path):
    page = repository / "docs/reference/cli.md"
    assert page.read_text(encoding="utf-8") == tools("regenerate").command_line_page(), "regenerate it: python docs/regenerate.py"


def test_the_command_line_page_has_every_command(repository: Path):
    text = (repository / "docs/reference/cli.md").read_text(encoding="utf-8")
    commands = re.findall(r"^## `foreword ([a-z ]+)`$", text, re.MULTILINE)
    assert {"tune", "compare", "generate", "chat", "compile", "data check", "prefix ls", "prefix compose", "models", "demo"} <= set(
        commands
    )


@pytest.mark.parametrize(("section", "folder"), SECTIONS.items(), ids=SECTIONS)
def test_every_key_has_a_paragraph(repository: Path, section: str, folder: str):
    text = (repository / "docs/reference/keys.md").read_text(encoding="utf-8")
    part = text.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    described = dict(re.findall(r"^### `([a-z0-9-]+)`\n\n(.+)", part, re.MULTILINE))
    assert set(described) == set(registry.names(folder))
    assert all(len(paragraph) > 60 for paragraph in described.values())


def test_every_page_is_in_the_navigation(repository: Path):
    navigation = set(re.findall(r"[\w/.-]+\.md", (repository / "mkdocs.yml").read_text(encoding="utf-8")))
    pages = {str(page.relative_to(repository / "docs")) for page in (repository / "docs").rglob("*.md")}
    assert navigation == pages

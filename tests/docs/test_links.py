"""Links lead somewhere, and no page names a file that does not exist."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
from markdown.extensions.toc import slugify

ROOT = Path(__file__).resolve().parent.parent.parent
OUTER = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")
PAGES = [*(ROOT / name for name in OUTER), *sorted((ROOT / "docs").rglob("*.md"))]
PACKAGE = ROOT / "src/foreword"

_LINK = re.compile(r"\[(?:[^\]\[]|\[[^\]]*\])*\]\(([^)\s]+)\)|src=\"([^\"]+)\"")
_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """What a link to a heading of the page may end in."""
    text = prose(page)
    found = {slugify(re.sub(r"[`*]", "", title), "-") for title in re.findall(r"^#+ (.+?)\s*$", text, re.MULTILINE)}
    return found | set(re.findall(r"^::: (\S+)", text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_internal_links_lead_somewhere(page: Path):
    text = re.sub(r"`[^`\n]+`", "", prose(page))
    for target in (unquote(first or second) for first, second in _LINK.findall(text)):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        goal = (page.parent / path).resolve() if path else page
        assert goal.exists(), f"{name(page)} links to {target}"
        if anchor and goal.suffix == ".md":
            assert anchor in anchors(goal), f"{name(page)} links to {target}, and {name(goal)} has no such heading"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_files_that_are_named_exist(page: Path):
    assert [code for code in _CODE.findall(prose(page)) if (path := named_file(code)) is not None and not path.exists()] == []


def named_file(code: str) -> Path | None:
    """The file of this repository that a piece of code names: it starts with one of its folders, or of the package's."""
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?", code):
        return None
    first = code.split("/")[0]
    if (ROOT / first).is_dir() and first != "runs":
        return ROOT / code
    return PACKAGE / code if (PACKAGE / first).is_dir() else None


def test_named_files_are_recognised():
    assert named_file("src/foreword/api.py") == PACKAGE / "api.py"
    assert named_file("tuning/plan.py") == PACKAGE / "tuning/plan.py"
    assert named_file("train.jsonl") is None and named_file("org/model") is None


def test_files_of_the_root_that_pages_name_exist():
    wanted = {
        code for page in PAGES for code in _CODE.findall(prose(page)) if code in ("Makefile", "LICENSE", "pyproject.toml", "mkdocs.yml")
    }
    assert {file for file in wanted if not (ROOT / file).is_file()} == set()

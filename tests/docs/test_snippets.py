"""Every snippet of the README and the documentation runs, in order, page by page; how-to pages go on from where the tutorial ends."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
TUTORIAL = ROOT / "docs/tutorial.md"
FROM_NOTHING = (ROOT / "README.md", TUTORIAL)
SHOWN_ONLY = frozenset({"text", "json", "jsonl", "toml", "yaml", "csv"})
LEAST_REASON = 20

_FENCE = re.compile(r"(?:^<!-- not run: (?P<reason>.+?) -->\n+)?^```(?P<language>\S*)[^\n]*\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fence:
    """One fenced block. `reason` says why it is not run, where it is not."""

    page: Path
    line: int
    language: str
    code: str
    reason: str | None

    @property
    def place(self) -> str:
        """Page and line, as an editor opens them."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def fences(page: Path) -> Iterator[Fence]:
    """The page's fenced blocks, in order."""
    text = page.read_text(encoding="utf-8")
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start("code"))
        yield Fence(page=page, line=line, language=match["language"], code=match["code"], reason=match["reason"])


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


ALL = [fence for page in PAGES for fence in fences(page)]
RUN = [fence for fence in ALL if fence.language in ("python", "sh") and fence.reason is None]
PAGES_TO_RUN = sorted({fence.page for fence in RUN} - {TUTORIAL})


class Runner:
    """Runs the fences of a page one after the other; Python ones share their names."""

    def __init__(self, shell: Any, place: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self._shell, self._place = shell, place
        self._names: dict[str, Any] = {"__name__": "__main__"}
        monkeypatch.chdir(place.folder)
        monkeypatch.setenv("FOREWORD_HOME", str(place.home))

    def run(self, page: Path) -> None:
        for fence in RUN:
            if fence.page == page:
                self._python(fence) if fence.language == "python" else self._sh(fence)

    def _python(self, fence: Fence) -> None:
        # Line numbers are the page's own, so that a traceback points into it.
        exec(compile("\n" * fence.line + fence.code, str(fence.page), "exec"), self._names)

    def _sh(self, fence: Fence) -> None:
        done = self._shell.run(fence.code, self._place)
        assert done.returncode == 0, f"{fence.place} ended with {done.returncode}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Tiny models gain nothing from threads, and waiting threads cost much on a busy machine."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def after_tutorial(shell: Any, fresh_place: Callable[[], Any]) -> Iterator[Any]:
    """The place that the tutorial leaves behind."""
    place = fresh_place()
    with pytest.MonkeyPatch.context() as monkeypatch:
        Runner(shell, place, monkeypatch).run(TUTORIAL)
    yield place


def test_the_tutorial_runs(after_tutorial: Any):
    assert (after_tutorial.home / "prefixes/support").is_dir()


@pytest.mark.parametrize("page", PAGES_TO_RUN, ids=name)
def test_the_snippets_of_a_page_run(
    page: Path, shell: Any, fresh_place: Callable[[], Any], request: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    place = fresh_place() if page in FROM_NOTHING else request.getfixturevalue("after_tutorial").copy_to(tmp_path)
    Runner(shell, place, monkeypatch).run(page)


def test_there_is_something_to_run():
    assert {fence.language for fence in RUN} == {"python", "sh"}
    assert {TUTORIAL, ROOT / "README.md"} <= {fence.page for fence in RUN}


def test_every_fence_is_closed_and_has_a_language_that_is_known():
    for page in PAGES:
        marks = re.findall(r"^\s*```(\S*)", page.read_text(encoding="utf-8"), re.MULTILINE)
        assert len(marks) == 2 * len(list(fences(page))), f"{name(page)}: a fence is indented or not closed, and would not be checked"
    unknown = [fence.place for fence in ALL if fence.language not in SHOWN_ONLY | {"python", "sh"}]
    assert unknown == []


def test_what_is_not_run_has_a_reason():
    for fence in ALL:
        if fence.reason is not None:
            assert fence.language in ("python", "sh") and len(fence.reason) >= LEAST_REASON, fence.place


@pytest.mark.parametrize("fence", [fence for fence in ALL if fence.language in SHOWN_ONLY], ids=lambda fence: fence.place)
def test_what_is_shown_is_well_formed(fence: Fence):
    if fence.language == "json":
        json.loads(fence.code)
    elif fence.language == "jsonl":
        assert all(isinstance(json.loads(line), dict) for line in fence.code.splitlines())
    elif fence.language == "toml":
        tomllib.loads(fence.code)


@pytest.mark.parametrize("fence", [fence for fence in ALL if fence.reason is not None], ids=lambda fence: fence.place)
def test_what_is_not_run_can_at_least_be_parsed(fence: Fence):
    if fence.language == "python":
        ast.parse(fence.code)
        return
    for words in command_lines(fence.code):
        if words[0] == "foreword":
            parse_command(words[1:])
        elif words[0] == "make":
            targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
            assert [word for word in words[1:] if "=" not in word and word not in targets] == []


def command_lines(code: str) -> Iterator[list[str]]:
    """The words of each command in a script without control structures; pipes part commands, redirections are left out."""
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for word in lexer:
            if word in ("|", "&&", ";"):
                yield words
                words = []
            elif word in (">", "<"):
                next(lexer, None)
            else:
                words.append(word)
        start = words.index("foreword.cli") + 1 if "foreword.cli" in words else None
        if words:
            yield words if start is None else ["foreword", *words[start:]]


def parse_command(words: list[str]) -> None:
    """Fails unless `foreword WORDS` names a command, arguments and options that it takes."""
    from typer.main import get_command

    from foreword.cli._app import app

    name, command, context = "foreword", get_command(app), None
    while True:
        if words:
            context = command.make_context(name, words, parent=context)
        if not words or not hasattr(command, "resolve_command"):
            return
        left: Any = context
        name, command, words = command.resolve_command(left, [*left._protected_args, *left.args])

"""Writes `docs/reference/cli.md` anew from the commands' own help. Run it after a change to the command line:

    python docs/regenerate.py

A test fails while the page differs from what `--help` prints.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent / "reference" / "cli.md"
INTRODUCTION = """\
# Command line

What `--help` prints, command by command. This page is written by `docs/regenerate.py`; change the commands, not the page.

Results go to standard output; progress, notes and errors go to standard error. A command ends with 0 when it did what it was asked, with 1
when it ran and the answer is no (a damaged prefix, a strategy that failed), with 2 when the input was wrong, and with 130 when it was
interrupted. `--verbose` may stand anywhere on the line: it logs what happens and shows where an error came from.
"""


def commands() -> Iterator[tuple[str, ...]]:
    """The words of every command and group, in the order of the command list."""
    import typer

    from foreword.cli import data
    from foreword.cli._app import app

    yield ()
    for name, command in _children(typer.main.get_command(app)):
        yield (name,)
        # `data` is a stand-in until it is called, so that the list of commands appears at once.
        group: Any = typer.main.get_command(data.app) if name == "data" else command
        for child, _ in _children(group):
            yield (name, child)


def _children(command: Any) -> list[tuple[str, Any]]:
    return list(getattr(command, "commands", {}).items())


def help_of(words: tuple[str, ...]) -> str:
    """What `foreword WORDS --help` prints."""
    from typer.testing import CliRunner

    from foreword.cli._app import app

    result = CliRunner().invoke(app, [*words, "--help"], prog_name="foreword")
    if result.exit_code:
        raise SystemExit(f"`foreword {' '.join(words)} --help` ended with {result.exit_code}:\n{result.output}")
    return "\n".join(line.rstrip() for line in result.stdout.strip("\n").splitlines())


def command_line_page() -> str:
    """The whole page."""
    sections = [f"## `{' '.join(('foreword', *words))}`\n\n```text\n{help_of(words)}\n```\n" for words in commands()]
    return "\n".join([INTRODUCTION, *sections])


def main() -> None:
    """Writes the page."""
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    PAGE.write_text(command_line_page(), encoding="utf-8")


if __name__ == "__main__":
    main()

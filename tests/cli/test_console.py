"""How commands end: exit codes, messages, no traceback unless it is asked for."""

from __future__ import annotations

import errno
import logging
import os
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner, Result

from foreword.cli import _console
from foreword.cli._console import ForewordGroup, log_to_stderr, plain
from foreword.errors import DataError

ERRORS = {
    "ours": DataError("Line 3 is [red]odd[/red] :eagle: \x1b[31m."),
    "memory": MemoryError(),
    "torch-memory": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
    "disk": OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/some/file"),
    "interrupt": KeyboardInterrupt(),
    "bug": ValueError("surprise\nsecond line"),
    "exit": typer.Exit(3),
    "usage": typer.BadParameter("no such thing"),
}

app = typer.Typer(cls=ForewordGroup, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.callback()
def root(verbose: Annotated[bool, typer.Option("--verbose")] = False) -> None:
    log_to_stderr(verbose=verbose)


@app.command("tune")
def tune(kind: str) -> None:
    raise ERRORS[kind]


@app.command("other")
def other(kind: str, rest: Annotated[list[str] | None, typer.Argument()] = None) -> None:
    logging.getLogger("foreword.test").info("detail")
    logging.getLogger("foreword.test").warning("careful")
    if kind == "echo":
        typer.echo(rest)
    else:
        raise ERRORS[kind]


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.mark.parametrize(
    ("kind", "code", "message"),
    [
        ("ours", 2, "Error: Line 3 is [red]odd[/red] :eagle: \ufffd[31m.\n"),
        ("memory", 2, "Memory ran out (no details). Lower what is computed at once"),
        ("torch-memory", 2, "Memory ran out (DefaultCPUAllocator: can't allocate memory"),
        ("disk", 2, "No space left on device (/some/file)"),
        ("interrupt", 130, "Interrupted. Resume with the same command."),
        ("bug", 1, "ValueError: surprise. This is a bug in Foreword; `--verbose` shows where."),
        ("exit", 3, ""),
        ("usage", 2, "no such thing"),
    ],
)
def test_every_error_has_its_exit_code_and_message(kind: str, code: int, message: str):
    result = run("tune", kind)
    assert result.exit_code == code
    assert message in result.stderr
    assert result.stdout == "" and "Traceback" not in result.stderr


def test_only_what_can_be_resumed_says_so():
    result = run("other", "interrupt")
    assert result.exit_code == 130
    assert "Interrupted.\n" in result.stderr and "Resume" not in result.stderr


@pytest.mark.parametrize("words", [("--verbose", "tune", "ours"), ("tune", "ours", "--verbose")])
def test_verbose_shows_the_traceback_wherever_it_stands(words: tuple[str, ...]):
    result = run(*words)
    assert result.exit_code == 2
    assert "Traceback" in result.stderr and "raise ERRORS[kind]" in result.stderr
    assert "Error: Line 3" in result.stderr


def test_a_word_after_two_dashes_is_no_option():
    result = run("other", "echo", "--", "--verbose")
    assert result.stdout == "['--verbose']\n"
    assert "detail" not in result.stderr


def test_warnings_are_logged_always_and_details_when_verbose():
    assert run("other", "echo").stderr == "WARNING: careful\n"
    assert "INFO foreword.test: detail" in run("--verbose", "other", "echo").stderr


def test_plain_text_keeps_lines_and_drops_escapes():
    assert plain("a\tb\nc\x1b[2J\u202e") == "a\tb\nc\ufffd[2J\ufffd"


def test_tables_are_wide_where_no_screen_is():
    assert _console.stdout().width == _console.PIPE_WIDTH

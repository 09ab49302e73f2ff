"""Where text goes and how errors end: results on standard output, all else on standard error, one exit code for each kind of end.

0    done
1    done, and the answer is no (a damaged prefix, a strategy that failed), or a bug in Foreword
2    wrong input: a `ForewordError`, an unusable option, a file that cannot be read, no memory left
130  interrupted
"""

from __future__ import annotations

import errno
import logging
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console
from rich.text import Text
from typer.core import TyperGroup

from foreword.errors import ForewordError

WRONG_INPUT, INTERRUPTED, BUG = 2, 130, 1
RESUMABLE = frozenset({"tune", "personalize", "demo"})
PIPE_WIDTH = 200
"""Columns for tables that go to a file or a pipe, where nothing has to fit a screen."""


class ForewordGroup(TyperGroup):
    """The root of the commands: turns errors into messages, and takes `--verbose` anywhere on the line."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        if "--verbose" in args[:end]:
            args = ["--verbose", *(word for word in args[:end] if word != "--verbose"), *args[end:]]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        with errors_end_the_command(ctx):
            return super().invoke(ctx)


@contextmanager
def errors_end_the_command(context: Any) -> Iterator[None]:
    """Shows an error as a sentence and exits; the traceback only with `--verbose`."""
    try:
        yield
    except KeyboardInterrupt:
        resumes = context.invoked_subcommand in RESUMABLE
        say("Interrupted. Resume with the same command." if resumes else "Interrupted.")
        raise typer.Exit(INTERRUPTED) from None
    except Exception as error:
        # What the command-line library raises on purpose (exits, unusable options) brings its own code or is its own affair.
        if isinstance(error, typer.Abort) or hasattr(error, "exit_code") or getattr(error, "errno", None) == errno.EPIPE:
            raise
        if context.params.get("verbose"):
            # Not through Rich: a traceback may hold brackets and must not be folded.
            sys.stderr.write("".join(traceback.format_exception(error)))
        message, code = _explained(error)
        say(message, lead="Error: ")
        raise typer.Exit(code) from None


def _explained(error: Exception) -> tuple[str, int]:
    """What to tell about an error, and the exit code."""
    if isinstance(error, ForewordError):
        return str(error), WRONG_INPUT
    if _is_out_of_memory(error):
        return (
            f"Memory ran out ({_first_line(error)}). Lower what is computed at once: with `tune`, `--micro-tokens 512`, `--checkpointing` "
            "or fewer `--positions`; with `generate`, fewer `--max-new-tokens`; everywhere, `--dtype bfloat16` or a smaller model.",
            WRONG_INPUT,
        )
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{where}. Choose another place, or make room and allow access there.", WRONG_INPUT
    return f"{type(error).__name__}: {_first_line(error)}. This is a bug in Foreword; `--verbose` shows where. Please report it.", BUG


def _is_out_of_memory(error: BaseException) -> bool:
    """torch says it in a plain RuntimeError on the CPU and in a class of its own on a GPU."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no details"])[0].rstrip(".")


def stdout() -> Console:
    """For results. Wide where nobody looks at a screen, so that tables are not cut."""
    return _console(sys.stdout)


def stderr() -> Console:
    """For progress, notes and errors."""
    return _console(sys.stderr)


def _console(stream: Any) -> Console:
    # Made anew each time: tests and Rich's own progress bars put other streams in the place of the standard ones.
    width = Console(file=stream).width if stream.isatty() else PIPE_WIDTH
    # Names may hold `:eagle:` or `[red]` and are to be shown as they are.
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def say(message: str, *, lead: str = "") -> None:
    """One note on standard error."""
    stderr().print(Text.assemble((lead, "bold red"), plain(message)), soft_wrap=True)


def plain(text: str) -> str:
    """Text from files, models and prefix headers without terminal escapes."""
    return "".join(char if char.isprintable() or char in "\n\t" else "\ufffd" for char in text)


class _StderrHandler(logging.StreamHandler):
    """Writes to whatever standard error is at the moment, so that log lines appear above a progress bar."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> Any:
        return sys.stderr


def log_to_stderr(*, verbose: bool) -> None:
    """Foreword's own log goes to standard error: warnings, and everything when `verbose`."""
    logger = logging.getLogger("foreword")
    for handler in [handler for handler in logger.handlers if isinstance(handler, _StderrHandler)]:
        logger.removeHandler(handler)
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s" if verbose else "%(levelname)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG if verbose else logging.WARNING)

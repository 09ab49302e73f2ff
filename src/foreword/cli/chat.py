"""`foreword chat`: a conversation, line by line, from a terminal or from a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import typer

from foreword.cli._console import say
from foreword.cli._loading import load_model, load_prefix
from foreword.cli._options import (
    DeviceOption,
    DtypeOption,
    InstructionOption,
    MaxNewTokensOption,
    ModelOption,
    PrefixOption,
    RevisionOption,
    RootOption,
    SeedOption,
    StopOption,
    TemperatureOption,
    TopKOption,
    TopPOption,
    TrustOption,
    sampling_from_options,
)
from foreword.errors import DataError, WindowError
from foreword.types import Message, Sampling

if TYPE_CHECKING:
    from foreword.prefix.artifact import Prefix

HELP = "/reset forgets the conversation, /exit (or the end of input) leaves, Ctrl-C stops an answer."


def chat(
    prefix: PrefixOption = None,
    instruction: InstructionOption = None,
    model: ModelOption = "smollm2",
    max_new_tokens: MaxNewTokensOption = 256,
    temperature: TemperatureOption = 0.0,
    top_p: TopPOption = 1.0,
    top_k: TopKOption = 0,
    seed: SeedOption = 0,
    stop: StopOption = None,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    revision: RevisionOption = None,
    trust_remote_code: TrustOption = False,
    root: RootOption = None,
) -> None:
    """Talk with a model, with or without a prefix.

    Every line is a turn; the answer streams. What was said is remembered until /reset; when it no longer fits the window, the oldest turns
    are dropped, and a note says so. /exit or the end of input leaves. From a pipe, only the answers go to standard output.

    \b
    Examples:
      foreword chat --prefix support
      foreword chat --instruction "Answer in one sentence." --temperature 0.7
      printf 'Hello.\\nWhat did I say?\\n' | foreword chat
    """
    sampling = sampling_from_options(max_new_tokens, temperature, top_p, top_k, seed, stop)
    stored = load_prefix(prefix, root) if prefix is not None else None
    engine = load_model(model, dtype=dtype, device=device, revision=revision, trust_remote_code=trust_remote_code).engine
    if stored is not None:
        engine.check(stored)
    talk = _Talk(engine, stored, instruction, sampling)
    if sys.stdin.isatty():
        say(HELP)
    for line in _lines():
        if line == "/exit":
            return
        if line == "/reset":
            talk.reset()
            say("The conversation is forgotten.")
        elif line == "/help":
            say(HELP)
        elif line:
            talk.answer(line)


class _Talk:
    """A conversation so far."""

    def __init__(self, engine: Any, prefix: Prefix | None, instruction: str | None, sampling: Sampling) -> None:
        self._engine, self._prefix, self._sampling = engine, prefix, sampling
        self._lead = (Message(role="system", content=instruction),) if instruction else ()
        self._turns: list[Message] = []

    def reset(self) -> None:
        """Forgets all turns; the instruction stays."""
        self._turns = []

    def answer(self, line: str) -> None:
        """Prints the answer to one more user turn and remembers both; Ctrl-C keeps what was said until then."""
        self._turns.append(Message(role="user", content=line))
        said: list[str] = []
        try:
            for piece in self._pieces():
                said.append(piece)
                typer.echo(piece, nl=False)
        except KeyboardInterrupt:
            say("\nStopped.")
        except WindowError as error:
            self._turns.pop()
            say(f"That is too long. {error}")
            return
        typer.echo()
        self._turns.append(Message(role="assistant", content="".join(said)))

    def _pieces(self) -> Iterator[str]:
        """The answer in pieces; the oldest exchanges go where the window is too small for all of them."""
        turns = self._turns
        while True:
            try:
                pieces = self._engine.stream((*self._lead, *turns), prefix=self._prefix, sampling=self._sampling)
                first = next(pieces, None)
            except WindowError:
                if len(turns) == 1:
                    raise
                turns = turns[2:]
                continue
            break
        dropped = (len(self._turns) - len(turns)) // 2
        self._turns = turns
        if dropped:
            say(f"The window is full: the oldest {dropped} {'exchange was' if dropped == 1 else 'exchanges were'} dropped.")
        if first is not None:
            yield first
            yield from pieces


def _lines() -> Iterator[str]:
    """What is typed, or what a pipe brings, stripped.

    Raises:
        DataError: the input is not UTF-8.
    """
    if sys.stdin.isatty():
        with suppress(ImportError):  # line editing; some builds of Python come without
            import readline  # noqa: F401
        while True:
            try:
                yield input("> ").strip()
            except EOFError:
                typer.echo()
                return
    try:
        for line in sys.stdin:
            yield line.strip()
    except UnicodeDecodeError as error:
        raise DataError(f"Standard input is not UTF-8: byte 0x{error.object[error.start]:02x}. Send UTF-8 text.") from error

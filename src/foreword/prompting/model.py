"""What strategies and agents ask: one frozen model, many calls under way at once on one event loop, whatever engine is behind it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from foreword.engine import Generates, Request, Serves, Ticket
from foreword.errors import ConfigError, Overloaded, ServingError
from foreword.types import Completion, Delta, Message, Sampling, TokenLogprob

if TYPE_CHECKING:
    from foreword.prefix.artifact import Prefix

AT_ONCE = 64
"""Calls that one model is given together; others wait here, not in the engine's bounded queue."""
MOST_WAITS = 20
"""How often a call is sent again that the engine was too busy for."""


class Model(Protocol):
    """Answers conversations. Safe to call any number of times at once from one event loop."""

    @property
    def name(self) -> str:
        """What it is called in traces and tables."""
        ...

    async def answer(self, conversation: Sequence[Message], sampling: Sampling) -> Completion:
        """One answer. A call that is cancelled gives up its place in the engine.

        Raises:
            WindowError: prompt and answer do not fit the window.
            ServingError: the engine failed or stopped.
        """
        ...

    async def close(self) -> None:
        """Ends what was started for it; the engine that it was made of is left as it was."""
        ...


def of(engine: Any, *, name: str | None = None, prefix: Prefix | None = None, files: tuple[Path, ...] = ()) -> Model:
    """The model that an engine is.

    An engine that serves (or can be made to: it has `serve`) batches the calls that are under way together; any other is called in threads.

    Args:
        name: instead of the engine's own.
        prefix: stands before every prompt; only for engines that do not serve.
        files: the same as files, for engines that serve.

    Raises:
        ConfigError: it can do neither, or takes a prefix in the other way.
    """
    if isinstance(engine, Serves) or hasattr(engine, "serve"):
        if prefix is not None:
            raise ConfigError("An engine that serves takes a prefix as a file. Save it first, and give `files`.")
        return ServedModel(
            engine if isinstance(engine, Serves) else engine.serve(), name=name, files=files, owned=not isinstance(engine, Serves)
        )
    if not isinstance(engine, Generates):
        raise ConfigError(f"`{type(engine).__name__}` answers nothing: it has neither `submit` nor `generate`. Give an engine that does.")
    if files:
        raise ConfigError("This engine takes a prefix, not its file. Load it, and give `prefix`.")
    return GeneratedModel(engine, name=name, prefix=prefix)


class ServedModel:
    """A model behind an engine that serves. Meets `Model`."""

    def __init__(self, engine: Serves, *, name: str | None = None, files: tuple[Path, ...] = (), owned: bool = False) -> None:
        """Args: owned: `close` closes the engine too."""
        self._engine, self._files, self._owned = engine, files, owned
        self.name = name or engine.name
        self._room = asyncio.Semaphore(AT_ONCE)
        # Taking a request on renders a prompt, which must not hold up the loop.
        self._desk = ThreadPoolExecutor(max_workers=1, thread_name_prefix="foreword-model")

    async def answer(self, conversation: Sequence[Message], sampling: Sampling) -> Completion:
        """One answer; see `Model.answer`. `seconds` is the time from its turn to its end, other answers' shares included."""
        async with self._room:
            for wait in range(MOST_WAITS):
                try:
                    return await self._asked(Request(conversation=tuple(conversation), prefix=self._files, sampling=sampling))
                except Overloaded as error:
                    if wait + 1 == MOST_WAITS:
                        raise
                    await asyncio.sleep(error.retry_after)
        raise AssertionError("the last wait returns or raises")

    async def close(self) -> None:
        """Ends its thread, and the engine where that was started for it."""
        self._desk.shutdown(wait=False)
        if self._owned:
            await asyncio.to_thread(self._engine.close)

    async def _asked(self, request: Request) -> Completion:
        began, loop = time.perf_counter(), asyncio.get_running_loop()
        pieces: list[Delta] = []
        ended: asyncio.Future[None] = loop.create_future()

        def deliver(delta: Delta) -> None:
            pieces.append(delta)
            if delta.finish_reason is not None:
                with suppress(RuntimeError):  # the loop was closed, and nobody waits
                    loop.call_soon_threadsafe(_set, ended)

        submitted = self._desk.submit(self._engine.submit, request, deliver)
        try:
            await asyncio.wrap_future(submitted)
            await ended
        except asyncio.CancelledError:
            submitted.add_done_callback(lambda done: _cancel(done.result()) if not done.cancelled() and done.exception() is None else None)
            raise
        return whole(pieces, time.perf_counter() - began, self.name)


class GeneratedModel:
    """A model behind an engine that answers lists of conversations, called in threads. Meets `Model`."""

    def __init__(self, engine: Generates, *, name: str | None = None, prefix: Prefix | None = None, at_once: int = 32) -> None:
        self._engine, self._prefix = engine, prefix
        self.name = name or engine.name
        self._threads = ThreadPoolExecutor(max_workers=at_once, thread_name_prefix="foreword-model")

    async def answer(self, conversation: Sequence[Message], sampling: Sampling) -> Completion:
        """One answer; see `Model.answer`. A cancelled call runs to its end in its thread, and its answer is dropped."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._answered, tuple(conversation), sampling)

    async def close(self) -> None:
        """Ends its threads once they have nothing left to do."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _answered(self, conversation: tuple[Message, ...], sampling: Sampling) -> Completion:
        try:
            return self._engine.generate([conversation], prefix=self._prefix, sampling=sampling)[0]
        except StopIteration as error:
            # No future can hold it, and whoever waits for one would wait for ever.
            raise ServingError(f"`{self.name}` has nothing more to say: its engine raised `StopIteration`. Mend the engine.") from error


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _cancel(ticket: Ticket) -> None:
    ticket.cancel()


def whole(pieces: Sequence[Delta], seconds: float, name: str) -> Completion:
    """The answer that a model's pieces make. Raises `ServingError` where it was cut off."""
    last = pieces[-1]
    if last.finish_reason in ("error", "cancelled", None) or last.usage is None:
        raise ServingError(f"`{name}` gave no whole answer ({last.finish_reason}). The engine's log says why; ask again.")
    logprobs: list[TokenLogprob] = []
    for piece in pieces:
        logprobs.extend(piece.logprobs)
    return Completion(
        text="".join(piece.text for piece in pieces),
        token_ids=tuple(token for piece in pieces for token in piece.token_ids),
        usage=last.usage,
        finish_reason=last.finish_reason,
        seconds=seconds,
        logprobs=tuple(logprobs),
    )

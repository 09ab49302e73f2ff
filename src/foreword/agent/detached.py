"""Calls of blocking functions that can be left behind: the event loop's own threads would be waited for at its end."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from foreword.errors import ToolError

MOST_LEFT = 16
"""Calls of one tool that may be left behind, still running, before it is called no more."""

Result = TypeVar("Result")


class Detached:
    """Calls functions in threads of their own. For one event loop at a time."""

    def __init__(self, name: str) -> None:
        """Args: name: of the tool, for messages."""
        self._name = name
        self._left = 0
        self._lock = threading.Lock()

    async def call(self, function: Callable[..., Result], *arguments: Any, **options: Any) -> Result:
        """The function's result. A caller that is cancelled leaves the thread behind, which ends when the function does or the process.

        Raises:
            ToolError: the function ended with what is no ordinary exception (`SystemExit`), or too many calls were left behind.
            Exception: what the function raises; a `TimeoutError` of its own comes as a `ToolError`, as it says nothing of this call's time.
        """
        with self._lock:
            if self._left >= MOST_LEFT:
                raise ToolError(f"{self._left} earlier calls of `{self._name}` have not ended yet. It can be called again when one has.")
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[Result] = loop.create_future()
        context = contextvars.copy_context()

        def run() -> None:
            settle: Callable[..., None]
            value: Any
            try:
                settle, value = _set_result, context.run(function, *arguments, **options)
            except BaseException as error:  # whatever it is, the caller waits for it
                settle, value = _set_exception, self._ordinary(error)
            with self._lock:
                self._left -= was_left[0]
                was_left[1] = 1
            with suppress(RuntimeError):  # the loop was closed, and nobody waits
                loop.call_soon_threadsafe(settle, ended, value)

        was_left = [0, 0]  # whether it was left behind, whether it has ended
        threading.Thread(target=run, name=f"foreword-tool-{self._name}", daemon=True).start()
        try:
            return await ended
        finally:
            with self._lock:
                if not was_left[1]:
                    was_left[0] = 1
                    self._left += 1

    def _ordinary(self, error: BaseException) -> Exception:
        if isinstance(error, Exception) and not isinstance(error, TimeoutError | StopIteration | StopAsyncIteration):
            return error
        return ToolError(f"`{self._name}` failed: {type(error).__name__}: {error}")


def _set_result(future: asyncio.Future[Any], value: Any) -> None:
    if not future.done():
        future.set_result(value)


def _set_exception(future: asyncio.Future[Any], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)

"""The `scripted` engine: no weights; a function says what it answers, known in advance. Strategies are proved on it.

`load("arithmetic")` gives the script that knows exact arithmetic on a few numbers. In Python any function will do:

    engine = ScriptedEngine(lambda conversation, sampling: "42")
"""

from __future__ import annotations

import importlib
import pkgutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from foreword.engine import Conversation, Progress
from foreword.errors import ModelError
from foreword.types import Completion, Sampling, Usage

if TYPE_CHECKING:
    from foreword.prefix.artifact import Prefix

WINDOW = 1 << 20
_SCRIPTS = "_script_"

Script = Callable[[Conversation, Sampling], str]
"""Says the answer to a conversation; the seed is the sampling's."""


def load(name: str, **ignored: Any) -> ScriptedEngine:
    """The engine of a script that comes with Foreword, a module `_script_NAME.py` beside this one with a function `answer`.

    Raises:
        ModelError: there is no such script.
    """
    package = importlib.import_module("foreword.engines")
    known = sorted(info.name.removeprefix(_SCRIPTS) for info in pkgutil.iter_modules(package.__path__) if info.name.startswith(_SCRIPTS))
    if name not in known:
        raise ModelError(f"There is no script `{name}`. Scripts: {', '.join(known)}.")
    return ScriptedEngine(importlib.import_module(f"foreword.engines.{_SCRIPTS}{name}").answer, name=name)


class ScriptedEngine:
    """Meets `Generates`. A token is a word."""

    def __init__(self, script: Script, *, name: str = "scripted", window: int = WINDOW) -> None:
        """Args: script: may be called from several threads at once."""
        self._script, self._name, self._window = script, name, window
        self._lock = threading.Lock()
        self.calls = 0

    @property
    def name(self) -> str:
        """The script's name."""
        return self._name

    @property
    def window(self) -> int:
        """Words that prompt and answer may have together."""
        return self._window

    def generate(
        self,
        conversations: Sequence[Conversation],
        *,
        prefix: Prefix | None = None,
        sampling: Sampling | None = None,
        progress: Progress | None = None,
    ) -> list[Completion]:
        """One answer per conversation, in order; a prefix only counts its positions."""
        completions = []
        for conversation in conversations:
            completions.append(self._answered(conversation, sampling or Sampling(), 0 if prefix is None else prefix.header.positions))
            if progress is not None:
                progress(1)
        return completions

    def stream(self, conversation: Conversation, *, prefix: Prefix | None = None, sampling: Sampling | None = None) -> Iterator[str]:
        """The answer in one piece."""
        yield self.generate([conversation], prefix=prefix, sampling=sampling)[0].text

    def _answered(self, conversation: Conversation, sampling: Sampling, positions: int) -> Completion:
        began = time.perf_counter()
        with self._lock:
            self.calls += 1
        text = self._script(conversation, sampling)
        for stop in sampling.stop:
            text = text.partition(stop)[0]
        words = text.split()
        if len(words) > (most := sampling.max_new_tokens):
            text = " ".join(words[:most])
        prompt_tokens = sum(len(message.content.split()) for message in conversation)
        return Completion(
            text=text,
            token_ids=tuple(range(min(len(words), most))),
            usage=Usage(prompt_tokens=prompt_tokens, completion_tokens=min(len(words), most), prefix_positions=positions),
            finish_reason="length" if len(words) > most else "stop",
            seconds=time.perf_counter() - began,
        )

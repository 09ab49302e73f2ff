"""A model that only chooses: its answer is the likeliest of given texts. Asked for a classification, it never answers anything else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass

from foreword.engine import Row, Scores
from foreword.errors import ConfigError, WindowError
from foreword.types import Completion, Message, Sampling, Usage

AT_ONCE = 64
"""Conversations that are scored together."""
SHARED_FROM = 16
"""So many shared tokens are worth computing on their own."""


@dataclass(slots=True, eq=False)
class _Call:
    prompt: tuple[int, ...]
    done: asyncio.Future[Completion]


class LabelModel:
    """Meets `foreword.prompting.model.Model`. Calls under way are scored together; tokens that they all begin with are computed once.

    Sampling is not looked at: the likeliest label is the answer. A label's end counts as part of it.
    """

    def __init__(self, engine: Scores, labels: Sequence[str], *, name: str | None = None) -> None:
        """Raises `ConfigError` where there is nothing to choose among."""
        if len(set(labels)) < 2:
            raise ConfigError(f"Choosing needs two labels or more; got {list(labels)}.")
        self._engine, self._labels = engine, tuple(labels)
        self.name = name or engine.name
        self._targets = tuple(engine.answer_ids(label) for label in labels)
        self._waiting: list[_Call] = []
        self._worker: asyncio.Task[None] | None = None

    async def answer(self, conversation: Sequence[Message], sampling: Sampling) -> Completion:
        """The likeliest label. Raises `WindowError` where the conversation and a label do not fit the window."""
        prompt = tuple(self._engine.render(conversation))
        longest = max(map(len, self._targets))
        if len(prompt) + longest > self._engine.window:
            raise WindowError(
                f"{len(prompt)} prompt tokens and a label of {longest} do not fit the window of `{self.name}`, {self._engine.window}. "
                "Shorten the prompt."
            )
        call = _Call(prompt, asyncio.get_running_loop().create_future())
        self._waiting.append(call)
        if self._worker is None:
            self._worker = asyncio.ensure_future(self._work())
        return await call.done

    async def close(self) -> None:
        """Gives up what waits."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.gather(self._worker, return_exceptions=True)

    async def _work(self) -> None:
        """Scores what waits, batch after batch, in a thread; ends when nothing is left."""
        # One turn of the loop: calls that begin together are scored together.
        await asyncio.sleep(0)
        try:
            while self._waiting:
                batch = [call for call in self._waiting[:AT_ONCE] if not call.done.done()]
                del self._waiting[:AT_ONCE]
                if batch:
                    await self._score(batch)
        finally:
            self._worker = None
            for call in self._waiting:
                call.done.cancel()
            self._waiting.clear()

    async def _score(self, batch: Sequence[_Call]) -> None:
        try:
            completions = await asyncio.to_thread(self._chosen, [call.prompt for call in batch])
        except Exception as error:
            # Whoever waits for an answer is told; the worker goes on with the others.
            for call in batch:
                if not call.done.done():
                    call.done.set_exception(error)
            return
        for call, completion in zip(batch, completions, strict=True):
            if not call.done.done():
                call.done.set_result(completion)

    def _chosen(self, prompts: Sequence[tuple[int, ...]]) -> list[Completion]:
        began = time.perf_counter()
        shared = _shared(prompts)
        rows = [Row(prompt=prompt[shared:], targets=self._targets) for prompt in prompts]
        found = self._engine.log_probs(rows, after=prompts[0][:shared])
        seconds = (time.perf_counter() - began) / len(prompts)
        return [self._completion(prompt, [sum(target) for target in row], seconds) for prompt, row in zip(prompts, found, strict=True)]

    def _completion(self, prompt: tuple[int, ...], scores: Sequence[float], seconds: float) -> Completion:
        best = max(range(len(scores)), key=scores.__getitem__)
        ids = self._targets[best]
        usage = Usage(prompt_tokens=len(prompt), completion_tokens=len(ids))
        return Completion(text=self._labels[best], token_ids=ids, usage=usage, finish_reason="stop", seconds=seconds)


def _shared(prompts: Sequence[tuple[int, ...]]) -> int:
    """How many first tokens are computed once: those that all prompts share, one left for each prompt's own; 0 where it is not worth it."""
    if len(prompts) < 2:
        return 0
    alike = 0
    for tokens in zip(*prompts, strict=False):
        if len(set(tokens)) > 1:
            break
        alike += 1
    alike = min(alike, min(map(len, prompts)) - 1)
    return alike if alike >= SHARED_FROM else 0

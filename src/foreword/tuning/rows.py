"""From examples to rows of tokens, and what does not fit."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from foreword.engine import Differentiable, Row
from foreword.errors import WindowError
from foreword.prefix.header import PromptFormat
from foreword.types import Example

logger = logging.getLogger(__name__)

OnLong = Literal["fail", "skip", "truncate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodedRows:
    """Rows ready for the model.

    Attributes:
        rows: one per distinct conversation, its answers as targets.
        long_lines: lines of examples that were too long, and skipped or shortened.
    """

    rows: tuple[Row, ...]
    long_lines: tuple[int, ...]


def encode_examples(
    engine: Differentiable, examples: Sequence[Example], *, prompt_format: PromptFormat, room: int, on_long: OnLong = "fail"
) -> EncodedRows:
    """Tokenises examples, joining those that share a conversation so that it is computed once.

    Args:
        room: positions left for prompt and answer.
        on_long: what to do with an example that takes more.

    Raises:
        WindowError: an example does not fit and `on_long` is `fail`; names its line.
    """
    prompts: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    long_lines = []
    for example in examples:
        prompt = engine.render(example.messages, prompt_format=prompt_format)
        long = False
        for completion in example.completions:
            target = engine.answer_ids(completion)
            excess = len(prompt) + len(target) - room
            if excess > 0:
                if on_long == "fail":
                    raise too_long(example, len(prompt) + len(target), room)
                long = True
                if on_long == "skip" or excess >= len(target):
                    continue
                target = target[: len(target) - excess]
            prompts.setdefault(prompt, []).append(target)
        if long:
            long_lines.append(example.line)
    if long_lines:
        logger.warning("%d examples were too long and were %s: lines %s", len(long_lines), _past(on_long), _some(long_lines))
    rows = tuple(Row(prompt=prompt, targets=tuple(targets)) for prompt, targets in prompts.items())
    return EncodedRows(rows=rows, long_lines=tuple(long_lines))


def too_long(example: Example, tokens: int, room: int) -> WindowError:
    """What to say of an example that takes `tokens` positions where `room` are left."""
    return WindowError(
        f"Line {example.line}: prompt and answer take {tokens} tokens; {room} fit after the prefix. "
        "Shorten it, or pass `--on-long skip` or `--on-long truncate`."
    )


def _past(on_long: OnLong) -> str:
    return {"skip": "skipped", "truncate": "truncated", "fail": "refused"}[on_long]


def _some(lines: Sequence[int]) -> str:
    return ", ".join(str(line) for line in lines[:10]) + (" …" if len(lines) > 10 else "")

"""Outcomes for the scorers' tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from foreword.evaluate.scorer import Outcome

MakeOutcome = Callable[..., Outcome]


@pytest.fixture(scope="session")
def outcome() -> MakeOutcome:
    """`outcome(answers, references, prompts=..., **other_fields)`; a reference given as a string stands alone."""

    def make(
        answers: Sequence[str], references: Sequence[str | Sequence[str]], *, prompts: Sequence[str] | None = None, **rest: Any
    ) -> Outcome:
        return Outcome(
            answers=tuple(answers),
            references=tuple((texts,) if isinstance(texts, str) else tuple(texts) for texts in references),
            prompts=tuple(prompts) if prompts is not None else ("",) * len(answers),
            **rest,
        )

    return make

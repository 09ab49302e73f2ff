"""Which answers may be kept: whole ones, of which nobody complains, and that hold nothing private."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from foreword.gateway.cache.private_data import Patterns, PrivateData

MOST_CHARACTERS = 200_000
"""Longer texts are not looked through, and so not kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a request ended, as far as keeping its answer goes.

    Attributes:
        status: of the answer, as HTTP has it.
        finish_reasons: of each of its choices.
        flagged: whether a filter found something wrong with the question or the answer.
        passed: whether the answer passed its checks; None where nothing checked it.
        fallback: whether another model answered than the one that the key names.
        question: every text of the request; `answer` every text of the answer.
        calls_tools: whether the answer asks for tools to be called, which may do something each time.
    """

    status: int = 200
    finish_reasons: Sequence[str | None]
    flagged: bool = False
    passed: bool | None = None
    fallback: bool = False
    question: Sequence[str]
    answer: Sequence[str]
    calls_tools: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Admission:
    """The rule. Attributes: private: finds personal data and secrets; tool_calls: whether answers that call tools are kept."""

    private: PrivateData = field(default_factory=Patterns)
    tool_calls: bool = False

    def refused(self, outcome: Outcome) -> str | None:
        """Why an answer is not kept, in words that hold nothing of its text; None where it is."""
        return self._unfit(outcome) or self._private(outcome)

    def _unfit(self, outcome: Outcome) -> str | None:
        if outcome.status != 200:
            return "error"
        ends = {"stop", "tool_calls"} if self.tool_calls else {"stop"}
        reasons = (
            ("flagged", outcome.flagged),
            ("failed its check", outcome.passed is False),
            ("another model answered", outcome.fallback),
            ("calls tools", outcome.calls_tools and not self.tool_calls),
            ("not whole", not outcome.finish_reasons or any(reason not in ends for reason in outcome.finish_reasons)),
            ("empty", not outcome.calls_tools and not any(text.strip() for text in outcome.answer)),
        )
        return next((reason for reason, holds in reasons if holds), None)

    def _private(self, outcome: Outcome) -> str | None:
        texts = (*outcome.question, *outcome.answer)
        if sum(map(len, texts)) > MOST_CHARACTERS:
            return "too long to look through"
        kinds = sorted({kind for text in texts for kind in self.private.kinds(text)})
        return f"private: {', '.join(kinds)}" if kinds else None

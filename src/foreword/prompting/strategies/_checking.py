"""Checks of answers, traced: which verifier a strategy uses, and what it says."""

from __future__ import annotations

from collections.abc import Sequence

from foreword.prompting import verifier
from foreword.prompting.strategy import Run
from foreword.prompting.verifier import Verdict, Verify
from foreword.types import Message


def chosen_verifier(key: str, run: Run) -> Verify | None:
    """The verifier that a setting names, or the one that stands by; None where there is neither. Raises `RegistryError`."""
    return verifier.get(key) if key else run.resources.verify


async def checked(verify: Verify, conversation: Sequence[Message], text: str, run: Run) -> Verdict:
    """What a verifier says, as a step of the trace."""
    with run.tracer.span("check", "verifier") as span:
        verdict = await verify(conversation, text, run.ask)
        span.set(text=text, score=verdict.score, reason=verdict.reason)
    return verdict

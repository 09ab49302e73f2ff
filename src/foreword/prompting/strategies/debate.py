"""`debate`: several answers that are compared and revised in the light of each other, and a vote at the end (Du et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field

from foreword.errors import StrategyError
from foreword.prompting.final_answer import final_answer
from foreword.prompting.strategies._drawing import drawn
from foreword.prompting.strategies._reasoning import STATE, Reading, reasoned, short_answer
from foreword.prompting.strategy import Draft, Run, StrategySettings
from foreword.prompting.turns import followed_by
from foreword.prompting.voting import Ballots
from foreword.types import Message

OTHERS = "Others answered this question so:\n\n{answers}\n\nTake their answers as advice, and answer the question again. " + STATE
MOST_CHARACTERS = 1_500
"""Of another debater's answer; its end is shown, where the result stands."""


class Settings(StrategySettings):
    """
    Attributes:
        debaters: who answer.
        rounds: the first answers, and each time that all revise theirs.
        temperature: that answers are drawn with; at 0 the first answers are all alike.
        until_agreed: end after a round in which all come to the same.
        reading: how the short answer is found.
    """

    debaters: int = Field(default=3, ge=2, le=100)
    rounds: int = Field(default=2, ge=1, le=20)
    temperature: float = Field(default=0.7, ge=0, le=10)
    until_agreed: bool = True
    reading: Reading = "marked"


async def answer(conversation: tuple[Message, ...], settings: Settings, run: Run) -> Draft:
    """Up to `debaters` times `rounds` calls. Raises `StrategyError` where the last round has no answer that can be recognised."""
    asked = reasoned(conversation, ())
    texts: list[str] = []
    said: dict[str, None] = {}
    for number in range(1, settings.rounds + 1):
        turns = [asked] * settings.debaters if not texts else [_confronted(asked, texts, own) for own in range(len(texts))]
        with run.tracer.span("message", f"round {number}"):
            answers, spent = await drawn(run, turns, purpose=f"round {number}", temperature=settings.temperature)
        # Where the budget ends in the midst of a round, those who were not asked stand by what they said before.
        before = texts or [None] * len(answers)
        now = [old if completion is None else completion.text for completion, old in zip(answers, before, strict=True)]
        texts = [text for text in now if text is not None]
        if texts:
            said |= dict.fromkeys(_said(texts, settings, with_first=not said))
            run.keep(_vote(texts, settings, number, tuple(said)))
        if spent is not None:
            raise spent
        if settings.until_agreed and _agreed(texts, settings):
            break
    draft = _vote(texts, settings, number, tuple(said))
    if draft.final is None:
        raise StrategyError(
            f"None of {len(texts)} debaters came to an answer that can be recognised (reading={settings.reading}). Allow more tokens, or "
            "read the answer in another way."
        )
    return draft


def _confronted(asked: Sequence[Message], texts: Sequence[str], own: int) -> tuple[Message, ...]:
    """What one debater is asked next: its own last answer, and those of the others."""
    others = "\n\n".join(f"---\n{text[-MOST_CHARACTERS:]}" for place, text in enumerate(texts) if place != own)
    return followed_by(asked, texts[own], OTHERS.format(answers=others))


def _agreed(texts: Sequence[str], settings: Settings) -> bool:
    ballots = _ballots(texts, settings)[0]
    return ballots.first_two[0] == len(texts)


def _ballots(texts: Sequence[str], settings: Settings) -> tuple[Ballots, dict[str, str]]:
    """The votes, and the first text for each."""
    ballots, text_of = Ballots(), {}
    for text in texts:
        said = short_answer(text, settings.reading)
        if said is not None:
            text_of.setdefault(ballots.add(said), text)
    return ballots, text_of


def _said(texts: Sequence[str], settings: Settings, *, with_first: bool) -> tuple[str, ...]:
    """The answers of a round; with the first debater's last line, where it is the first of all and has none that can be recognised."""
    unread = with_first and short_answer(texts[0], settings.reading) is None
    answers = _ballots(texts, settings)[0].answers
    return (final_answer(texts[0]), *answers) if unread else answers


def _vote(texts: Sequence[str], settings: Settings, rounds: int, said: tuple[str, ...]) -> Draft:
    """What most of the last texts come to. Args: said: the answers of all rounds."""
    ballots, text_of = _ballots(texts, settings)
    leader = ballots.leader
    if leader is None:
        return Draft(text=texts[0], note=f"no debater has an answer that can be recognised after {rounds} rounds")
    return Draft(
        text=text_of[leader],
        final=ballots.said[leader],
        candidates=said,
        note=f"{ballots.counts[leader]} of {len(texts)} debaters after {rounds} rounds",
    )

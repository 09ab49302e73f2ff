"""`self-consistency`: several chains of thought, and the answer that most of them come to (Wang et al. 2022).

Adaptive (Aggarwal et al. 2023): no more are drawn once the vote cannot turn, or almost surely will not; `foreword.prompting.voting` says
when.
"""

from __future__ import annotations

from pydantic import Field

from foreword.errors import ConfigError, StrategyError
from foreword.prompting.final_answer import final_answer
from foreword.prompting.strategies._drawing import drawn
from foreword.prompting.strategies._reasoning import Reading, reasoned, short_answer
from foreword.prompting.strategy import Draft, Run, StrategySettings
from foreword.prompting.voting import Ballots, Rule, Stopping
from foreword.types import Completion, Message


class Settings(StrategySettings):
    """
    Attributes:
        n: samples at most.
        temperature: that they are drawn with.
        adaptive: stop when the vote is settled; otherwise all are drawn.
        confidence: how probable it must be that the leader stays ahead; 1 stops only when the vote cannot turn.
        rule: see `foreword.prompting.voting`.
        least: samples that are drawn in any case.
        batch: samples drawn at once, after which it is asked again whether to stop.
        shots: worked examples shown before the question; 0 tells the model to think step by step.
        think: ask for reasons; otherwise the question is asked as it is.
        reading: how the short answer is found.
    """

    n: int = Field(default=40, ge=1, le=1000)
    temperature: float = Field(default=0.7, ge=0, le=10)
    adaptive: bool = True
    confidence: float = Field(default=0.95, gt=0.5, le=1)
    rule: Rule = "remaining"
    least: int = Field(default=3, ge=1)
    batch: int = Field(default=4, ge=1, le=1000)
    shots: int = Field(default=0, ge=0, le=1000)
    think: bool = True
    reading: Reading = "marked"


async def answer(conversation: tuple[Message, ...], settings: Settings, run: Run) -> Draft:
    """Up to `n` calls. Raises `StrategyError` where no sample has an answer that can be recognised."""
    if settings.shots > len(run.resources.shots):
        raise ConfigError(f"`self-consistency(shots={settings.shots})` needs as many examples; {len(run.resources.shots)} stand by.")
    shots = run.resources.shots[: settings.shots]
    asked = reasoned(conversation, shots) if settings.think or shots else conversation
    vote = _Vote(settings)
    while count := vote.next_count:
        answers, spent = await drawn(run, [asked] * count, purpose="sample", temperature=settings.temperature)
        for completion in answers:
            if completion is not None:
                vote.add(completion)
        if vote.drawn:
            run.keep(vote.draft())
        if spent is not None and (vote.next_count or not vote.ballots.total):
            raise spent
    if vote.ballots.leader is None:
        raise StrategyError(
            f"None of {vote.drawn} samples has an answer that can be recognised (reading={settings.reading}). Allow more tokens, show "
            "worked examples, or read the answer in another way."
        )
    return vote.draft()


class _Vote:
    """The samples so far."""

    def __init__(self, settings: Settings) -> None:
        self._n = settings.n
        self._reading: Reading = settings.reading
        self._stopping = Stopping(
            n=settings.n,
            adaptive=settings.adaptive,
            confidence=settings.confidence,
            rule=settings.rule,
            least=settings.least,
            batch=settings.batch,
        )
        self.ballots = Ballots()
        self.drawn = 0
        self._texts: dict[str, str] = {}
        self._first = ""
        self._unread_first: tuple[str, ...] = ()

    @property
    def next_count(self) -> int:
        """How many to draw at once now; 0 for no more."""
        return self._stopping.next_count(self.ballots, self.drawn)

    def add(self, completion: Completion) -> None:
        """Counts one sample."""
        self.drawn += 1
        self._first = self._first or completion.text
        said = short_answer(completion.text, self._reading)
        if said is None and self.drawn == 1:
            self._unread_first = (final_answer(completion.text),)
        if said is not None:
            self._texts.setdefault(self.ballots.add(said), completion.text)

    def draft(self) -> Draft:
        """The answer of the majority as it stands."""
        leader = self.ballots.leader
        silent = self.drawn - self.ballots.total
        ending = f"; {silent} without an answer that can be recognised" if silent else ""
        if leader is None:
            return Draft(text=self._first, note=f"{self.drawn} of {self._n} samples{ending}")
        votes = self.ballots.counts[leader]
        return Draft(
            text=self._texts[leader],
            final=self.ballots.said[leader],
            candidates=tuple(dict.fromkeys((*self._unread_first, *self.ballots.answers))),
            note=f"{votes} of {self.ballots.total} votes after {self.drawn} of {self._n} samples{ending}",
        )

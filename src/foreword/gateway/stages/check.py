"""`check`: how good the answer is, from 0 to 1, and whether that is enough; where it is not, the next tier is asked once.

The score is the least of all that the task type asks for: the answer's form (1 or 0), the scorer against the request's reference, the
judge. A judge is asked only where the rest has left anything to judge. Of two answers the better one goes to the client, the later one
where they are alike. What cannot be judged, such as an answer that calls tools, has no score, and is no failure.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from foreword.gateway.budgets import LIGHTER
from foreword.gateway.checking.form import Form, forms
from foreword.gateway.checking.opinion import opinion
from foreword.gateway.checking.reference import KEY, ReferenceScorer, reference_scorer
from foreword.gateway.passage import Passage, Rejected, Reply, Target
from foreword.gateway.path_settings import DEFAULT_TASK, CheckSettings, PathSettings
from foreword.gateway.question import question
from foreword.gateway.stage import Next, Parts, Stage

HITS = frozenset({"exact", "semantic", "stale"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Checks:
    """What is looked at for one task type."""

    forms: tuple[tuple[str, Form], ...]
    scorer: ReferenceScorer | None
    judge: bool

    @classmethod
    def of(cls, settings: CheckSettings) -> Checks:
        """Raises `ConfigError`."""
        scorer = None if settings.scorer is None else reference_scorer(settings.scorer, settings.labels)
        return cls(forms=forms(settings), scorer=scorer, judge=settings.judge is not None)


def make(parts: Parts) -> Stage:
    """The stage. Raises `ConfigError` where a check cannot be used."""
    settings, targets = parts.settings, parts.targets
    tasks = {name: settings.task(name).check for name in {*settings.tasks, DEFAULT_TASK}}
    checks = {name: Checks.of(check) for name, check in tasks.items() if check.judges}

    async def check(passage: Passage) -> Next:
        reply, wanted = passage.reply, checks.get(passage.task.name)
        if wanted is None or reply is None or reply.tool_calls:
            return Next.ON
        rejected = passage.rejected
        if rejected is not None and rejected.reply is reply:
            score: float | None = rejected.score
        else:
            score = await _score(passage, reply, wanted, targets, settings)
        if rejected is not None and score is not None and score < rejected.score:
            passage.take_back(rejected)
            passage.told.pop("foreword-check", None)
            score = rejected.score
        _tell(passage, score)
        if rejected is None and score is not None and await _escalates(passage):
            _set_aside(passage, reply, score)
            return Next.AGAIN
        return Next.ON

    return check


async def _score(passage: Passage, reply: Reply, wanted: Checks, targets: Mapping[str, Target], settings: PathSettings) -> float | None:
    """The least of all scores; None where nothing could be judged, or the judge has not said what it thinks."""
    scores: list[float] = []
    for name, fits in wanted.forms:
        if not fits(reply.text, len(passage.sources)):
            passage.told["foreword-check"] = f"{name} does not hold"
            return 0.0
        scores.append(1.0)
    reference = _reference(passage)
    if wanted.scorer is not None and reference is not None:
        found = await asyncio.to_thread(wanted.scorer, reply.text, reference, question(passage.asked))
        if found is None:
            passage.told["foreword-check"] = "the reference cannot be used"
        else:
            scores.append(found)
    if wanted.judge and min(scores, default=1.0) > 0:
        judged = await _judged(passage, reply, targets, settings)
        if judged is None:
            return None
        scores.append(judged)
    return min(scores, default=None)


async def _judged(passage: Passage, reply: Reply, targets: Mapping[str, Target], settings: PathSettings) -> float | None:
    """The judge's score; of an answer from the cache, the one that it came with: nobody pays for it twice."""
    if passage.cache in HITS:
        return passage.score
    judged = await opinion(passage, reply, targets, settings)
    if isinstance(judged, str):
        passage.told["foreword-check"] = judged
        return None
    return judged


def _reference(passage: Passage) -> str | None:
    metadata = passage.asked.metadata
    return metadata.get(KEY) if isinstance(metadata, dict) else None


def _tell(passage: Passage, score: float | None) -> None:
    passage.score = score
    passage.success = None if score is None else score >= passage.task.check.at_least
    if score is not None:
        passage.told["foreword-score"] = format(score, ".4g")


async def _escalates(passage: Passage) -> bool:
    """Whether another answer is to be asked for: this one is too bad, it has not been sent, and there is a model and money for it."""
    if passage.success is not False or not passage.task.check.escalate or passage.events is not None or not passage.tiers:
        return False
    if LIGHTER in passage.degraded:
        return False
    return passage.hold is None or await passage.hold.more(passage.tiers[0], passage.request)


def _set_aside(passage: Passage, reply: Reply, score: float) -> None:
    passage.rejected = Rejected(reply=reply, model=passage.model, prompt=passage.prompt, prefix=passage.prefix, score=score)
    passage.told["foreword-escalated"] = passage.model
    for header in ("foreword-score", "foreword-check"):
        passage.told.pop(header, None)
    # It stays the answer until there is another one: where none comes, it is better than none.
    passage.escalated, passage.why = True, "escalation"
    passage.score = passage.success = None

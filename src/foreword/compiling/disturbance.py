"""How much parts change each other's answers, measured by the model: the part of a conflict that no text shows.

The model asks itself questions behind each part alone and answers them; then the same answers are read behind the composition, and behind
each pair of parts. A part that keeps little of what it says is drowned by the others, and the pair says by which.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from foreword.compiling import divergence, references
from foreword.compiling.composing import compose_parts
from foreword.compiling.conflicts import Conflict
from foreword.compiling.observer import Observer, Silent
from foreword.engine import Row
from foreword.types import Message, Sampling

if TYPE_CHECKING:
    from foreword.compiling.compiler import CompilingEngine
    from foreword.prefix.artifact import Prefix

LEAST_KEPT = 0.5
"""Share of what a part says that must be left in a composition for it not to be reported."""
_ASK = "Ask one short question that the text above answers."


@dataclass(frozen=True, slots=True, kw_only=True)
class Disturbance:
    """What a composition does to one part.

    Attributes:
        nats: divergence of the composition from the part alone, per token of the part's own answers.
        nats_without: the same of the model with no prefix at all.
        by: the part that disturbs it most when the two stand alone, and `nats_by` how much; None where there is but one part.
    """

    part: str
    nats: float
    nats_without: float
    by: str | None
    nats_by: float

    @property
    def kept(self) -> float:
        """1 where the part says what it says alone, 0 where no more is left than without it; may be negative."""
        return 1 - self.nats / self.nats_without if self.nats_without > 0 else 1.0


def measure(
    engine: CompilingEngine,
    parts: Sequence[Prefix],
    *,
    header_trailer: Prefix | None = None,
    texts: Mapping[int, str] | None = None,
    questions: int = 4,
    seed: int = 0,
    observer: Observer = Silent(),  # noqa: B008 (stateless)
) -> list[Disturbance]:
    """One figure for each part, in order.

    Args:
        header_trailer: as for `compose_parts`, whose errors are raised here too.
        texts: for each part (by its place) the text it was made from, as far as it is known: questions are then about passages from all
            over it, and otherwise about whatever the model thinks of.
    """
    framed = {"name": "measured", "header_trailer": header_trailer}
    whole = compose_parts(engine, parts, **framed)
    observer.stage("asking each part", 2 * questions * len(parts))
    given = texts or {}
    taught = []
    for place, part in enumerate(parts):
        if place in given:
            rows = references.asking_rows(engine, engine.encode(given[place]), part, questions=questions, seed=seed, observer=observer)
        else:
            rows = _asked(engine, part, questions=questions, seed=seed, observer=observer)
        taught.append(divergence.teach(engine, list(dict.fromkeys(rows)), *_tensors(engine, part)))
    observer.stage("reading the answers behind the composition", len(parts))
    found = []
    for place, part in enumerate(parts):
        pairs = {}
        for other, neighbour in enumerate(parts):
            if other != place:
                pair = compose_parts(engine, [parts[index] for index in sorted((place, other))], **framed)
                pairs[f"{neighbour.name}"] = _nats(engine, taught[place], pair)
        by = max(pairs, key=lambda name: pairs[name]) if pairs else None
        found.append(
            Disturbance(
                part=part.name,
                nats=_nats(engine, taught[place], whole),
                nats_without=_nats(engine, taught[place], None),
                by=by,
                nats_by=pairs[by] if by is not None else 0.0,
            )
        )
        observer.advance(1)
    return found


def conflicts(found: Sequence[Disturbance]) -> list[Conflict]:
    """The parts of which the composition leaves too little, the least first."""
    return [
        Conflict(
            kind="answers",
            parts=(one.part,) if one.by is None else (one.part, one.by),
            what=f"of what `{one.part}` says alone, the composition keeps {max(0.0, one.kept):.0%}"
            + ("" if one.by is None else f"; `{one.by}` alone changes its answers by {one.nats_by:.2f} nats per token"),
            mend="Compile the joined text of the two, put fewer parts side by side, or serve the part alone.",
        )
        for one in sorted(found, key=lambda one: one.kept)
        if one.kept < LEAST_KEPT
    ]


def _nats(engine: CompilingEngine, taught: divergence.Taught, prefix: Prefix | None) -> float:
    return float(divergence.mean_divergence(engine, taught, *_tensors(engine, prefix)).mean())


def _tensors(engine: CompilingEngine, prefix: Prefix | None) -> tuple:
    return (None, None) if prefix is None else (prefix.keys(engine.module.dtype), prefix.values(engine.module.dtype))


def _asked(engine: CompilingEngine, part: Prefix, *, questions: int, seed: int, observer: Observer) -> tuple[Row, ...]:
    """Questions that the model thinks of behind the part, and its answers."""
    turns = [(Message(role="user", content=_ASK),)] * questions
    drawn = [
        engine.generate([turn], prefix=part, sampling=Sampling(max_new_tokens=32, temperature=0.9, seed=seed + number, stop=("\n",)))[0]
        for number, turn in enumerate(turns)
    ]
    asked = [(Message(role="user", content=one.text.strip() or _ASK),) for one in drawn]
    observer.advance(questions)
    return references.answered_rows(engine, asked, part, sampling=Sampling(max_new_tokens=48), observer=observer)

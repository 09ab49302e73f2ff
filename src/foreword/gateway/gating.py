"""Keeps a prefix off requests that are none of its business: asks the detector that the prefix carries in its file.

A request names `base:prefix`; with the gate on, the prefix is attached only where its detector wants one of the user's last turns. Of a
composition each part is judged by itself. A prefix without a detector is always attached, and so is one whose detector cannot be asked,
which the log and the figures tell. The answer's header says what happened: nothing is silent.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from foreword.errors import PrefixFileError
from foreword.gateway.file_state import State, state_of
from foreword.gateway.metrics import Metrics
from foreword.gateway.naming import Named
from foreword.prefix.store import Reference
from foreword.retrieval.embedder import Embedder
from foreword.types import Message

if TYPE_CHECKING:
    from foreword.prefix.relevance import Detector, Query

HEADER = "foreword-prefix"
ATTACHED, KEPT_OFF, PARTLY = "attached", "kept-off", "partly"
TURNS = 3
"""Of the user's turns, the last ones that are asked about, newest first: "And how long?" is about what was said before it."""
MOST_KEPT = 4096
"""Detectors kept in memory; one takes some hundred kilobytes at most."""

Outcome = Literal["attached", "kept-off", "unjudged"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gated:
    """What became of the prefixes that a request named.

    Attributes:
        named: the name, with those references that are attached to each prompt.
        header: `attached`, `kept-off`, or `partly` where several prefixes or prompts differ; None where the request named none.
    """

    named: tuple[Named, ...]
    header: str | None

    @property
    def headers(self) -> dict[str, str]:
        """What the answer says about it."""
        return {} if self.header is None else {HEADER: self.header}


def said(conversation: Sequence[Message]) -> tuple[str, ...]:
    """The user's last turns, newest first."""
    turns = [message.content for message in reversed(conversation) if message.role == "user"]
    return tuple(turns[:TURNS])


async def gated(gate: Gate | None, named: Named, prompts: Sequence[Sequence[str]]) -> Gated:
    """What the gate makes of a request; without one every prefix is attached, and nothing is said of it. Arguments as `Gate.judge`."""
    return Gated(named=(named,) * len(prompts), header=None) if gate is None else await gate.judge(named, prompts)


class Gate:
    """Asks detectors. For one event loop; what takes time is done in a thread."""

    def __init__(self, embedder: Embedder, metrics: Metrics) -> None:
        """Args: metrics: counts the decisions."""
        self._embedder = embedder
        self._metrics = metrics
        self._detectors: OrderedDict[Reference, tuple[State, Detector | None]] = OrderedDict()

    async def judge(self, named: Named, prompts: Sequence[Sequence[str]]) -> Gated:
        """Which of the prefixes that were asked for are attached to each prompt.

        Args:
            prompts: for each, the texts that a prefix may want, one of which is enough.
        """
        if not named.references:
            return Gated(named=(named,) * len(prompts), header=None)
        kept = await asyncio.to_thread(self._wanted, named.references, prompts)
        counts = {len(references) for references in kept}
        header = ATTACHED if counts == {len(named.references)} else KEPT_OFF if counts == {0} else PARTLY
        return Gated(named=tuple(replace(named, references=references) for references in kept), header=header)

    def _wanted(self, references: Sequence[Reference], prompts: Sequence[Sequence[str]]) -> list[tuple[Reference, ...]]:
        detectors = [self._detector(reference) for reference in references]
        asks = any(detector is not None for detector in detectors)
        kept = []
        for texts in prompts:
            queries = self._read(texts) if asks else []
            outcomes = [_outcome(detector, queries) for detector in detectors]
            for reference, outcome in zip(references, outcomes, strict=True):
                self._metrics.gated(label=reference.name, outcome=outcome)
            kept.append(tuple(ref for ref, outcome in zip(references, outcomes, strict=True) if outcome != KEPT_OFF))
        return kept

    def _read(self, texts: Sequence[str]) -> list[Query]:
        # Imported here, so that a server without a gate loads no numpy.
        from foreword.prefix.relevance import Query, excerpt

        vectors_ND = self._embedder.embed([excerpt(text) for text in texts])
        return [Query.of(text, vector_D) for text, vector_D in zip(texts, vectors_ND, strict=True)]

    def _detector(self, reference: Reference) -> Detector | None:
        """The detector of a stored prefix; None where it has none that can be asked."""
        state = state_of(reference.path)
        if state is None:
            # Removed since it was found; the engine says so.
            return None
        found = self._detectors.get(reference)
        if found is None or found[0] != state:
            found = (state, self._looked_up(reference))
            self._detectors[reference] = found
            if len(self._detectors) > MOST_KEPT:
                self._detectors.popitem(last=False)
        return found[1]

    def _looked_up(self, reference: Reference) -> Detector | None:
        from foreword.prefix.relevance import read

        try:
            detector = read(reference.path)
        except PrefixFileError as error:
            logger.warning("the detector of %s cannot be read, and the prefix is always attached: %s", reference, error)
            return None
        if detector is not None and (detector.embedder, detector.dimensions) != (self._embedder.name, self._embedder.dimensions):
            logger.warning(
                "the detector of %s was made with the embedder %s and this server has %s; the prefix is always attached. "
                "Make its detector again.",
                reference,
                detector.embedder,
                self._embedder.name,
            )
            return None
        return detector


def _outcome(detector: Detector | None, queries: Sequence[Query]) -> Outcome:
    if detector is None:
        return "unjudged"
    return "attached" if any(detector.wants(query) for query in queries) else "kept-off"

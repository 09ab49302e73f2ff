"""Whether a relevance detector keeps a prefix off what is none of its business, and how much of its own business it misses.

python -m benchmarks.gate            about five minutes on two cores
python -m benchmarks.gate --quick    about 20 s: one document

Own business are the questions that people asked about a document; none of it are requests for sums, advice and a bank's help, and questions
about documents of other kinds. Questions about other documents of the same kind are counted apart: "What baseline is used?" could be about
any paper, and no detector that sees the question alone can know.

Detectors are made in two ways: by the model's own questions about a document, and by 20 of people's questions about several documents
together, which are then asked one of the rest. The score's weights were chosen on other documents. The peer is the plain way: how like the
query is to the nearest passage, with a threshold set by the same queries.
"""

from __future__ import annotations

import json
import random
import statistics
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import command, shared_tasks

RESULT = Path(__file__).with_name("results") / "gate.json"
SETS = ("qasper", "quality", "multidoc2dial", "natural_question", "cuad")
LEVELS = (0.05, 0.1)
CALIBRATED_BY = 20
OTHERS_WAY = "nearest passage"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured.

    Attributes:
        documents: of each set, the last ones.
        questions: that the model asks about each.
        requests: unrelated ones from each of three sources.
        together: documents that people's questions are about; 0 leaves that part out.
        judged: of a group's detectors, how many are asked about what is none of their business.
    """

    sets: Sequence[str]
    documents: int
    questions: int
    requests: int
    together: int
    judged: int


FULL = Size(sets=SETS, documents=3, questions=64, requests=100, together=5, judged=10)
QUICK = Size(sets=("multidoc2dial", "qasper"), documents=1, questions=24, requests=20, together=0, judged=0)


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts of one way at one level, on one set. `kept` holds one share for each detector."""

    missed: int = 0
    own: int = 0
    kept_off: list[float] = field(default_factory=list)
    kept_off_same: list[float] = field(default_factory=list)
    others: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Texts that are asked, and as detectors look at them."""

    texts: Sequence[str]
    queries: Sequence[Any]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes the full run's result; returns the exit code."""
    return command.main("gate", __doc__, measure, arguments, full=FULL, quick=QUICK, less="one document of two sets", result=RESULT)


def measure(data: Path, size: Size) -> Iterator[dict[str, Any]]:
    """Every figure that there is, once."""
    from foreword.retrieval import embedder

    bench = _Bench(data, size, embedder.get())
    figures = bench.by_peoples_questions() if size.together else {}
    yield bench.by_own_questions() | figures | {"gate_microseconds": bench.microseconds()}


class _Bench:
    """Documents, their questions, and what has nothing to do with any."""

    def __init__(self, data: Path, size: Size, embedder: Any) -> None:
        self._size, self._embedder = size, embedder
        documents = {name: shared_tasks.long_documents(data, name, 1000) for name in size.sets}
        self._sets = {name: [(text, list(dict(pairs))) for text, pairs in several] for name, several in documents.items()}
        self._unrelated = self._read(shared_tasks.unrelated_requests(data, size.requests))
        self._kept: dict[tuple[str, frozenset[int]], Asked] = {}

    def by_own_questions(self) -> dict[str, Any]:
        """Detectors of one document each, by what the model asks about it; level 0.05 gives the headline."""
        from foreword import api
        from foreword.compiling import gate
        from foreword.compiling.observer import Silent

        engine: Any = api.load("smollm2", dtype="bfloat16").engine
        tallies: dict[tuple[str, float, str], Tally] = {}
        failures: list[dict[str, Any]] = []
        began = time.process_time()
        for name in self._size.sets:
            first = len(self._sets[name]) - self._size.documents
            for number, (text, questions) in list(enumerate(self._sets[name]))[first:]:
                asked = gate.ask(engine, text, questions=self._size.questions, seed=0, observer=Silent())
                own = self._read(questions)
                for level, way, wants in self._ways(text, self._read(asked)):
                    tally = tallies.setdefault((name, level, way), Tally())
                    self._count(tally, name, {number}, own, wants)
                    if (level, way) == (LEVELS[0], "detector"):
                        missed = [text for text, query in zip(own.texts, own.queries, strict=True) if not wants(text, query)]
                        failures.append({"document": f"{name}-{number}", "missed": [text[:200] for text in missed]})
                sys.stderr.write(f"{name}-{number}: {json.dumps(_shown(tallies[name, LEVELS[0], 'detector']))}\n")
        documents = self._size.documents * len(self._size.sets)
        figures = _summary(tallies, "by_own_questions")
        figures |= {"failures": failures, "seconds_a_document": (time.process_time() - began) / documents}
        best = figures["by_own_questions"][f"{LEVELS[0]:g} detector"]["all"]
        return {"gate_kept_off": best["kept_off"], "gate_misses": best["misses"], **figures}

    def by_peoples_questions(self) -> dict[str, Any]:
        """Detectors of several documents together, by people's questions: each question is asked a detector made by 20 of the others."""
        tallies: dict[tuple[str, float, str], Tally] = {}
        for name in self._size.sets:
            numbers = range(len(self._sets[name]))[-self._size.together :]
            text = "\n".join(self._sets[name][number][0] for number in numbers)
            questions = list(dict.fromkeys(question for number in numbers for question in self._sets[name][number][1]))
            if len(questions) <= CALIBRATED_BY:
                # Contracts are all asked the same.
                continue
            own = self._read(questions)
            for turn, (question, query) in enumerate(zip(own.texts, own.queries, strict=True)):
                chosen = random.Random(turn).sample([index for index in range(len(questions)) if index != turn], CALIBRATED_BY)
                known = Asked(texts=[own.texts[index] for index in chosen], queries=[own.queries[index] for index in chosen])
                for level, way, wants in self._ways(text, known):
                    tally = tallies.setdefault((name, level, way), Tally())
                    asked = Asked(texts=[question], queries=[query])
                    if turn < self._size.judged:
                        self._count(tally, name, set(numbers), asked, wants)
                    else:
                        tally.own += 1
                        tally.missed += not wants(question, query)
            sys.stderr.write(f"{name} together: {json.dumps(_shown(tallies[name, LEVELS[0], 'detector']))}\n")
        figures = _summary(tallies, "by_peoples_questions")
        best = figures["by_peoples_questions"][f"{LEVELS[0]:g} detector"]["all"]
        return {"gate_kept_off_by_queries": best["kept_off"], "gate_misses_by_queries": best["misses"], **figures}

    def microseconds(self) -> float:
        """What judging one request takes, its embedding included: the median of some hundred."""
        from foreword.compiling import gate

        text, questions = self._sets[self._size.sets[0]][0]
        found = gate.detector_for_queries(text, self._unrelated.texts[:CALIBRATED_BY], embedder=self._embedder)
        took = []
        for request in [*questions, *self._unrelated.texts] * 2:
            began = time.perf_counter()
            found.wants(self._read([request]).queries[0])
            took.append(time.perf_counter() - began)
        return 1e6 * statistics.median(took)

    def _read(self, texts: Sequence[str]) -> Asked:
        from foreword.prefix.relevance import Query, excerpt

        vectors_ND = self._embedder.embed([excerpt(text) for text in texts])
        return Asked(texts=texts, queries=[Query.of(text, vector_D) for text, vector_D in zip(texts, vectors_ND, strict=True)])

    def _ways(self, text: str, known: Asked) -> Iterator[tuple[float, str, Callable[[str, Any], bool]]]:
        """For each level the detector and the plain way, both by the same queries."""
        from foreword.compiling import gate
        from foreword.prefix.relevance import threshold

        passages_ND = self._embedder.embed(textwrap.wrap(text, gate.PASSAGE))
        near = [float((passages_ND @ query.vector_D).max()) for query in known.queries]
        for level in LEVELS:
            found = gate.detector_for_queries(text, known.texts, level=level, embedder=self._embedder)
            least = threshold(near, level)
            yield level, "detector", lambda _, query, found=found: found.wants(query)
            yield level, OTHERS_WAY, lambda _, query, least=least: float((passages_ND @ query.vector_D).max()) >= least

    def _count(self, tally: Tally, name: str, mine: set[int], own: Asked, wants: Callable[[str, Any], bool]) -> None:
        """One more detector: what it misses of its own, and what it keeps off."""
        tally.own += len(own.texts)
        tally.missed += sum(not wants(text, query) for text, query in zip(own.texts, own.queries, strict=True))
        other = [self._asked_about(one) for one in self._size.sets if one != name]
        strange = [self._unrelated, *other]
        tally.others = sum(len(asked.texts) for asked in strange)
        tally.kept_off.append(_share(strange, wants))
        same = self._asked_about(name, but=frozenset(mine))
        if same.texts:
            tally.kept_off_same.append(_share([same], wants))

    def _asked_about(self, name: str, but: frozenset[int] = frozenset()) -> Asked:
        """People's questions about the documents of a set, without those that some of its documents are asked too."""
        key = (name, but)
        if key not in self._kept:
            mine = {question for number in but for question in self._sets[name][number][1]}
            texts = [question for number, (_, asked) in enumerate(self._sets[name]) if number not in but for question in asked]
            self._kept[key] = self._read([text for text in dict.fromkeys(texts) if text not in mine])
        return self._kept[key]


def _share(asked: Sequence[Asked], wants: Callable[[str, Any], bool]) -> float:
    decisions = [wants(text, query) for one in asked for text, query in zip(one.texts, one.queries, strict=True)]
    return 1 - sum(decisions) / len(decisions)


def _shown(tally: Tally) -> dict[str, Any]:
    return {"missed": f"{tally.missed} of {tally.own}", "kept_off": round(statistics.fmean(tally.kept_off), 3)}


def _summary(tallies: dict[tuple[str, float, str], Tally], part: str) -> dict[str, Any]:
    """By level and way: every set, and all sets together, each set's detectors counting alike."""
    found: dict[str, Any] = {}
    for level in LEVELS:
        for way in ("detector", OTHERS_WAY):
            mine = {name: tally for (name, at, by), tally in tallies.items() if (at, by) == (level, way)}
            together = Tally(
                missed=sum(tally.missed for tally in mine.values()),
                own=sum(tally.own for tally in mine.values()),
                kept_off=[statistics.fmean(tally.kept_off) for tally in mine.values()],
                kept_off_same=[statistics.fmean(tally.kept_off_same) for tally in mine.values() if tally.kept_off_same],
                others=min(tally.others for tally in mine.values()),
            )
            found[f"{level:g} {way}"] = {name: _figures(tally) for name, tally in {**mine, "all": together}.items()}
    return {part: found}


def _figures(tally: Tally) -> dict[str, Any]:
    """Shares with Wilson's intervals; that of what is kept off is over different requests, which all detectors are asked alike."""
    from foreword.evaluate.statistics import wilson_interval

    kept = statistics.fmean(tally.kept_off)
    missed, off = wilson_interval(tally.missed, tally.own), wilson_interval(round(kept * tally.others), tally.others)
    return {
        "misses": tally.missed / tally.own,
        "misses_interval": [missed.low, missed.high],
        "own": tally.own,
        "kept_off": kept,
        "kept_off_interval": [off.low, off.high],
        "others": tally.others,
        "kept_off_same_kind": statistics.fmean(tally.kept_off_same) if tally.kept_off_same else None,
    }


if __name__ == "__main__":
    sys.exit(main())

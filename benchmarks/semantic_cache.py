"""Whether the semantic cache keeps its error bound, how many requests it answers under it, and how long a look-up takes.

python -m benchmarks.semantic_cache            about ten minutes on one core
python -m benchmarks.semantic_cache --quick    about 40 s: a fifth of the questions, one order

Quora's question pairs, which people judged to be duplicates or not, become a stream: every question is asked once, in random order. A
request is answered from the cache or is not. Where it is not, the model would answer and the question becomes an entry, and the judgements
say which of the cached answers near it would have done, as in vCache's own evaluation (Schroeder et al. 2025, §5). A wrong hit is one on a
question that is not judged a duplicate; duplicates of duplicates count as duplicates. People judged few of all pairs, and most near
questions that nobody judged are duplicates to the eye. So a look-up passes over entries of which no judgement says anything (condensed
lists, Sakai 2007); `open` gives the figures with every entry in place, and each unjudged hit counted, and learnt from, as a wrong one.

The first half of the stream is for learning; figures are of the second half. `wrong_hit_upper` is the 95 % upper limit (Clopper & Pearson,
one-sided) of wrong hits over all requests, which is what the bound is about, as in vCache. `wrong_of_hits` gives them over hits, and
`per_hits` what comes of a bound that is about those.

The peer is one threshold for all, on the same vectors and judgements, with every earlier question as an entry. `fixed_hit_rate` is that of
the best one that meets the same bound by the same measure, in hindsight: chosen on the second half itself. `fixed_observed_hit_rate` is
that of the best one whose observed rate, without its upper limit, keeps the bound; `fixed_before` is what comes of choosing that on the
first half.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command

RESULT = Path(__file__).with_name("results") / "semantic_cache.json"
BOUNDS = (0.01, 0.02, 0.05)
BOUNDS_PER_HITS = (0.02, 0.05, 0.1)
PARTITION = "questions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured.

    Attributes:
        share: of the questions, whole groups of judged ones.
        orders: seeds of the streams' orders; the first gives the headline.
        more: also unjudged entries, and bounds on hits.
        entries: for the look-up's time.
        look_ups: that are timed.
    """

    share: float
    orders: Sequence[int]
    more: bool
    entries: int
    look_ups: int


FULL = Size(share=1.0, orders=(0, 1), more=True, entries=50_000, look_ups=5_000)
QUICK = Size(share=0.2, orders=(0,), more=False, entries=50_000, look_ups=1_000)


@dataclass(slots=True, kw_only=True)
class Tally:
    """Counts over a stream's second half."""

    requests: int = 0
    hits: int = 0
    wrong: int = 0

    def figures(self) -> dict[str, Any]:
        """Rates, with the upper limit of the wrong ones."""
        return {
            "requests": self.requests,
            "hit_rate": self.hits / self.requests,
            "wrong_rate": self.wrong / self.requests,
            "wrong_upper": upper_limit(self.wrong, self.requests),
            "wrong_of_hits": self.wrong / self.hits if self.hits else 0.0,
            "wrong_of_hits_upper": upper_limit(self.wrong, self.hits) if self.hits else 1.0,
        }


class Judgements:
    """What people said of pairs of questions, and what follows."""

    def __init__(self, rows: Iterable[dict[str, Any]]) -> None:
        pairs = [(row["text_a"], row["text_b"], bool(row["label"])) for row in rows]
        self.questions = list(dict.fromkeys(text for one, other, _ in pairs for text in (one, other)))
        self._same = _Groups(self.questions)
        judged = _Groups(self.questions)
        for one, other, same in pairs:
            judged.join(one, other)
            if same:
                self._same.join(one, other)
        self._different = {frozenset((self._same.of(one), self._same.of(other))) for one, other, same in pairs if not same}
        self.group = {text: judged.of(text) for text in self.questions}

    def same(self, one: str, other: str) -> bool | None:
        """Whether two questions are duplicates; None where no judgement says."""
        first, second = self._same.of(one), self._same.of(other)
        if first == second:
            return True
        return False if frozenset((first, second)) in self._different else None


class _Groups:
    """Which texts belong together, by union and find."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._over = {text: text for text in texts}

    def of(self, text: str) -> str:
        """The text that stands for the group of this one."""
        while self._over[text] != text:
            self._over[text] = self._over[self._over[text]]
            text = self._over[text]
        return text

    def join(self, one: str, other: str) -> None:
        """Both groups become one."""
        self._over[self.of(one)] = self.of(other)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes the full run's result; returns the exit code."""
    less = "a fifth of the questions, one order"
    return command.main("semantic_cache", __doc__, measure, arguments, full=FULL, quick=QUICK, less=less, result=RESULT)


def measure(data: Path, size: Size) -> Iterator[dict[str, Any]]:
    """Figures by order and bound; the first order's are the headline."""
    judgements = Judgements(read(data))
    bench = _Bench(judgements, [text for text in judgements.questions if _share(judgements.group[text]) < size.share])
    time_figures = bench.look_up_times(size.entries, size.look_ups)
    runs: list[dict[str, Any]] = []
    more: dict[str, Any] = {}
    for seed in size.orders:
        runs.append({"order": seed} | bench.by_bounds(seed))
        yield _headline(runs) | time_figures | more
    if size.more:
        more["open"] = bench.by_bounds(size.orders[0], judged_only=False)
        more["per_hits"] = bench.per_hits(size.orders[0])
        yield _headline(runs) | time_figures | more


def read(data: Path) -> Iterator[dict[str, Any]]:
    """The rows of every file of judged pairs."""
    for path in sorted((data / "qqp_cache").glob("*.jsonl*")):
        text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
        yield from (row for row in map(json.loads, text.splitlines()) if {"text_a", "text_b", "label"} <= row.keys())


class _Bench:
    """Questions as streams."""

    def __init__(self, judgements: Judgements, questions: list[str]) -> None:
        from foreword.retrieval import embedder

        self._judgements, self._questions, self._embedder = judgements, questions, embedder.get()

    def by_bounds(self, seed: int, *, judged_only: bool = True) -> dict[str, Any]:
        """Each bound's figures, and those of fixed thresholds."""
        stream = self._stream(seed)
        nearest = self._nearest(stream, judged_only=judged_only)
        found: dict[str, Any] = {"questions": len(stream), "bounds": {}}
        for bound in BOUNDS:
            tally, cold = self._run(stream, bound, judged_only=judged_only)
            first, second = nearest[: len(stream) // 2], nearest[len(stream) // 2 :]
            figures = tally.figures() | {"from_the_start": cold.figures()}
            figures["fixed"] = _at(second, _threshold(second, _most_wrong(bound, len(second))))
            figures["fixed_observed"] = _at(second, _threshold(second, int(bound * len(second))))
            figures["fixed_before"] = _at(second, _threshold(first, int(bound * len(first))))
            found["bounds"][f"{bound:g}"] = figures
            sys.stderr.write(f"{json.dumps({'order': seed, 'bound': bound, 'judged_only': judged_only} | figures)}\n")
        return found

    def per_hits(self, seed: int) -> dict[str, Any]:
        """What comes of bounds on the share of wrong ones among hits."""
        stream = self._stream(seed)
        found = {}
        for bound in BOUNDS_PER_HITS:
            tally, _ = self._run(stream, bound, judged_only=True, per="hits")
            found[f"{bound:g}"] = tally.figures()
            sys.stderr.write(f"per hits {bound}: {json.dumps(found[f'{bound:g}'])}\n")
        return found

    def look_up_times(self, entries: int, look_ups: int) -> dict[str, Any]:
        """How long a look-up takes with so many entries in one partition: embedding, search, words, decision."""
        from foreword.gateway.cache import BoundSettings, SemanticCache, policy_of

        asked, kept = self._questions[:look_ups], self._questions[look_ups:]
        # Where the questions do not suffice, two are asked as one.
        texts = kept + [f"{one} {other}" for gap in range(1, 9) for one, other in zip(kept, kept[gap:], strict=False)]
        cache = SemanticCache(self._embedder, policy_of(bound=BoundSettings(bound=0.02, seed=0)), most_entries=entries)
        for text in texts[:entries]:
            self._keep(cache, text)
        for text in asked[:200]:
            found = cache.look_up(_key(text))
            cache.observe(_key(text), found, same={entry.number: False for entry in found.near})
        took = []
        for text in asked:
            key = _key(text)
            began = time.perf_counter()
            cache.look_up(key)
            took.append(time.perf_counter() - began)
        cuts = statistics.quantiles(took, n=100)
        return {
            "lookup_entries": len(cache),
            "lookup_p50_ms": 1e3 * cuts[49],
            "lookup_p95_ms": 1e3 * cuts[94],
            "lookup_p99_ms": 1e3 * cuts[98],
        }

    def _keep(self, cache: Any, text: str) -> None:
        from foreword.gateway.cache.bound import Decision
        from foreword.gateway.cache.semantic import LookUp

        vector_D = self._embedder.embed([text])[0]
        if vector_D.any():
            cache.add(_key(text), LookUp(decision=Decision(exploit=False, candidate=None, why="nothing near"), vector_D=vector_D))

    def _stream(self, seed: int) -> list[str]:
        return [self._questions[place] for place in np.random.default_rng(seed).permutation(len(self._questions))]

    def _run(self, stream: list[str], bound: float, *, judged_only: bool, per: Any = "requests") -> tuple[Tally, Tally]:
        """Counts over the second half, and over the whole stream."""
        from foreword.gateway.cache import BoundSettings, SemanticCache, policy_of
        from foreword.gateway.cache.semantic import Entry

        settings = BoundSettings(bound=bound, per=per, horizon=len(stream) // 2, seed=0)
        cache = SemanticCache(self._embedder, policy_of(bound=settings), most_entries=len(stream))
        later, whole = Tally(), Tally()
        for place, text in enumerate(stream):
            key = _key(text)

            def judged(entries: Sequence[Entry], text: str = text) -> list[Entry]:
                return [entry for entry in entries if self._judgements.same(text, entry.question) is not None]

            found = cache.look_up(key, among=judged if judged_only else None)
            same = found.entry is not None and bool(self._judgements.same(text, found.entry.question))
            for tally in (whole, later) if place >= len(stream) // 2 else (whole,):
                tally.requests += 1
                tally.hits += found.hit
                tally.wrong += found.hit and not same
            if not found.hit:
                cache.observe(key, found, same={entry.number: bool(self._judgements.same(text, entry.question)) for entry in found.near})
                cache.add(key, found)
        return later, whole

    def _nearest(self, stream: list[str], *, judged_only: bool) -> np.ndarray:
        """Each request's nearest earlier question: its similarity (-1 where there is none), and whether it is a duplicate."""
        vectors_ND = self._embedder.embed(stream)
        groups: dict[str, list[int]] = {}
        found_N2 = np.full((len(stream), 2), (-1.0, 0.0))
        for place, text in enumerate(stream):
            if judged_only:
                earlier = groups.setdefault(self._judgements.group[text], [])
                places = [other for other in earlier if self._judgements.same(text, stream[other]) is not None]
                earlier.append(place)
            else:
                places = range(place)
            if len(places):
                similarities = (vectors_ND[:place] if not judged_only else vectors_ND[places]) @ vectors_ND[place]
                best = int(similarities.argmax())
                found_N2[place] = similarities[best], bool(self._judgements.same(text, stream[places[best]]))
        return found_N2


def upper_limit(wrong: int, of: int, confidence: float = 0.95) -> float:
    """The rate that so few or fewer wrong ones would be seen at with probability 1 - `confidence` (Clopper & Pearson 1934, one-sided)."""
    from scipy.stats import beta

    return 1.0 if wrong >= of else float(beta.ppf(confidence, wrong + 1, of - wrong))


def _most_wrong(bound: float, requests: int) -> int:
    """How many wrong ones there may be for their upper limit to keep the bound; -1 where even none is too many."""
    wrong = int(bound * requests)
    while wrong >= 0 and upper_limit(wrong, requests) > bound:
        wrong -= 1
    return wrong


def _threshold(nearest_N2: np.ndarray, most_wrong: int) -> float:
    """The lowest threshold at which no more are wrong; above 1 where there is none."""
    order = np.argsort(-nearest_N2[:, 0])
    wrong = np.cumsum(1 - nearest_N2[order, 1])
    within = np.flatnonzero(wrong <= most_wrong)
    return float(nearest_N2[order[within[-1]], 0]) if len(within) else 2.0


def _at(nearest_N2: np.ndarray, threshold: float) -> dict[str, Any]:
    hits = (nearest_N2[:, 0] >= threshold) & (nearest_N2[:, 0] > -1)
    tally = Tally(requests=len(nearest_N2), hits=int(hits.sum()), wrong=int((hits & (nearest_N2[:, 1] == 0)).sum()))
    return {"threshold": threshold} | tally.figures()


def _headline(runs: list[dict[str, Any]]) -> dict[str, Any]:
    first = [runs[0]["bounds"][f"{bound:g}"] for bound in BOUNDS]
    every = [(bound, run["bounds"][f"{bound:g}"]) for run in runs for bound in BOUNDS]
    return {
        "bound": list(BOUNDS),
        "wrong_hit_upper": [figures["wrong_upper"] for figures in first],
        "hit_rate": [figures["hit_rate"] for figures in first],
        "fixed_hit_rate": [figures["fixed"]["hit_rate"] for figures in first],
        "fixed_observed_hit_rate": [figures["fixed_observed"]["hit_rate"] for figures in first],
        "wrong_hit_rate": [figures["wrong_rate"] for figures in first],
        "wrong_of_hits": [figures["wrong_of_hits"] for figures in first],
        "runs_over_their_bound": sum(figures["wrong_upper"] > bound for bound, figures in every),
        "runs_under_the_fixed_hit_rate": sum(figures["hit_rate"] < figures["fixed"]["hit_rate"] for _, figures in every),
        "runs": runs,
    }


def _key(text: str) -> Any:
    from foreword.gateway.cache import Key

    return Key(tenant="bench", partition=PARTITION, exact=hashlib.sha256(text.encode("utf-8", "replace")).hexdigest(), question=text)


def _share(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest()[:4]) / 2**32


if __name__ == "__main__":
    sys.exit(main())

"""Finding the cached question that means the same as an asked one.

Each partition (see `key`) has an index of its own, so that a look-up meets only questions of its own tenant, model, prompts and settings. A
small partition is searched through; a large one has a graph (HNSW, Malkov & Yashunin 2018) from `usearch`. The answers lie in the store of
exact answers; here is only under which key. Calls are short, and wait for nothing.

Axes: N entry, D dimension, C candidate.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from foreword.errors import ConfigError
from foreword.gateway.cache.bound import BoundSettings, Candidate, Decision, ErrorBound, FixedThreshold, Policy
from foreword.gateway.cache.evidence import Weights, evidence
from foreword.gateway.cache.key import Key
from foreword.gateway.cache.wording import Wording, wording

if TYPE_CHECKING:
    from foreword.retrieval.embedder import Embedder

SEARCHED_THROUGH = 4096
"""Entries up to which a partition is compared with one by one."""
MOST_CHARACTERS = 2_000
"""A longer question is looked up exactly only: a mean over so many words says little."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A cached question. Attributes: exact: under which key the store has its answer; question: its text, which no log line holds."""

    number: int
    tenant: str
    partition: str
    exact: str
    question: str
    words: Wording

    def __repr__(self) -> str:
        """Without the question."""
        return f"Entry(number={self.number}, tenant={self.tenant!r}, partition={self.partition[:12]!r}, exact={self.exact[:12]!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class LookUp:
    """What a look-up came to.

    Attributes:
        decision: whether to answer from the cache; its candidate's entry is a number.
        entry: the cached question that it is about; None where nothing is near.
        similarity: their cosine; 0 where nothing is near.
        near: every cached question that was considered, nearest first.
        vector_D: the asked question's, for `add`; None for a text that cannot be looked up.
    """

    decision: Decision[int]
    entry: Entry | None = None
    similarity: float = 0.0
    near: tuple[Entry, ...] = ()
    candidates: tuple[Candidate[int], ...] = ()
    vector_D: np.ndarray | None = None

    @property
    def hit(self) -> bool:
        """Whether to answer from the cache."""
        return self.decision.exploit


class _Partition:
    """The vectors of one partition."""

    def __init__(self, dimensions: int) -> None:
        self._dimensions = dimensions
        self._vectors_ND = np.empty((8, dimensions), np.float32)
        self._numbers: list[int] = []
        self._graph: Any = None

    def __len__(self) -> int:
        return len(self._numbers) if self._graph is None else len(self._graph)

    def add(self, number: int, vector_D: np.ndarray) -> None:
        """One more entry."""
        if self._graph is not None:
            self._graph.add(number, vector_D, threads=1)
            return
        count = len(self._numbers)
        if count == len(self._vectors_ND):
            self._vectors_ND = np.concatenate([self._vectors_ND, np.empty_like(self._vectors_ND)])
        self._vectors_ND[count] = vector_D
        self._numbers.append(number)
        if count + 1 > SEARCHED_THROUGH:
            self._graph = _graph(self._dimensions)
            self._graph.add(np.array(self._numbers, np.uint64), self._vectors_ND[: count + 1], threads=1)
            self._numbers, self._vectors_ND = [], np.empty((0, self._dimensions), np.float32)

    def remove(self, number: int) -> None:
        """An entry is gone."""
        if self._graph is not None:
            self._graph.remove(number)
            return
        place = self._numbers.index(number)
        last = len(self._numbers) - 1
        # The last one takes the free place.
        self._vectors_ND[place], self._numbers[place] = self._vectors_ND[last], self._numbers[last]
        self._numbers.pop()

    def nearest(self, vector_D: np.ndarray, count: int) -> list[tuple[int, float]]:
        """Up to `count` entries with their similarities, nearest first."""
        if self._graph is not None:
            found = self._graph.search(vector_D, count, threads=1)
            return [(int(number), 1 - float(distance)) for number, distance in zip(found.keys, found.distances, strict=True)]
        similarities_N = self._vectors_ND[: len(self._numbers)] @ vector_D
        places = np.arange(len(similarities_N))
        if len(places) > count:
            places = np.argpartition(similarities_N, -count)[-count:]
        places = places[np.argsort(-similarities_N[places])]
        return [(self._numbers[place], float(similarities_N[place])) for place in places]


class SemanticCache:
    """Questions that were asked, by what they mean. One event loop uses it."""

    def __init__(
        self,
        embedder: Embedder,
        policy: Callable[[], Policy[int]],
        *,
        most_entries: int = 50_000,
        candidates: int = 5,
    ) -> None:
        """
        Args:
            policy: makes one for each tenant, so that no tenant's traffic moves another's decisions; see `policy_of`.
            most_entries: over all tenants; the longest unused make room.
            candidates: near entries that a policy chooses from.
        """
        if most_entries < 1 or candidates < 1:
            raise ConfigError(f"A semantic cache holds 1 entry or more and looks at 1 or more; got {most_entries} and {candidates}.")
        self._embedder, self._policy = embedder, policy
        self._most_entries, self._candidates = most_entries, candidates
        self._entries: OrderedDict[int, Entry] = OrderedDict()
        self._by_exact: dict[str, int] = {}
        self._partitions: dict[str, _Partition] = {}
        self._policies: dict[str, Policy[int]] = {}
        self._weights: dict[str, Weights] = {}
        self._next = 0

    def __len__(self) -> int:
        """Entries, of all tenants."""
        return len(self._entries)

    def look_up(
        self,
        key: Key,
        *,
        vector_D: np.ndarray | None = None,
        among: Callable[[Sequence[Entry]], Iterable[Entry]] | None = None,
    ) -> LookUp:
        """Looks for a cached question that means the same, and decides whether its answer may be given.

        After a decision to explore, tell `observe` what came of it.

        Args:
            vector_D: of the question, where it is known already.
            among: leaves out near entries, before any is decided about.
        """
        policy = self.policy(key.tenant)
        if not key.question.strip() or len(key.question) > MOST_CHARACTERS:
            return LookUp(decision=policy.choose(()))
        if vector_D is None:
            vector_D = np.asarray(self._embedder.embed([key.question])[0])
        if not np.any(vector_D):
            return LookUp(decision=policy.choose(()))
        near = self._near(key, vector_D, among)
        asked, weights = wording(key.question), self._weights.setdefault(key.tenant, Weights())
        candidates = tuple(
            Candidate(entry=entry.number, evidence=evidence(similarity, asked, entry.words, weights)) for entry, similarity in near
        )
        decision = policy.choose(candidates)
        if decision.candidate is None:
            return LookUp(decision=decision, vector_D=vector_D)
        entry = self._entries[decision.candidate.entry]
        if decision.exploit:
            self._entries.move_to_end(entry.number)
        return LookUp(
            decision=decision,
            entry=entry,
            similarity=decision.candidate.evidence.similarity,
            near=tuple(found for found, _ in near),
            candidates=candidates,
            vector_D=vector_D,
        )

    def observe(self, key: Key, look_up: LookUp, *, same: Mapping[int, bool]) -> None:
        """After a decision to explore: which cached answers say the same as the new one.

        An entry that is gone by now is left out. Args: same: by entries' numbers, of `look_up.entry` and as many of `look_up.near` as were
        compared; the more, the faster it learns.
        """
        policy, decided = self.policy(key.tenant), look_up.entry.number if look_up.entry is not None else None
        for candidate in sorted(look_up.candidates, key=lambda candidate: candidate.entry != decided):
            if candidate.entry not in same or candidate.entry not in self._entries:
                continue
            if candidate.entry == decided:
                policy.observe(look_up.decision, same=same[candidate.entry])
            else:
                policy.learn(candidate, same=same[candidate.entry])

    def add(self, key: Key, look_up: LookUp) -> None:
        """Keeps a question whose answer the store has by now. One that cannot be looked up, or is here already, is not kept again."""
        if look_up.vector_D is None or key.exact in self._by_exact:
            return
        while len(self._entries) >= self._most_entries:
            self._remove(next(iter(self._entries)))
        entry = Entry(
            number=self._next,
            tenant=key.tenant,
            partition=key.partition,
            exact=key.exact,
            question=key.question,
            words=wording(key.question),
        )
        self._next += 1
        self._partitions.setdefault(key.partition, _Partition(self._embedder.dimensions)).add(entry.number, look_up.vector_D)
        self._entries[entry.number] = entry
        self._by_exact[entry.exact] = entry.number
        self._weights.setdefault(key.tenant, Weights()).add(entry.words.stems)

    def forget(self, exact: str) -> None:
        """Drops a question whose answer the store has no more."""
        number = self._by_exact.get(exact)
        if number is not None:
            self._remove(number)

    def policy(self, tenant: str) -> Policy[int]:
        """What decides for a tenant."""
        if tenant not in self._policies:
            self._policies[tenant] = self._policy()
        return self._policies[tenant]

    def state(self) -> dict[str, Any]:
        """Entries with their vectors, and what was learnt, by tenant: numbers, texts and arrays, all of which hold what tenants asked."""
        vectors = self._embedder.embed([entry.question for entry in self._entries.values()])
        learnt = {tenant: policy.state() for tenant, policy in self._policies.items() if isinstance(policy, ErrorBound)}
        rows = [(entry.number, entry.tenant, entry.partition, entry.exact, entry.question) for entry in self._entries.values()]
        return {"embedder": self._embedder.name, "entries": rows, "vectors_ND": vectors, "learnt": learnt, "next": self._next}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up what `state` gave, in place of what is here. Raises `ConfigError` where another embedder made the vectors."""
        if state["embedder"] != self._embedder.name:
            raise ConfigError(f"The semantic cache was made by the embedder `{state['embedder']}`; start with an empty one, or use that.")
        self._entries.clear()
        for table in (self._by_exact, self._partitions, self._policies, self._weights):
            table.clear()
        for (number, tenant, partition, exact, question), vector_D in zip(state["entries"], state["vectors_ND"], strict=True):
            self._next = number
            key = Key(tenant=tenant, partition=partition, exact=exact, question=question)
            self.add(key, LookUp(decision=Decision(exploit=False, candidate=None, why="nothing near"), vector_D=vector_D))
        self._next = int(state["next"])
        for tenant, learnt in state["learnt"].items():
            policy = self.policy(tenant)
            if isinstance(policy, ErrorBound):
                policy.restore(learnt)

    def _near(
        self, key: Key, vector_D: np.ndarray, among: Callable[[Sequence[Entry]], Iterable[Entry]] | None
    ) -> list[tuple[Entry, float]]:
        partition = self._partitions.get(key.partition)
        if partition is None:
            return []
        wanted = self._candidates if among is None else 8 * self._candidates
        least = self.policy(key.tenant).least_similarity
        nearest = {number: similarity for number, similarity in partition.nearest(vector_D, wanted) if similarity >= least}
        entries = [self._entries[number] for number in nearest]
        # A partition's name is a digest that the tenant's is part of; this holds even if one is made otherwise.
        own = [entry for entry in entries if entry.tenant == key.tenant]
        kept = own if among is None else among(own)
        return [(entry, nearest[entry.number]) for entry in kept][: self._candidates]

    def _remove(self, number: int) -> None:
        entry = self._entries.pop(number)
        del self._by_exact[entry.exact]
        partition = self._partitions[entry.partition]
        partition.remove(number)
        if not len(partition):
            del self._partitions[entry.partition]
        self._weights[entry.tenant].remove(entry.words.stems)
        self.policy(entry.tenant).forget(number)


def policy_of(*, bound: BoundSettings | None = None, threshold: float | None = None) -> Callable[[], Policy[int]]:
    """What makes a tenant's policy: an error bound or a fixed threshold. Raises `ConfigError` unless one of the two is given."""
    if (bound is None) == (threshold is None):
        raise ConfigError("A semantic cache decides by `bound` or by `threshold`. Give one of the two.")
    if bound is not None:
        return lambda: ErrorBound(bound)
    fixed: FixedThreshold[int] = FixedThreshold(threshold=threshold or 0.0)
    return lambda: fixed


def _graph(dimensions: int) -> Any:
    try:
        from usearch.index import Index
    except ImportError as error:
        raise ConfigError("The semantic cache needs the package `usearch`. Run pip install 'foreword[serve]'.") from error
    # Half the bytes, and half the time, for a similarity that is off by less than a thousandth; and about 97 of 100 nearest entries found.
    return Index(ndim=dimensions, metric="cos", dtype="f16", expansion_add=64, expansion_search=48)

"""Whether a cached answer may stand in for a new one: by a bound on wrong answers, or by a fixed threshold.

The bound's method is vCache's (Schroeder et al. 2025, "vCache: Verified Semantic Prompt Caching", §4): a decision either *exploits* the
cached answer or *explores*, that is, has the model answer and learns whether the cached answer would have done. What was learnt gives a
lower confidence limit of the probability that the cached answer is right: the largest (1-ε)·σ(logit at its ε-quantile) over a grid of ε
(§4.2, where the quantile is the threshold's). As in vCache, the error rate that is bounded is wrong answers over all requests; one over the
answers from the cache alone is stricter and can be had with `per="hits"`.

Three things differ. The logit comes from a curve that entries share, with an offset of each entry (`belief`). Where vCache gives every
single request the same error probability, by exploring with probability τ = 1 - δ/(1-α), the risk is spent here where it buys most:
requests are answered from the cache in the order of their lower limits, as far down as the expected errors of recent traffic stay under the
bound; both keep the same average, and this one has the most hits for it. And a share of the requests that could be answered from the cache
is explored all the same, which shows when the expectations are wrong.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any, Generic, Literal, Protocol, TypeVar

import numpy as np

from foreword.errors import ConfigError
from foreword.gateway.cache.belief import Belief, Calibration, Logit, Offset
from foreword.gateway.cache.evidence import ASSUMED, ASSUMED_LOGIT, CENTRE, FEATURES, SPREAD, Evidence

EntryId = TypeVar("EntryId", bound=Hashable)
Denominator = Literal["requests", "hits"]

LEAST_SIMILARITY = 0.4
"""Questions less alike are never the same, nearly."""
_EPSILONS = (0.001, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3)
_QUANTILES = tuple((1 - epsilon, NormalDist().inv_cdf(1 - epsilon)) for epsilon in _EPSILONS)
_LIMIT = NormalDist().inv_cdf(0.95)
_REFRESH = 64
"""Requests after which the cut is set anew."""
_FAR = 0.9
"""Risks above it are too far from what is ever answered for the calibration to learn from."""
_AUDIT_WEIGHT = 4
"""Observations that an audit counts like: it stands for answers that were given unchecked, but for too many for each to be counted."""
_PROOF = 2
"""Answers that an entry must have been right about before it answers a question that differs in a number, a name or a negation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate(Generic[EntryId]):
    """A cached question that is near the asked one."""

    entry: EntryId
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Generic[EntryId]):
    """What to do with a request.

    Attributes:
        exploit: answer from the cache, with the entry of `candidate`.
        candidate: otherwise the one to learn about; None where nothing is near.
        risk: how probable it is that the cached answer is wrong, as far as the method says.
        said: how probable that it is right, before the calibration.
        audit: the cached answer would have been given, and is checked instead.
        why: what decided.
    """

    exploit: bool
    candidate: Candidate[EntryId] | None
    risk: float = 1.0
    said: float = 0.0
    audit: bool = False
    why: Literal["nothing near", "guarded", "learning", "too risky", "audit", "within the bound", "near enough", "not near enough"]


class Policy(Protocol[EntryId]):
    """Decides, and learns from what comes of it."""

    @property
    def least_similarity(self) -> float:
        """Questions less alike are no candidates."""
        ...

    def choose(self, candidates: Sequence[Candidate[EntryId]]) -> Decision[EntryId]:
        """What to do with one request. Each request is asked about once, also where nothing is near."""
        ...

    def observe(self, decision: Decision[EntryId], *, same: bool) -> None:
        """After a decision to explore: whether the cached answer says the same as the new one."""
        ...

    def learn(self, candidate: Candidate[EntryId], *, same: bool) -> None:
        """Another candidate of a request that was explored: whether its cached answer says the same as well."""
        ...

    def forget(self, entry: EntryId) -> None:
        """An entry is gone."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedThreshold(Generic[EntryId]):
    """The simple mode: answers where the similarity is at least `threshold`. Learns nothing. Meets `Policy`.

    Attributes:
        threshold: from 0, which takes the nearest whatever it is, to 1.
        guard: never answer a question that differs in a negation, a number or a name.
    """

    threshold: float
    guard: bool = True

    def __post_init__(self) -> None:
        """Raises `ConfigError` for a threshold that is none."""
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"`threshold` is a cosine from 0 to 1; got {self.threshold}.")

    @property
    def least_similarity(self) -> float:
        """See `Policy`."""
        return min(self.threshold, LEAST_SIMILARITY)

    def choose(self, candidates: Sequence[Candidate[EntryId]]) -> Decision[EntryId]:
        """See `Policy`."""
        if not candidates:
            return Decision(exploit=False, candidate=None, why="nothing near")
        allowed = [candidate for candidate in candidates if not (self.guard and candidate.evidence.differences)]
        best = max(allowed or candidates, key=lambda candidate: candidate.evidence.similarity)
        if not allowed:
            return Decision(exploit=False, candidate=best, why="guarded")
        # Rounding can leave the vector of an equal text a little under 1.
        near = best.evidence.similarity >= self.threshold - 1e-4
        return Decision(exploit=near, candidate=best, why="near enough" if near else "not near enough")

    def observe(self, decision: Decision[EntryId], *, same: bool) -> None:
        """See `Policy`."""

    def learn(self, candidate: Candidate[EntryId], *, same: bool) -> None:
        """See `Policy`."""

    def forget(self, entry: EntryId) -> None:
        """See `Policy`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundSettings:
    """What an error bound holds to.

    Attributes:
        bound: the share of wrong answers that is allowed; 0 never answers from the cache.
        per: of what they are a share.
        confidence: how probable it is to be that the rate's 95 % upper limit, over `horizon` requests (or hits), is under the bound.
        audit: share of the requests within the bound that are explored all the same.
        least_observations: before any answer comes from the cache.
        window: recent requests whose risks the cut is set by.
        prior: standard deviation of the common curve's weights before anything is seen; `entry_prior` of the entries' offsets.
        guard: a question that differs in a negation, a number or a name is answered only by an entry that was right about such before.
        seed: of the choice of audits.
    """

    bound: float
    per: Denominator = "requests"
    confidence: float = 0.8
    horizon: int = 10_000
    audit: float = 0.03
    least_observations: int = 100
    window: int = 2_000
    prior: float = 0.4
    entry_prior: float = 2.0
    guard: bool = True
    seed: int | None = None

    def __post_init__(self) -> None:
        """Raises `ConfigError` for what cannot be."""
        if not 0 <= self.bound < 1:
            raise ConfigError(f"`bound` is a share of wrong answers from 0 up to 1; got {self.bound}. Write 0.01 for one in a hundred.")
        if not 0.5 <= self.confidence < 1:
            raise ConfigError(f"`confidence` is from 0.5 up to 1; got {self.confidence}.")
        if not 0 <= self.audit <= 1:
            raise ConfigError(f"`audit` is a share from 0 to 1; got {self.audit}.")
        if min(self.horizon, self.window, self.least_observations) < 1 or min(self.prior, self.entry_prior) < 0:
            raise ConfigError("`horizon`, `window` and `least_observations` are 1 or more, and priors 0 or more.")

    @property
    def target(self) -> float:
        """The rate aimed at: so far under the bound that, by `confidence`, the count's own 95 % upper limit comes to lie under it too."""
        deviation = math.sqrt(self.bound * (1 - self.bound) / self.horizon)
        return max(self.bound - (_LIMIT + NormalDist().inv_cdf(self.confidence)) * deviation, 0.0)


@dataclass(slots=True)
class _Own:
    """What an entry has of its own. `proofs` counts questions with differences that it was right about; -1 once it was wrong about one."""

    offset: Offset
    proofs: int = 0


@dataclass(slots=True)
class _Recent:
    """Risks of recent requests: by what they are ordered, what they are expected to cost, and what was spent."""

    limits: deque[float] = field(default_factory=deque)
    risks: deque[float] = field(default_factory=deque)
    spent: deque[float] = field(default_factory=deque)
    total: float = 0.0
    hits: int = 0

    def add(self, limit: float, risk: float, spent: float, most: int) -> None:
        """One more request; `spent` is 0 where it was not answered from the cache."""
        self.limits.append(limit)
        self.risks.append(risk)
        self.spent.append(spent)
        self.total, self.hits = self.total + spent, self.hits + (spent > 0)
        if len(self.limits) > most:
            self.limits.popleft()
            self.risks.popleft()
            gone = self.spent.popleft()
            self.total, self.hits = self.total - gone, self.hits - (gone > 0)


class ErrorBound(Generic[EntryId]):
    """Keeps the share of wrong answers under a bound. One for each tenant. Meets `Policy`. Not safe to use from several threads at once."""

    def __init__(self, settings: BoundSettings) -> None:
        """Starts without knowing anything, and so explores at first."""
        self.settings = settings
        self._belief = Belief(
            CENTRE,
            SPREAD,
            assumed=ASSUMED_LOGIT,
            assumed_F=np.array([ASSUMED.get(feature, 0.0) for feature in FEATURES]),
            prior=settings.prior,
            entry_prior=settings.entry_prior,
        )
        self._own: dict[EntryId, _Own] = {}
        self._recent = _Recent()
        self._calibration = Calibration()
        self._random = random.Random(settings.seed)
        self._cut = -1.0
        self._requests = 0

    @property
    def least_similarity(self) -> float:
        """See `Policy`."""
        return LEAST_SIMILARITY

    @property
    def observations(self) -> int:
        """What was learnt from."""
        return self._belief.observations

    def choose(self, candidates: Sequence[Candidate[EntryId]]) -> Decision[EntryId]:
        """See `Policy`."""
        if self._requests % _REFRESH == 0:
            self._cut = self._new_cut()
        self._requests += 1
        if not candidates:
            self._recent.add(1.0, 1.0, 0.0, self.settings.window)
            return Decision(exploit=False, candidate=None, why="nothing near")
        logits = self._belief.logits(np.stack([candidate.evidence.features for candidate in candidates]), self._offsets(candidates))
        ranked = sorted(zip(map(_limit, logits), logits, candidates, strict=True), key=lambda found: -found[0])
        allowed = [found for found in ranked if self._is_allowed(found[2])]
        lower, logit, candidate = (allowed or ranked)[0]
        limit, said = 1 - lower, logit.probability
        risk = 1 - self._calibration.probability(said)
        decision = self._decide(candidate, limit, risk, said, guarded=not allowed)
        self._recent.add(limit if allowed else 1.0, risk if allowed else 1.0, risk if decision.exploit else 0.0, self.settings.window)
        return decision

    def observe(self, decision: Decision[EntryId], *, same: bool) -> None:
        """See `Policy`."""
        if decision.candidate is None:
            return
        if decision.risk <= _FAR and decision.why != "guarded":
            self._calibration.observe(decision.said, same=same, weight=_AUDIT_WEIGHT if decision.audit else 1)
        self.learn(decision.candidate, same=same)

    def learn(self, candidate: Candidate[EntryId], *, same: bool) -> None:
        """See `Policy`."""
        own = self._own.setdefault(candidate.entry, _Own(offset=self._belief.entry_prior))
        own.offset = self._belief.observe(candidate.evidence.features, own.offset, same=same)
        if candidate.evidence.differences:
            own.proofs = own.proofs + 1 if same and own.proofs >= 0 else -1

    def forget(self, entry: EntryId) -> None:
        """See `Policy`."""
        self._own.pop(entry, None)

    def state(self) -> dict[str, Any]:
        """What was learnt, as numbers, arrays and entries' ids; what recent traffic looks like is not part of it."""
        return {
            "belief": self._belief.state(),
            "entries": [(entry, own.offset.mean, own.offset.variance, own.proofs) for entry, own in self._own.items()],
            "calibration": self._calibration.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up what `state` gave. Raises `ConfigError` where it does not fit this version."""
        self._belief.restore(state["belief"])
        self._own = {
            entry: _Own(offset=Offset(mean=mean, variance=variance), proofs=proofs) for entry, mean, variance, proofs in state["entries"]
        }
        self._calibration.restore(state["calibration"])

    def _offsets(self, candidates: Sequence[Candidate[EntryId]]) -> list[Offset]:
        unknown = self._belief.entry_prior
        return [own.offset if (own := self._own.get(candidate.entry)) else unknown for candidate in candidates]

    def _is_allowed(self, candidate: Candidate[EntryId]) -> bool:
        if not self.settings.guard or not candidate.evidence.differences:
            return True
        own = self._own.get(candidate.entry)
        return own is not None and own.proofs >= _PROOF

    def _decide(self, candidate: Candidate[EntryId], limit: float, risk: float, said: float, *, guarded: bool) -> Decision[EntryId]:
        def explore(why: Any, *, audit: bool = False) -> Decision[EntryId]:
            return Decision(exploit=False, candidate=candidate, risk=risk, said=said, audit=audit, why=why)

        if guarded:
            return explore("guarded")
        if self.observations < self.settings.least_observations:
            return explore("learning")
        if limit > self._cut or not self._affords(risk):
            return explore("too risky")
        if self._random.random() < self.settings.audit:
            return explore("audit", audit=True)
        return Decision(exploit=True, candidate=candidate, risk=risk, said=said, why="within the bound")

    def _affords(self, risk: float) -> bool:
        """Whether the expected errors of the window stay under the target with this one."""
        recent = self._recent
        number = len(recent.spent) if self.settings.per == "requests" else recent.hits + 1
        # The first answers of all may be spent a little ahead.
        return (recent.total + risk) <= self.settings.target * number + (0.5 if self.settings.per == "hits" else 0.0)

    def _new_cut(self) -> float:
        """The highest limit up to which recent requests, answered from the cache, would have kept the target."""
        if not self._recent.limits:
            return -1.0
        limits, risks = np.fromiter(self._recent.limits, float), np.fromiter(self._recent.risks, float)
        order = np.argsort(limits)
        expected = np.cumsum(risks[order])
        number = np.arange(1, len(expected) + 1) if self.settings.per == "hits" else len(expected)
        within = np.flatnonzero(expected <= self.settings.target * number)
        return float(limits[order][within[-1]]) if len(within) else -1.0


def _limit(logit: Logit) -> float:
    """A lower confidence limit of the probability that the answer is right (vCache §4.2, the minimum over ε)."""
    deviation = math.sqrt(logit.variance)
    return max(level / (1 + math.exp(min(quantile * deviation - logit.mean, 700.0))) for level, quantile in _QUANTILES)

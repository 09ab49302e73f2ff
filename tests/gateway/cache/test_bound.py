import math
from typing import Any

import numpy as np
import pytest

from foreword.errors import ConfigError
from foreword.gateway.cache.bound import BoundSettings, Candidate, ErrorBound, FixedThreshold
from foreword.gateway.cache.evidence import CENTRE, FEATURES, Evidence


def candidate(entry: int, similarity: float, differences: tuple[str, ...] = ()) -> Candidate[int]:
    features = CENTRE.copy()
    features[FEATURES.index("similarity")] = similarity
    features[FEATURES.index("distance")] = math.log(max(1 - similarity, 5e-4))
    return Candidate(entry=entry, evidence=Evidence(similarity=similarity, features=features, differences=differences))


class Traffic:
    """Requests near one of many entries, whose cached answers are right with a probability that grows with similarity."""

    def __init__(self, seed: int = 0, entries: int = 200) -> None:
        self._draws, self._entries = np.random.default_rng(seed), entries
        self.hits = self.wrong = self.requests = 0

    def run(self, policy: Any, requests: int, *, right: float | None = None) -> None:
        for _ in range(requests):
            similarity = self._draws.uniform(0.4, 1.0)
            probability = 1 / (1 + math.exp(-25 * (similarity - 0.8))) if right is None else right
            decision = policy.choose([candidate(int(self._draws.integers(self._entries)), similarity)])
            same = bool(self._draws.random() < probability)
            self.requests += 1
            self.hits += decision.exploit
            self.wrong += decision.exploit and not same
            if not decision.exploit:
                policy.observe(decision, same=same)


def settings(bound: float, **given: Any) -> BoundSettings:
    return BoundSettings(bound=bound, seed=0, **given)


@pytest.mark.parametrize("bound", [0.01, 0.05])
def test_wrong_answers_stay_under_the_bound_and_there_are_hits(bound: float) -> None:
    policy, traffic = ErrorBound[int](settings(bound, horizon=3_000)), Traffic()
    traffic.run(policy, 5_000)
    assert traffic.wrong <= bound * traffic.requests
    assert traffic.hits > 0.03 * traffic.requests


def test_a_looser_bound_gives_more_hits() -> None:
    hits = []
    for bound in (0.01, 0.05, 0.1):
        traffic = Traffic()
        traffic.run(ErrorBound[int](settings(bound)), 3_000)
        hits.append(traffic.hits)
    assert hits[0] < hits[1] < hits[2]


def test_a_bound_of_nothing_never_answers() -> None:
    traffic = Traffic()
    traffic.run(ErrorBound[int](settings(0.0)), 1_500, right=1.0)
    assert traffic.hits == 0


def test_a_bound_on_hits_is_the_stricter_one() -> None:
    per_hits, per_requests = Traffic(), Traffic()
    per_hits.run(ErrorBound[int](settings(0.1, per="hits", horizon=1_000)), 4_000)
    per_requests.run(ErrorBound[int](settings(0.1, horizon=1_000)), 4_000)
    assert per_hits.wrong <= 0.1 * per_hits.hits
    assert 0 < per_hits.hits < per_requests.hits


def test_nothing_is_answered_before_something_was_learnt() -> None:
    policy = ErrorBound[int](settings(0.2, least_observations=50))
    for _ in range(50):
        decision = policy.choose([candidate(1, 0.999)])
        assert not decision.exploit
        policy.observe(decision, same=True)
    assert policy.observations == 50


def test_where_cached_answers_are_mostly_wrong_none_is_given() -> None:
    traffic = Traffic()
    traffic.run(ErrorBound[int](settings(0.01)), 2_000, right=0.2)
    assert traffic.wrong <= 0.01 * traffic.requests


def test_answers_that_turn_wrong_are_found_out() -> None:
    policy, before, after, later = ErrorBound[int](settings(0.05)), Traffic(0), Traffic(1), Traffic(2)
    before.run(policy, 3_000, right=0.99)
    after.run(policy, 2_000, right=0.1)
    later.run(policy, 2_000, right=0.1)
    assert before.hits > 500
    assert later.hits < 0.2 * before.hits
    assert later.wrong <= 0.05 * later.requests


def test_some_of_what_could_be_answered_is_checked() -> None:
    policy = ErrorBound[int](settings(0.2, audit=0.2))
    Traffic().run(policy, 2_000)
    seen = [policy.choose([candidate(number % 50, 0.99)]) for number in range(500)]
    audits = [decision for decision in seen if decision.audit]
    assert 0.1 < len(audits) / (len(audits) + sum(decision.exploit for decision in seen)) < 0.3
    assert not any(decision.exploit for decision in audits)


def test_entries_learn_their_own_thresholds() -> None:
    policy = ErrorBound[int](settings(0.05))
    traffic = Traffic(entries=50)
    traffic.run(policy, 2_000)
    for _ in range(30):
        for entry, same in ((1_001, True), (1_002, False)):
            policy.learn(candidate(entry, 0.85), same=same)
    good, bad = (sum(policy.choose([candidate(entry, 0.85)]).exploit for _ in range(100)) for entry in (1_001, 1_002))
    assert good > 50
    assert bad == 0


@pytest.mark.parametrize("difference", ["negation", "numbers", "names"])
def test_a_difference_that_turns_the_meaning_is_never_answered_without_evidence(difference: str) -> None:
    policy = ErrorBound[int](settings(0.2))
    Traffic().run(policy, 2_000)
    turned = candidate(7, 0.999, (difference,))
    assert not any(policy.choose([turned]).exploit for _ in range(200))
    assert any(policy.choose([candidate(7, 0.999)]).exploit for _ in range(20))


def test_with_evidence_it_is_and_one_wrong_answer_takes_it_back() -> None:
    policy = ErrorBound[int](settings(0.2))
    Traffic().run(policy, 2_000)
    turned = candidate(7, 0.999, ("names",))
    for _ in range(20):
        policy.learn(turned, same=True)
    assert any(policy.choose([turned]).exploit for _ in range(20))
    policy.learn(turned, same=False)
    assert not any(policy.choose([turned]).exploit for _ in range(50))
    policy.learn(turned, same=True)
    assert policy.choose([turned]).why == "guarded"


def test_the_best_of_several_is_taken_and_a_turned_one_passed_over() -> None:
    policy = ErrorBound[int](settings(0.2, audit=0.0))
    Traffic().run(policy, 2_000)
    decision = policy.choose([candidate(1, 0.999, ("negation",)), candidate(2, 0.6), candidate(3, 0.99)])
    assert decision.candidate is not None and decision.candidate.entry == 3


def test_nothing_near_is_a_request_all_the_same() -> None:
    decision = ErrorBound[int](settings(0.1)).choose([])
    assert (decision.exploit, decision.candidate, decision.why) == (False, None, "nothing near")


def test_what_was_learnt_can_be_taken_up() -> None:
    first, second = ErrorBound[int](settings(0.05)), ErrorBound[int](settings(0.05))
    Traffic().run(first, 1_500)
    second.restore(first.state())
    one, other = (policy.choose([candidate(3, 0.93)]) for policy in (first, second))
    assert second.observations == first.observations
    assert one.risk == other.risk


def test_an_entry_that_is_gone_is_forgotten() -> None:
    policy = ErrorBound[int](settings(0.05))
    fresh = policy.choose([candidate(1, 0.9)]).said
    for _ in range(20):
        policy.learn(candidate(1, 0.9), same=True)
    learnt = policy.choose([candidate(1, 0.9)]).said
    policy.forget(1)
    assert fresh < policy.choose([candidate(1, 0.9)]).said < learnt


@pytest.mark.parametrize(
    "given",
    [{"bound": -0.1}, {"bound": 1.0}, {"bound": 0.1, "confidence": 0.2}, {"bound": 0.1, "audit": 2.0}, {"bound": 0.1, "horizon": 0}],
)
def test_settings_that_cannot_be(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        BoundSettings(**given)


def test_the_target_leaves_room_for_chance() -> None:
    assert settings(0.05, horizon=100).target < settings(0.05, horizon=10_000).target < 0.05
    assert settings(0.01, horizon=10).target == 0


def test_a_fixed_threshold() -> None:
    policy: Any = FixedThreshold(threshold=0.9)
    assert policy.choose([candidate(1, 0.95), candidate(2, 0.97)]).candidate.entry == 2
    assert policy.choose([candidate(1, 0.95)]).exploit
    assert not policy.choose([candidate(1, 0.85)]).exploit
    assert not policy.choose([]).exploit


def test_a_threshold_of_0_is_one_and_takes_whatever_is_nearest() -> None:
    policy: Any = FixedThreshold(threshold=0.0)
    assert policy.choose([candidate(1, 0.05)]).exploit
    assert policy.least_similarity == 0.0


def test_a_threshold_of_1_takes_equal_ones() -> None:
    assert FixedThreshold(threshold=1.0).choose([candidate(1, 1 - 1e-7)]).exploit
    assert not FixedThreshold(threshold=1.0).choose([candidate(1, 0.999)]).exploit


@pytest.mark.parametrize("threshold", [0.0, 0.9])
def test_a_fixed_threshold_does_not_take_a_question_for_its_negation(threshold: float) -> None:
    turned = candidate(1, 0.999, ("negation",))
    assert FixedThreshold(threshold=threshold).choose([turned]).why == "guarded"
    assert FixedThreshold(threshold=threshold, guard=False).choose([turned]).exploit


@pytest.mark.parametrize("threshold", [-0.1, 1.1, math.nan])
def test_what_is_no_threshold(threshold: float) -> None:
    with pytest.raises(ConfigError, match="cosine"):
        FixedThreshold(threshold=threshold)

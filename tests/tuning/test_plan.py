"""From data and settings to candidates and steps. The figures themselves are tuned by measurement and not held here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.data.dataset import Dataset
from foreword.tuning import plan
from foreword.tuning.search import steps_in_all
from foreword.tuning.settings import TuneSettings
from foreword.types import Example, Message

MANY = 10**9


@pytest.mark.parametrize("task", ["texts", "labelled"])
def test_a_setting_that_is_given_leaves_only_its_own_value(task, request):
    data = request.getfixturevalue(task)
    settings = TuneSettings(initialisation="text:x", learning_rate=0.5, positions=7)
    (only,) = plan.candidates_for(settings, data, targets=MANY)
    assert (only.initialisation, only.learning_rate, only.positions, only.draw) == ("text:x", 0.5, 7, 0)
    for candidate in plan.candidates_for(TuneSettings(learning_rate=0.5), data, targets=MANY):
        assert candidate.learning_rate == 0.5 and candidate.positions is None
    for candidate in plan.candidates_for(TuneSettings(initialisation="random"), data, targets=MANY):
        assert candidate.initialisation == "random"


@pytest.mark.parametrize("task", ["texts", "labelled"])
def test_candidates_differ_and_the_first_one_stays(task, request):
    data = request.getfixturevalue(task)
    many = plan.candidates_for(TuneSettings(), data, targets=MANY)
    assert len(set(many)) == len(many) > 1
    assert plan.candidates_for(TuneSettings(), data, targets=1) == many[:1]


def test_examples_seen_are_what_is_asked_for(texts):
    assert plan.targets_to_see(TuneSettings(examples_seen=123), texts, 24) == 123


@pytest.mark.parametrize("task", ["texts", "labelled"])
def test_more_data_are_never_seen_less(task, request):
    data = request.getfixturevalue(task)
    seen = [plan.targets_to_see(TuneSettings(), data, targets) for targets in (2, 50, 500, 5_000, 50_000)]
    assert seen == sorted(seen) and seen[0] >= 50


def test_a_batch_is_what_is_asked_for(texts, labelled):
    assert plan.batch_targets(TuneSettings(batch_targets=3), texts) == 3
    assert plan.batch_targets(TuneSettings(), texts) > 0 < plan.batch_targets(TuneSettings(), labelled)


@given(st.floats(0.01, 5000), st.floats(0.001, 5), st.floats(0.001, 50), st.integers(1, 6))
def test_the_most_steps_that_fit_are_planned(seconds, step_seconds, evaluation_seconds, candidates):
    settings = TuneSettings()
    pace = plan.Pace(step_seconds=step_seconds, evaluation_seconds=evaluation_seconds)

    def takes(total: int) -> float:
        steps = steps_in_all(candidates, rung=plan.rung_for(total), total=total)
        return steps * step_seconds + (settings.evaluations + 2 * candidates) * evaluation_seconds

    total = plan.steps_within(seconds, pace, candidates=candidates, settings=settings)
    assert total >= 1 and (total == 1 or takes(total) <= seconds)
    if total < 1_000_000:
        # A probe's rounded length may let a longer plan fit by chance, but not one longer by half.
        assert takes(total + total // 2 + 1) > seconds


@given(st.integers(1, 5000), st.integers(1, 8), st.integers(1, 20))
def test_a_search_has_room_for_its_probes_and_evaluations(total, candidates, evaluations):
    search = plan.begin(total, candidates=candidates, settings=TuneSettings(evaluations=evaluations))
    assert 1 <= search.rung <= total and search.total == total
    assert 1 <= -(-total // search.interval) <= evaluations


@pytest.mark.parametrize(("labels", "start"), [(2, "few-shot:4"), (3, "few-shot:3"), (5, "few-shot:5"), (77, "few-shot:3")])
def test_a_start_shows_every_label_equally_often_where_that_is_short(labels, start):
    names = tuple(f"label {number}" for number in range(labels))
    examples = [Example(messages=(Message(role="user", content=f"text {name}"),), completions=(name,)) for name in names]
    chosen = plan.candidates_for(TuneSettings(), Dataset.of(examples, labels=names), targets=0)
    assert [candidate.initialisation for candidate in chosen] == [start]

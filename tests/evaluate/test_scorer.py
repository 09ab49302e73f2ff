from __future__ import annotations

import json

import numpy as np
import pytest

from foreword.errors import EvaluationError, RegistryError
from foreword.evaluate import scorer
from foreword.evaluate.scorer import Outcome

# Texts that every scorer can read: as labels, as prose, and as fields.
YES, NO = "A: yes | B: it is", "A: no | B: it is not"


def make(**changes: object) -> Outcome:
    fields: dict = {"answers": ("a", "b"), "references": (("a",), ("x", "y")), "prompts": ("p", "q")}
    return Outcome(**{**fields, **changes})


def test_length_is_the_number_of_rows() -> None:
    assert len(make()) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"answers": (), "references": (), "prompts": ()}, "nothing to score"),
        ({"prompts": ("p",)}, "answers 2, references 2, prompts 1"),
        ({"target_log_probs": (np.zeros(1),)}, "target_log_probs 1"),
        ({"references": (("a",), ())}, "Example 1 has no reference"),
        ({"labels": ("a", "b"), "label_log_probs": np.zeros((2, 3))}, r"\(2, 2\); got \(2, 3\)"),
        ({"label_log_probs": np.zeros((2, 3))}, r"\(2, 0\); got \(2, 3\)"),
        ({"labels": ("a", "b"), "prior_log_probs": np.zeros(3)}, "each of the 2 labels"),
    ],
)
def test_an_outcome_whose_fields_disagree_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        make(**changes)


def test_names_are_those_of_the_files() -> None:
    assert {"bleu", "macro-f1", "rouge-l", "meteor-like", "label-likelihood-calibrated", "slots"} <= set(scorer.names())
    assert not [name for name in scorer.names() if name.startswith(("_", "-"))]


RIGHT_AND_WRONG = {
    "game24": ("Answer: 6 * 4 * 1 * 1", "Answer: 6 + 4", "any"),
    "number": ("#### 24", "#### 7", "24"),
    "reasoning-gym": (
        "24",
        "7",
        json.dumps({"problem": "chain_sum", "entry": {"question": "20 + 4 =", "answer": "24", "metadata": {}}}),
    ),
    "tool-call": ('[{"name": "add", "arguments": {"a": 1}}]', "[]", '[{"add": {"a": [1]}}]'),
}
"""Scorers of answers of one form: a right answer, a wrong one, and the reference."""


@pytest.mark.parametrize("name", scorer.names())
def test_every_scorer_keeps_the_contract(name: str) -> None:
    """Value, statistic and rows agree; one row repeated changes nothing in kind."""
    if name == "reasoning-gym":
        pytest.importorskip("reasoning_gym", reason="the package reasoning-gym is not installed")
    right, wrong, reference = RIGHT_AND_WRONG.get(name, (YES, NO, ""))
    log_probs = np.log(np.array([[0.6, 0.4], [0.3, 0.7], [0.2, 0.8]]))
    outcome = Outcome(
        answers=(right, wrong, right),
        references=((reference or YES,), (reference or NO,), (reference or NO,)),
        prompts=("Numbers: 6 4 1 1",) * 3 if reference else ("name[yes]", "name[no]", "name[no]"),
        labels=(YES, NO),
        label_log_probs=log_probs,
        prior_log_probs=np.log(np.array([0.5, 0.5])),
        target_log_probs=tuple(log_probs),
    )
    score = scorer.get(name).score(outcome)
    assert score.value == pytest.approx(score.statistic(np.arange(3)))
    assert np.isfinite(score.statistic(np.array([2, 2, 0, 1, 1])))
    assert score.higher_is_better is (name != "perplexity")
    if scorer.judges_rows(name):
        assert score.per_example is not None
        assert score.per_example.shape == (3,)
        assert score.value == pytest.approx(score.per_example.mean())
    else:
        assert score.per_example is None or not score.higher_is_better


@pytest.mark.parametrize("name", [name for name in scorer.names() if scorer.needs([name])])
def test_a_scorer_that_needs_log_probabilities_says_so_when_they_are_missing(name: str) -> None:
    with pytest.raises(EvaluationError, match=f"`{name}` needs"):
        scorer.get(name).score(make())


def test_needs_gathers_the_fields_of_all() -> None:
    assert scorer.needs(["bleu", "rouge-l"]) == frozenset()
    assert scorer.needs(["label-likelihood-calibrated", "perplexity"]) == {"label_log_probs", "prior_log_probs", "target_log_probs"}


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(RegistryError, match=r"bleu.*rouge-l"):
        scorer.get("blue")


def test_a_missing_package_names_the_command() -> None:
    with pytest.raises(EvaluationError, match=r"`bleu` needs .*pip install 'foreword\[compare\]'.*pip install no-such"):
        scorer.require("no_such_package_at_all", package="no-such", scorer="bleu")


def test_mean_score_counts_repeated_rows_twice() -> None:
    score = scorer.mean_score(np.array([True, False]))
    assert score.value == 0.5
    assert score.statistic(np.array([0, 0, 0, 1])) == 0.75


def test_corpus_score_has_no_rows() -> None:
    score = scorer.corpus_score(lambda rows: float(len(rows)), 3)
    assert (score.value, score.per_example) == (3.0, None)

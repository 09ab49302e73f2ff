from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.evaluate.scorers import bleu

sacrebleu = pytest.importorskip("sacrebleu", reason="sacrebleu (extra `compare`) computes the score")

WORDS = st.lists(st.sampled_from(["The", "the", "mill", "is", "cheap", ",", ".", "3.5"]), min_size=1, max_size=8).map(" ".join)
ROWS = st.lists(st.tuples(WORDS, st.lists(WORDS, min_size=1, max_size=4)), min_size=1, max_size=8)


def reference(answers, references) -> float:
    """sacrebleu's own figure: as many streams as the row with the most references has, None where a row has fewer."""
    streams = [[texts[i] if i < len(texts) else None for texts in references] for i in range(max(map(len, references)))]
    return sacrebleu.corpus_bleu(list(answers), streams).score


@given(rows=ROWS, seed=st.integers(0, 2**32 - 1))
def test_is_the_figure_of_sacrebleu_with_any_number_of_references(outcome, rows, seed) -> None:
    answers, references = zip(*rows, strict=True)
    score = bleu.score(outcome(answers, references))
    assert score.value == pytest.approx(reference(answers, references), abs=1e-9)
    chosen = np.random.default_rng(seed).integers(0, len(rows), len(rows))
    assert score.statistic(chosen) == pytest.approx(reference([answers[i] for i in chosen], [references[i] for i in chosen]), abs=1e-9)


@given(text=st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=4, max_size=20).map(" ".join))
def test_identical_texts_score_100(outcome, text) -> None:
    assert bleu.score(outcome([text], [["something else entirely", text]])).value == pytest.approx(100)


def test_nothing_in_common_scores_0_and_so_does_silence(outcome) -> None:
    assert bleu.score(outcome(["x y z"], ["a b c d"])).value == 0
    assert bleu.score(outcome(["", ""], ["a b c d", "e f g h"])).value == 0


def test_case_counts(outcome) -> None:
    assert bleu.score(outcome(["the mill is cheap today"], ["THE MILL IS CHEAP TODAY"])).value == 0


def test_is_the_figure_of_sacrebleu_on_e2e(outcome, shared_data) -> None:
    rows = [json.loads(line) for line in (shared_data / "e2e/dev.jsonl").read_text(encoding="utf-8").splitlines()]
    pairs = [(row["refs"][0], row["refs"][1:]) for row in rows if len(row["refs"]) > 1]
    answers, references = zip(*pairs, strict=True)
    score = bleu.score(outcome(answers, references))
    assert 20 < score.value < 90
    assert score.value == pytest.approx(reference(answers, references), abs=1e-9)

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.evaluate.scorers import meteor_like

nltk = pytest.importorskip("nltk.translate.meteor_score", reason="nltk (extra `compare`) has the stemmer and is the reference")

VOCABULARY = ["mill", "mills", "served", "serving", "coffee", "river", "cheap", "cheaply", "eagle", "near"]
DISTINCT = st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=9, unique_by=lambda word: nltk.PorterStemmer().stem(word))
ANY = st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=9)


class NoSynonyms:
    """Stands where nltk looks words up in WordNet, and knows none."""

    def synsets(self, word: str) -> list:
        return []


def nltk_meteor(reference: list[str], answer: list[str]) -> float:
    return nltk.single_meteor_score(reference, answer, wordnet=NoSynonyms(), alpha=0.9, beta=3.0, gamma=0.5)


@given(answer=DISTINCT, reference=DISTINCT)
def test_agrees_with_nltk_where_the_alignment_is_unique(outcome, answer, reference) -> None:
    score = meteor_like.score(outcome([" ".join(answer)], [" ".join(reference)]))
    assert score.value == pytest.approx(nltk_meteor(reference, answer), abs=1e-12)


@given(answer=ANY, reference=ANY)
def test_matches_as_many_words_as_nltk(outcome, answer, reference) -> None:
    stem = nltk.PorterStemmer().stem
    ours = meteor_like._align(answer, reference, stem)
    numbered = [list(enumerate(words)) for words in (answer, reference)]
    theirs, _, _ = nltk._enum_align_words(*numbered, wordnet=NoSynonyms())
    assert len(ours) == len(theirs)
    assert len({column for _, column in ours}) == len(ours)


@given(words=ANY)
def test_a_text_against_itself_is_one_chunk(outcome, words) -> None:
    text = " ".join(words)
    assert meteor_like.score(outcome([text], [text])).value == pytest.approx(1 - 0.5 / len(words) ** 3)


def test_by_hand(outcome) -> None:
    # `cheap mill` matches both words of `mill cheap coffee` in two chunks: P 1, R 2/3
    f_mean = 10 * 1 * (2 / 3) / (2 / 3 + 9)
    assert meteor_like.score(outcome(["Cheap mill!"], ["mill, cheap coffee"])).value == pytest.approx(f_mean * 0.5)


def test_repeated_words_are_aligned_into_long_runs(outcome) -> None:
    """The first `the` belongs to `the mill` of the reference's end; a greedy left-to-right match would break that run."""
    pairs = meteor_like._align(["the", "mill"], ["the", "old", "the", "mill"], str)
    assert pairs == [(0, 2), (1, 3)]


def test_stems_match_after_words_and_the_best_reference_counts(outcome) -> None:
    score = meteor_like.score(outcome(["serving coffees"], [["x", "served coffee"]]))
    assert score.value == pytest.approx(1 - 0.5 / 8)


def test_nothing_in_common_scores_0(outcome) -> None:
    assert meteor_like.score(outcome(["", "x"], ["a", "a"])).value == 0

"""Near-duplicates: agreement with a brute-force search, and invariance to case, punctuation and order of rows."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.data.similarity import NEAR, groups, resemblance

WORDS = [f"w{index}" for index in range(4000)]


def shingles(text: str) -> set[object]:
    words = text.split()
    return {*words, *itertools.pairwise(words)}


def brute_force(texts: list[str], threshold: float) -> set[tuple[int, int]]:
    sets = [shingles(text) for text in texts]
    return {
        (a, b)
        for a, b in itertools.combinations(range(len(texts)), 2)
        if texts[a] != texts[b] and len(sets[a] & sets[b]) / len(sets[a] | sets[b]) >= threshold
    }


def noisy_texts(count: int, length: int) -> list[str]:
    """Random texts, each followed by copies with none to a quarter of the words changed."""
    source = random.Random(7)
    texts = []
    for _ in range(count):
        base = source.choices(WORDS, k=length)
        for rate in (0.0, 0.02, 0.05, 0.1, 0.25):
            texts.append(" ".join(source.choice(WORDS) if source.random() < rate else word for word in base))
    return texts


@pytest.mark.parametrize("length", [12, 20, 120, 600])
def test_agrees_with_brute_force(length: int):
    texts = noisy_texts(40, length)
    wanted = brute_force(texts, NEAR)
    found = {(pair.first, pair.second) for pair in resemblance(texts).pairs}
    firsts = {tuple(sorted((texts.index(texts[a]), texts.index(texts[b])))) for a, b in wanted}
    assert len(firsts) > 5
    assert found <= firsts, "every pair found is one"
    assert len(firsts - found) <= 0.02 * len(firsts), "hardly any pair is missed"


def test_similarity_is_the_jaccard_index():
    texts = ["a b c d e f g h i j", "a b c d e f g h i x"]
    (pair,) = resemblance(texts, threshold=0.5).pairs
    one, other = map(shingles, texts)
    assert pair.similarity == pytest.approx(len(one & other) / len(one | other), abs=1e-4)


def test_case_punctuation_width_and_blanks_do_not_count():
    alike = resemblance(["Where is my card?", "where is my CARD", "where  is — my\ncard!!", "\uff57here is my card", "where is my bard"])
    assert alike.first_equal == (0, 0, 0, 0, 4)
    assert alike.links(0, 5) == [(0, 1), (0, 2), (0, 3)]


def test_texts_without_words_are_compared_as_they_are():
    assert resemblance(["!!!", "???", "!!!", "", " "]).first_equal == (0, 1, 0, 3, 3)


def test_scripts_without_spaces_have_words():
    texts = [
        "我想知道我的新银行卡什么时候能够寄到我现在的家里来呢",
        "我想知道我的新银行卡什么时候能够寄到我现在的家里来吗",
        "今天天气很好我们去公园散步吧朋友们",
    ]
    assert [(pair.first, pair.second) for pair in resemblance(texts).pairs] == [(0, 1)]


def test_an_instruction_before_every_input_does_not_make_inputs_alike():
    instruction = "You are a careful clerk. Read the message below and answer with the one queue that it belongs to, nothing else. Message:"
    texts = [f"{instruction} {word} {word}x" for word in WORDS[:30]]
    assert resemblance(texts).pairs == ()
    assert len(resemblance([instruction] * 1 + [f"{instruction} now"] + texts[:3]).pairs) > 0, "below twenty texts nothing is boilerplate"


def test_many_texts_of_one_template_come_together():
    base = " ".join(WORDS[:60])
    texts = [f"{base} {word}" for word in WORDS[100:130]] + [" ".join(WORDS[200 + 9 * index : 209 + 9 * index]) for index in range(30)]
    assert groups(len(texts), resemblance(texts).links(0, len(texts))) == [list(range(30))]


def test_links_look_at_their_own_side_only():
    near = "please tell me where my new card is at the moment thank you"
    alike = resemblance([f"{near} so much", f"{near} so much!", near, f"{near} so much?", near])
    assert alike.links(0, 2) == [(0, 1)]
    assert groups(3, alike.links(2, 5)) == [[0, 1, 2]], "though the first with these words lies on the other side"


@given(st.integers(1, 30).flatmap(lambda n: st.tuples(st.just(n), st.lists(st.tuples(st.integers(0, n - 1), st.integers(0, n - 1))))))
def test_groups_are_connected_components(case: tuple[int, list[tuple[int, int]]]):
    count, links = case
    reach = {index: {index} for index in range(count)}
    for a, b in links:
        union = reach[a] | reach[b]
        for member in union:
            reach[member] = union
    wanted = sorted({tuple(sorted(members)) for members in reach.values() if len(members) > 1})
    assert sorted(map(tuple, groups(count, links))) == wanted


@given(st.lists(st.text(max_size=12), max_size=12))
def test_any_text_is_accepted(texts: list[str]):
    alike = resemblance(texts)
    assert len(alike.first_equal) == len(texts)
    assert all(alike.first_equal[first] == first for first in alike.first_equal)

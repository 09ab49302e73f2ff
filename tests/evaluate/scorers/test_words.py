from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.evaluate.scorers._words import ngram_counts, plain_words, words_13a

TEXTS = [
    "It's 3.5-4 km, i.e. 20,000 feet!",
    "a-b 5-star &quot;x&quot; &amp;c",
    "<skipped>one\ntwo-\nthree.",
    "£20-25 (cheap); [no]",
    " . , ",
]


@pytest.mark.parametrize("text", TEXTS)
def test_words_are_those_of_mteval(text: str) -> None:
    reference = pytest.importorskip("sacrebleu.tokenizers.tokenizer_13a", reason="sacrebleu (extra `compare`) is the reference")
    assert words_13a(text) == reference.Tokenizer13a()(text.rstrip()).split()


@given(text=st.text(alphabet=st.sampled_from("aB1 9.,-'\"&;<>()[]{}/:!?~`@£é\n"), max_size=30))
def test_words_are_those_of_mteval_on_any_text(text: str) -> None:
    reference = pytest.importorskip("sacrebleu.tokenizers.tokenizer_13a", reason="sacrebleu (extra `compare`) is the reference")
    assert words_13a(text) == reference.Tokenizer13a()(text.rstrip()).split()


def test_plain_words_drop_punctuation_and_case() -> None:
    assert plain_words("The (Old) Mill - café, 3.5!") == ["the", "old", "mill", "café", "3.5"]


def test_ngrams_overlap_and_stop_at_the_end() -> None:
    assert ngram_counts(["a", "b", "a", "b"], 2) == {("a", "b"): 2, ("b", "a"): 1}
    assert ngram_counts(["a"], 2) == {}

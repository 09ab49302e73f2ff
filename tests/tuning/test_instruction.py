"""The instruction at the start of the first guess."""

from __future__ import annotations

from foreword.tuning.instruction import instruction_for


def test_what_the_user_says_comes_first(labelled, texts):
    assert instruction_for(labelled, "Sort it.") == instruction_for(texts, "Sort it.") == "Sort it."


def test_labels_are_named(labelled):
    assert instruction_for(labelled, None) == "Classify the user's text as bad, good or mixed. Answer with the label only."


def test_text_refers_to_the_examples(texts):
    assert "as in the examples" in instruction_for(texts, None)

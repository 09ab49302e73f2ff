from __future__ import annotations

import pytest

from foreword.evaluate.label import label_meant

LABELS = ("card", "lost card", "Refund", "c++")


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("card", "card"),
        (" **REFUND**. ", "Refund"),
        ("It is a refund.", "Refund"),
        ("The customer has a lost card, I think", "lost card"),
        ("it is about c++", "c++"),
        ("refunds", "refunds"),
        ("card or refund", "card or refund"),
        ("lost card, not card", "lost card, not card"),
        ("discard", "discard"),
        ("", ""),
    ],
)
def test_one_label_as_whole_words_or_none(text: str, label: str) -> None:
    assert label_meant(text, LABELS) == label

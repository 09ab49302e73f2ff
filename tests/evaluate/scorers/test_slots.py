from __future__ import annotations

import gzip
import json

import pytest

from foreword.errors import EvaluationError
from foreword.evaluate.scorers import slots


def test_parse_reads_pairs_and_drops_empty_values() -> None:
    assert slots.parse("name[The Eagle], customer rating[5 out of 5], near[], priceRange[£20-25]") == [
        ("name", "The Eagle"),
        ("customer rating", "5 out of 5"),
        ("priceRange", "£20-25"),
    ]


def test_a_row_is_the_share_of_its_values(outcome) -> None:
    made = outcome(
        ["Aromi serves Chinese food.", "Aromi is near the Ranch and serves Chinese food."],
        ["-", "-"],
        prompts=["name[Aromi], food[Chinese], near[Ranch], area[riverside]", "name[Aromi], food[Chinese], near[Ranch]"],
    )
    score = slots.score(made)
    assert score.per_example == pytest.approx([0.5, 1.0])
    assert score.value == pytest.approx(0.75)


def test_a_prompt_without_slots_is_an_error(outcome) -> None:
    with pytest.raises(EvaluationError, match=r"example 1 is 'Say hello\.'"):
        slots.score(outcome(["a", "b"], ["-", "-"], prompts=["name[a]", "Say hello."]))


@pytest.mark.parametrize(
    ("slot", "value", "answer", "expected"),
    [
        ("name", "The Mill", "the mill's coffee", True),
        ("name", "The Mill", "The Miller is here", False),
        ("near", "Café Sicilia", "near CAFÉ SICILIA.", True),
        ("eatType", "coffee shop", "a coffee-shop by the water", True),
        ("eatType", "coffee shop", "a pub with coffee", False),
        ("area", "city centre", "right in the city center", True),
        ("area", "city centre", "in the centre of town", True),
        ("area", "riverside", "down by the river", True),
        ("familyFriendly", "yes", "It is family-friendly.", True),
        ("familyFriendly", "yes", "This establishment welcomes children.", True),
        ("familyFriendly", "yes", "It is not family-friendly.", False),
        ("familyFriendly", "yes", "It is cheap.", False),
        ("familyFriendly", "yes", "Kids are welcome, and it is not expensive.", True),
        ("familyFriendly", "no", "It isn't child friendly.", True),
        ("familyFriendly", "no", "Families are not welcome.", True),
        ("familyFriendly", "no", "It is for adults only.", True),
        ("familyFriendly", "no", "It is family friendly.", False),
        ("familyFriendly", "no", "It is near the Ranch.", False),
        ("hasParking", "yes", "The hotel has parking.", True),
        ("hasParking", "no", "The hotel has parking.", False),
        ("priceRange", "high", "the price range is high", True),
        ("priceRange", "high", "It is highly rated.", False),
        ("priceRange", "high", "It is inexpensive.", False),
        ("priceRange", "cheap", "It serves inexpensive food.", True),
        ("priceRange", "less than £20", "meals for under £20", True),
        ("priceRange", "£20-25", "between £20 and £25", True),
        ("priceRange", "more than £30", "It costs less than £20.", False),
        ("customer rating", "high", "It has high prices, no reviews", False),
        ("customer rating", "high", "a highly rated place", True),
        ("customer rating", "low", "low priced food", False),
        ("customer rating", "1 out of 5", "a one-star pub", True),
        ("customer rating", "5 out of 5", "rated 5 of 5", True),
        ("customer rating", "5 out of 5", "rated 3 out of 5", False),
        ("colour", "red", "A RED door", True),
        ("colour", "high", "so high!", True),
    ],
)
def test_said(slot: str, value: str, answer: str, expected: bool) -> None:
    assert slots.said(slot, value, answer) is expected


def test_human_references_say_their_own_values_and_rarely_others(shared_data) -> None:
    with gzip.open(shared_data / "e2e/cleaned_dev.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file][::5]
    judged = [(slot, slots.said(slot, value, text)) for row in rows for text in row["refs"] for slot, value in slots.parse(row["mr"])]
    assert len(judged) > 1000
    assert sum(hit for _, hit in judged) / len(judged) > 0.98
    flags = {"yes": "no", "no": "yes"}
    wrong = [
        slots.said(slot, flags[value], text)
        for row in rows
        for text in row["refs"]
        for slot, value in slots.parse(row["mr"])
        if slot == "familyFriendly"
    ]
    assert sum(wrong) / len(wrong) < 0.03

"""Each warning comes when it should, and says what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from foreword.data.advice import lines_text
from foreword.data.checking import check
from foreword.data.reading import from_rows
from foreword.data.report import Warned


def labelled(counts: dict[str, int], start: int = 0, **extra: object) -> list[dict[str, object]]:
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [
        {"text": " ".join(f"n{start + index}k{word}" for word in range(5)), "label": label, **extra} for index, label in enumerate(labels)
    ]


def warnings(train: Sequence[Mapping[str, object]], dev: Sequence[Mapping[str, object]] | None = None) -> dict[str, Warned]:
    found = check(from_rows(train), None if dev is None else from_rows(dev)).warnings
    assert all(warned.message.endswith(".") and warned.advice.endswith(".") for warned in found)
    return {warned.code: warned for warned in found}


def test_few_rows():
    assert set(warnings(labelled({"a": 20, "b": 20}))) == {"few-rows"}
    assert warnings(labelled({"a": 30, "b": 30})) == {}


def test_one_label():
    assert set(warnings(labelled({"a": 60}))) == {"one-label"}


def test_imbalance_and_rare_labels():
    found = warnings(labelled({"a": 100, "b": 9, "c": 4}))
    assert "`a` has 100 rows, `c` 4" in found["imbalance"].message
    assert found["rare-labels"].message.endswith("rows for `c`.")
    assert set(warnings(labelled({"a": 100, "b": 10}))) == set()


def test_labels_that_differ_by_case():
    assert "'Spam', 'spam'" in warnings(labelled({"Spam": 30, "spam": 30}))["label-spelling"].message


def test_labels_of_one_side_only():
    found = warnings(labelled({"a": 30, "b": 30}), labelled({"a": 5, "c": 5}, start=500))
    assert "`c`" in found["unseen-labels"].message
    assert "`b`" in found["untested-labels"].message


def test_kinds_that_differ():
    dev = [{"prompt": f"other{index} words{index}", "completion": "x"} for index in range(5)]
    assert "different-kinds" in warnings(labelled({"a": 30, "b": 30}), dev)


def test_users_here_and_not_there():
    found = warnings([*labelled({"a": 30, "b": 30}, user="kim"), *labelled({"a": 2}, start=900)])
    assert "2 of 62 rows (3.2%) lack the `user`" in found["partial-users"].message


def test_blanks_around_all_generations_are_a_style_and_around_some_a_slip():
    rows = [{"prompt": f"p{index} q{index}", "completion": " x"} for index in range(60)]
    assert "padded-completions" not in warnings(rows)
    assert "padded-completions" in warnings([*rows, {"prompt": "last one", "completion": "x"}])


def test_lines_are_listed_briefly():
    assert lines_text([3]) == "line 3"
    assert lines_text(range(1, 9)) == "lines 1, 2, 3, 4, 5 and 3 more"

"""The report finds what was planted, and says nothing where nothing is."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from foreword.data.checking import check
from foreword.data.dataset import Dataset
from foreword.data.reading import from_rows
from foreword.data.report import DataReport, Lengths
from foreword.errors import ConfigError

SHARED = Path(__file__).parents[3] / "shared" / "data"
TOPICS = ["card", "loan", "rate", "fee", "app", "login", "branch", "limit", "transfer", "refund"]


def distinct_rows(count: int) -> list[dict[str, object]]:
    """Labelled rows that share no more than a word with each other."""
    return [{"text": " ".join(f"{TOPICS[i % 10]}{i}x{j}" for j in range(6)), "label": "ab"[i % 2]} for i in range(count)]


def codes(report: DataReport) -> set[str]:
    return {warned.code for warned in report.warnings}


def test_clean_data_have_no_warnings():
    rows = distinct_rows(80)
    report = check(from_rows(rows[:60]), from_rows(rows[60:]))
    assert report.warnings == () and report.leaks == ()
    assert report.train.labels == {"a": 30, "b": 30}
    assert json.loads(json.dumps(report.as_dict()))["train"]["rows"] == 60


def test_lengths_in_characters_and_tokens():
    data = from_rows([{"prompt": "x " * n, "completion": ["y", "y y y"], "system": "s s"} for n in range(1, 101)])
    report = check(data, count_tokens=lambda text: len(text.split()), window=100)
    assert report.train.prompt_chars == Lengths(minimum=5, median=103, p95=193, maximum=203)
    assert report.train.prompt_tokens == Lengths(minimum=3, median=52, p95=97, maximum=102)
    assert report.train.completion_tokens == Lengths(minimum=1, median=1, p95=3, maximum=3)
    assert report.train.completions == 200
    assert [(row.line, row.tokens) for row in report.train.too_long] == [(96, 101), (97, 102), (98, 103), (99, 104), (100, 105)]
    assert "too-long" in codes(report)


def test_each_distinct_text_is_tokenised_once():
    seen: list[str] = []
    check(from_rows([{"text": "same", "label": "x"}] * 50), count_tokens=lambda text: seen.append(text) or 1)
    assert sorted(seen) == ["same", "x"]


def test_duplicates_conflicts_and_near_duplicates():
    rows = distinct_rows(60)
    near = "please tell me at once where on earth my new bank card is now"
    rows += [rows[3], rows[3], {"text": rows[4]["text"], "label": "b"}, {"text": near, "label": "a"}, {"text": f"{near}!", "label": "b"}]
    report = check(from_rows(rows))
    train = report.train
    assert [group.lines for group in train.duplicates] == [(4, 61, 62)]
    assert [(group.lines, group.labels) for group in train.conflicts] == [((5, 63), ("a", "b"))]
    assert [(group.lines, group.labels) for group in train.near_duplicates] == [((64, 65), ("a", "b"))]
    assert (train.surplus_rows, train.repeated_prompts) == (2, 2)
    assert {"duplicates", "conflicting-labels", "near-duplicates-at-odds", "near-duplicates"} <= codes(report)


def test_several_answers_to_one_prompt_are_references_not_conflicts():
    report = check(from_rows([{"prompt": "name[Aromi]", "completion": f"answer {i}"} for i in range(60)]))
    assert report.train.conflicts == () and report.train.near_duplicates == ()
    assert report.train.repeated_prompts == 1


def test_one_prompt_may_have_other_labels_for_other_users():
    rows = [{"text": "play my song", "label": label, "user": user} for label, user in (("a", "kim"), ("b", "lee"))]
    assert check(from_rows(rows)).train.conflicts == ()
    assert len(check(from_rows([*rows, {"text": "play my song", "label": "b", "user": "kim"}])).train.conflicts) == 1


def test_leakage_exact_and_near():
    rows = distinct_rows(80)
    near = "please tell me at once where on earth my new bank card is now"
    train = from_rows([*rows[:60], {"text": near, "label": "a"}])
    dev = from_rows(
        [*rows[60:], {"text": rows[7]["text"], "label": "a"}, {"text": near.upper(), "label": "a"}, {"text": f"{near} ok", "label": "b"}]
    )
    report = check(train, dev)
    found = [(leak.dev_line, leak.train_line, leak.exact) for leak in report.leaks]
    assert found == [(21, 8, True), (22, 61, False), (23, 61, False)]
    assert report.leaks[1].similarity == 1.0 > report.leaks[2].similarity >= 0.8
    assert {"leakage", "near-leakage"} <= codes(report)


def test_leakage_reaches_equal_dev_rows_alike():
    near = "please tell me at once where on earth my new bank card is now"
    dev = from_rows([{"text": f"{near} ok", "label": "a"}, {"text": f"{near} OK.", "label": "a"}])
    assert [leak.dev_line for leak in check(from_rows([{"text": near, "label": "a"}]), dev).leaks] == [1, 2]


def test_system_text_does_not_make_rows_alike():
    system = "You route messages of a bank. " * 20
    rows = [{**row, "system": system} for row in distinct_rows(12)]
    assert check(from_rows(rows)).train.near_duplicates == ()


def test_odd_rows_are_listed():
    rows = [*distinct_rows(60), {"text": "?!", "label": "a"}, {"text": "fine words here", "label": "a "}]
    report = check(from_rows(rows))
    assert (report.train.nearly_empty, report.train.padded) == ((61,), (62,))
    assert {"nearly-empty", "padded-completions", "label-spelling", "rare-labels", "imbalance"} <= codes(report)


def test_skipped_rows_are_reported():
    report = check(from_rows([*distinct_rows(60), {"text": "lonely"}], on_bad="skip"))
    assert [skip.line for skip in report.train.skipped] == [61]
    assert "skipped-rows" in codes(report)


def test_options_that_do_not_fit():
    data = from_rows(distinct_rows(3))
    with pytest.raises(ConfigError, match="needs `count_tokens`"):
        check(data, window=10)
    with pytest.raises(ConfigError, match="`threshold` must be"):
        check(data, threshold=0)


def real(name: str) -> tuple[Dataset, Dataset]:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"evaluation data `{name}` are not on this machine")

    def rows(lines: list[str]) -> list[dict[str, object]]:
        parsed = [json.loads(line) for line in lines]
        return [{"text": row["text"], "label": row["intent"]} for row in parsed]

    with gzip.open(folder / "train.jsonl.gz", "rt", encoding="utf-8") as file:
        train = rows(file.readlines())
    return from_rows(train), from_rows(rows((folder / "dev.jsonl").read_text(encoding="utf-8").splitlines()))


def test_banking77_near_duplicates_and_planted_leakage():
    train, dev = real("banking77")
    clean = check(train, dev)
    assert len(clean.train.labels or {}) == 77
    assert len(clean.train.near_duplicates) > 50
    planted = [*dev.examples, *train.examples[100:103]]
    leaks = check(train, dev.with_examples(planted)).leaks
    assert len(leaks) == len(clean.leaks) + 3
    assert all(leak.exact and leak.similarity == 1.0 for leak in leaks[-3:])
    assert all(leak.similarity >= 0.8 for leak in leaks)

"""Fixes lose nothing that counts: round trips, splits without leakage, whole files or none."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.data.checking import check
from foreword.data.dataset import Dataset
from foreword.data.fixing import dedupe, split, write_jsonl
from foreword.data.reading import from_rows, read
from foreword.errors import ConfigError, DataError
from foreword.types import Example, Message

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=20)
ANSWER = TEXT.filter(lambda text: bool(text.strip()))
USER = st.none() | TEXT.filter(bool)


@st.composite
def conversations(draw: st.DrawFn) -> Example:
    turns = [Message(role="user", content=draw(TEXT))]
    for _ in range(draw(st.integers(0, 2))):
        turns += [Message(role="assistant", content=draw(TEXT)), Message(role="user", content=draw(TEXT))]
    if draw(st.booleans()):
        turns.insert(0, Message(role="system", content=draw(TEXT)))
    return Example(messages=tuple(turns), completions=tuple(draw(st.lists(ANSWER, min_size=1, max_size=3))), user=draw(USER))


@st.composite
def classified(draw: st.DrawFn) -> Example:
    turns = [Message(role="user", content=draw(TEXT))]
    if system := draw(TEXT):
        turns.insert(0, Message(role="system", content=system))
    return Example(messages=tuple(turns), completions=(draw(ANSWER),), user=draw(USER))


def numbered(rows: list[Example]) -> list[Example]:
    return [Example(messages=row.messages, completions=row.completions, user=row.user, line=line) for line, row in enumerate(rows, start=1)]


@given(rows=st.lists(conversations(), min_size=1, max_size=5), suffix=st.sampled_from([".jsonl", ".jsonl.gz"]))
def test_generation_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[Example], suffix: str):
    data = Dataset.of(numbered(rows))
    back = read(write_jsonl(data, tmp_path_factory.mktemp("out") / f"data{suffix}"))
    assert back.examples == data.examples
    assert (back.sha256, back.kind) == (data.sha256, "generation")


@given(rows=st.lists(classified(), min_size=1, max_size=5))
def test_classification_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[Example]):
    data = Dataset.of(numbered(rows), labels=sorted({row.completions[0] for row in rows}))
    back = read(write_jsonl(data, tmp_path_factory.mktemp("out") / "data.jsonl"), labels=data.labels)
    assert (back.examples, back.labels, back.sha256) == (data.examples, data.labels, data.sha256)


def test_a_simple_row_is_written_simply(tmp_path: Path):
    data = from_rows([{"prompt": "é", "completion": "c", "system": "s", "other": 1}])
    assert (
        write_jsonl(data, tmp_path / "a" / "b.jsonl").read_text(encoding="utf-8") == '{"system": "s", "prompt": "é", "completion": "c"}\n'
    )


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path):
    target = tmp_path / "data.jsonl"
    target.mkdir()
    (target / "kept").touch()
    with pytest.raises(DataError, match=r"cannot be written: .* is intact"):
        write_jsonl(from_rows([{"prompt": "p", "completion": "c"}]), target)
    assert [path.name for path in tmp_path.iterdir()] == ["data.jsonl"] and (target / "kept").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="file-size limits are POSIX")
def test_a_full_disk_leaves_the_old_file(tmp_path: Path):
    target = tmp_path / "data.jsonl"
    target.write_text("old")
    script = (
        "import resource, signal, sys\n"
        "from foreword.data import from_rows, write_jsonl\n"
        "from foreword.errors import DataError\n"
        "rows = from_rows([{'prompt': 'p' * 5000, 'completion': 'c'}])\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        "    write_jsonl(rows, sys.argv[1])\n"
        "except DataError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-B", "-c", script, str(target)], capture_output=True, text=True, check=True)
    assert "cannot be written: File too large" in done.stdout
    assert target.read_text() == "old" and list(tmp_path.iterdir()) == [target]


def test_dedupe_keeps_the_first_of_each():
    rows = [{"prompt": p, "completion": c, "user": u} for p, c, u in ("a1x", "a1x", "a2x", "b1x", "a1y", "a1x")]
    data = from_rows(rows)
    kept = dedupe(data)
    assert [row.line for row in kept] == [1, 3, 4, 5]
    assert dedupe(kept) is kept
    assert kept.sha256 != data.sha256
    assert check(kept).train.duplicates == ()


def test_dedupe_against_dev_drops_shared_prompts_whatever_the_answer():
    train = from_rows([{"prompt": p, "completion": "c"} for p in "abc"])
    assert [row.prompt for row in dedupe(train, against=from_rows([{"prompt": "b", "completion": "other"}]))] == ["a", "c"]
    with pytest.raises(DataError, match="No row of `memory` would be left"):
        dedupe(train, against=train)


def rows_with_kin(count: int) -> Dataset:
    """Labelled rows 3 to 1, every third with a near-duplicate and every fifth with the same prompt again."""
    rows = []
    for index in range(count):
        text = " ".join(f"w{index}v{word}" for word in range(12))
        label = "rare" if index % 4 == 0 else "common"
        rows.append({"text": text, "label": label})
        if index % 3 == 0:
            rows.append({"text": f"{text}! yes", "label": label})
        if index % 5 == 0:
            rows.append({"text": text, "label": label})
    return from_rows(rows)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_split_leaks_nothing_and_keeps_the_balance(share: float):
    data = rows_with_kin(200)
    parts = split(data, share, seed=5)
    assert parts.grouped_by == "near-duplicates"
    assert sorted(row.line for row in (*parts.train, *parts.dev)) == [row.line for row in data]
    assert [row.line for row in parts.dev] == sorted(row.line for row in parts.dev)
    assert len(parts.dev) == pytest.approx(share * len(data), abs=4)
    rare = {side: Counter(row.completions[0] for row in rows)["rare"] / len(rows) for side, rows in (("dev", parts.dev), ("all", data))}
    assert rare["dev"] == pytest.approx(rare["all"], abs=0.05)
    assert check(parts.train, parts.dev).leaks == ()


def test_split_depends_on_the_seed_alone():
    data = rows_with_kin(60)
    assert split(data, seed=1) == split(data, seed=1)
    assert split(data, seed=1).dev != split(data, seed=2).dev


@given(st.lists(st.sampled_from("abc"), min_size=2, max_size=12), st.floats(0.01, 0.5))
def test_small_splits_leave_both_sides_rows_and_every_label_in_training(labels: list[str], share: float):
    data = from_rows([{"text": f"t{index}a t{index}b", "label": label} for index, label in enumerate(labels)])
    if all(labels.count(label) == 1 for label in labels):
        with pytest.raises(DataError, match="too few distinct prompts"):
            split(data, share)
        return
    parts = split(data, share)
    assert len(parts.dev) > 0 and len(parts.train) >= len(parts.dev)
    assert {row.completions[0] for row in parts.train} == set(labels)


def test_many_small_labels_do_not_swell_the_dev_side():
    data = from_rows([{"text": f"t{index}a t{index}b", "label": f"label {index % 100}"} for index in range(400)])
    assert len(split(data, 0.1).dev) == 40


def test_chained_rows_are_split_by_prompt_and_it_is_said(caplog: pytest.LogCaptureFixture):
    words = [f"word{index}" for index in range(80)]
    rows = [{"prompt": " ".join(words[index : index + 30]), "completion": str(index)} for index in range(40)]
    with caplog.at_level(logging.WARNING):
        parts = split(from_rows(rows), 0.2)
    assert (parts.grouped_by, len(parts.dev)) == ("prompts", 8)
    assert "chain through most rows" in caplog.text


def test_what_cannot_be_split():
    with pytest.raises(DataError, match="too few distinct prompts"):
        split(from_rows([{"prompt": "p", "completion": str(index)} for index in range(20)]))
    with pytest.raises(DataError, match="fewer than two rows"):
        split(from_rows([{"prompt": "p", "completion": "c"}]))
    with pytest.raises(ConfigError, match=r"above 0 and at most 0.5; got 0.9"):
        split(rows_with_kin(10), 0.9)

"""Reading whole files: all bad rows are collected, labels are settled, small files are refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from foreword.data.reading import from_rows, read
from foreword.errors import ConfigError, DataError


def jsonl(tmp_path: Path, *rows: object, name: str = "data.jsonl") -> Path:
    path = tmp_path / name
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def labelled(*labels: object) -> list[dict[str, object]]:
    return [{"text": f"text {index}", "label": label} for index, label in enumerate(labels)]


def test_generation(tmp_path: Path):
    data = read(jsonl(tmp_path, {"prompt": "p", "completion": "c"}, {"prompt": "q", "refs": ["d", "e"]}))
    assert (data.kind, data.labels, len(data), data.skipped) == ("generation", None, 2, ())
    assert [(row.line, row.completions) for row in data] == [(1, ("c",)), (2, ("d", "e"))]
    assert data.path.endswith("data.jsonl")


def test_labels_are_in_natural_order(tmp_path: Path):
    assert read(jsonl(tmp_path, *labelled("b", "a", "b"))).labels == ("a", "b")
    assert read(jsonl(tmp_path, *labelled(10, 2, "x", 1))).labels == ("1", "2", "10", "x")


def test_given_labels_are_kept_in_their_order():
    assert from_rows(labelled("a", "b"), labels=["c", "b", "a"]).labels == ("c", "b", "a")
    assert from_rows(labelled(1), label_names=["no", "yes"]).labels == ("no", "yes")


def test_formats_give_the_same_hash(tmp_path: Path):
    rows = labelled("x", "y")
    as_list = tmp_path / "data.json"
    as_list.write_text(json.dumps(rows, indent=2))
    as_csv = tmp_path / "data.csv"
    as_csv.write_text("label;text\r\nx;text 0\r\n\r\ny;text 1\r\n")
    assert len({read(path).sha256 for path in (jsonl(tmp_path, *rows), as_list, as_csv)}) == 1


def test_every_bad_row_is_collected_and_ten_are_shown(tmp_path: Path):
    rows = ['{"broken"', *labelled(*["x"] * 3), {"text": "lonely"}, *[{"text": 5, "label": "x"}] * 12]
    with pytest.raises(DataError) as caught:
        read(jsonl(tmp_path, *rows))
    message = str(caught.value)
    assert "14 of 17 rows cannot be used" in message
    assert "line 1: invalid JSON at column 10" in message
    assert "line 5: missing field `label`" in message
    assert "line 13: " in message and "line 14: " not in message
    assert "and 4 more" in message and 'on_bad="skip"' in message


def test_bad_rows_are_skipped_on_request(tmp_path: Path):
    data = read(jsonl(tmp_path, "nonsense", *labelled("x", "y"), {"prompt": "p", "completion": "c"}), on_bad="skip")
    assert [row.line for row in data] == [2, 3]
    assert [skip.line for skip in data.skipped] == [1, 4]
    assert "mixed shapes" in data.skipped[1].reason


def test_skipping_everything_is_still_an_error(tmp_path: Path):
    with pytest.raises(DataError, match=r"2 of 2 rows cannot be used(.|\n)*No row is left"):
        read(jsonl(tmp_path, "nonsense", "more"), on_bad="skip")


@pytest.mark.parametrize("content", ["", "\n \n", "\ufeff"])
def test_empty_file(tmp_path: Path, content: str):
    path = tmp_path / "data.jsonl"
    path.write_text(content)
    with pytest.raises(DataError, match=r"data.jsonl` is empty: it has no rows. Give at least 2"):
        read(path, minimum=2)


def test_too_few_rows(tmp_path: Path):
    path = jsonl(tmp_path, {"prompt": "p", "completion": "c"})
    assert len(read(path)) == 1
    with pytest.raises(DataError, match="has 1 usable row; at least 2 are needed"):
        read(path, minimum=2)


def test_unknown_label_names_the_line(tmp_path: Path):
    with pytest.raises(DataError, match=r"line 2: unknown label 'positve'; .*did you mean `positive`"):
        read(jsonl(tmp_path, *labelled("negative", "positve")), labels=["negative", "positive"])


def test_labels_need_labelled_rows():
    with pytest.raises(DataError, match=r"holds prompt\+completion rows, and labels were given"):
        from_rows([{"prompt": "p", "completion": "c"}], labels=["a"])


def test_options_that_do_not_fit(tmp_path: Path):
    path = jsonl(tmp_path, *labelled("x"))
    with pytest.raises(ConfigError, match="`split` chooses a part of a Hugging Face data set"):
        read(path, split="train")
    with pytest.raises(ConfigError, match="`on_bad` must be"):
        read(path, on_bad="ignore")  # type: ignore[arg-type]

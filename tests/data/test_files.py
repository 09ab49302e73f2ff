"""Formats, encodings, line numbers and damage."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.data import files
from foreword.data.files import raw_rows
from foreword.errors import DataError

ROW = b'{"prompt": "p", "completion": "c"}'


def rows_of(tmp_path: Path, content: bytes | str, name: str = "data.jsonl") -> list[files.RawRow]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(raw_rows(path))


def test_jsonl_counts_lines_through_blanks_crlf_and_bom(tmp_path: Path):
    rows = rows_of(tmp_path, b"\xef\xbb\xbf" + ROW + b"\r\n\r\n  \n" + ROW)
    assert [(row.line, row.problem) for row in rows] == [(1, ""), (4, "")]
    assert rows[0].fields == {"prompt": "p", "completion": "c"}


def test_jsonl_is_split_at_line_feeds_alone(tmp_path: Path):
    rows = rows_of(tmp_path, '{"prompt": "a\u2028b\x85c", "completion": "c"}\n')
    assert [row.fields["prompt"] for row in rows if row.fields] == ["a\u2028b\x85c"]


def test_the_last_of_two_equal_keys_counts(tmp_path: Path):
    assert rows_of(tmp_path, '{"prompt": "a", "prompt": "b"}')[0].fields == {"prompt": "b"}


@pytest.mark.parametrize("name", ["data.jsonl.gz", "data.jsonl"])
def test_gzip_is_known_by_its_content(tmp_path: Path, name: str):
    assert len(rows_of(tmp_path, gzip.compress(ROW + b"\n" + ROW), name)) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"prompt": "p" "completion"}', "invalid JSON at column 16: Expecting ',' delimiter"),
        (b"[1, 2]", "must be a JSON object with named fields; got list"),
        (b"5", "got int"),
        (b'{"prompt": "caf\xe9"}', r"not UTF-8: byte 0xe9 at byte 50 of the file; .*iconv"),
        (b'{"prompt": "a\x00"}', "a NUL byte at byte 48 of the file"),
        (b'{"a":' * 200_000, "cannot be read|invalid JSON"),
        (b'{"a": ' + b"1" * 5000 + b"}", "cannot be read"),
    ],
)
def test_a_bad_line_is_named_and_the_next_is_read(tmp_path: Path, line: bytes, message: str):
    rows = rows_of(tmp_path, ROW + b"\n" + line + b"\n" + ROW + b"\n")
    assert [bool(row.problem) for row in rows] == [False, True, False]
    assert rows[1].line == 2
    assert re.search(message, rows[1].problem), rows[1].problem


def test_an_extremely_long_line_is_passed_over(tmp_path: Path):
    long = b'{"prompt": "' + b"x" * (files.MAX_LINE_BYTES + 3_000_000) + b'"}'
    rows = rows_of(tmp_path, long + b"\n" + ROW + b"\n\xff\n")
    assert rows[0].problem.startswith(f"the line is {len(long) + 1:,} bytes long")
    assert rows[1].fields is not None
    assert f"at byte {len(long) + 1 + len(ROW) + 1} of the file" in rows[2].problem


def test_json_list_gives_the_line_of_each_element(tmp_path: Path):
    rows = rows_of(tmp_path, '[\n{"a": 1},\n\n{"a":\n 2}, 7\n]\n', "data.json")
    assert [(row.line, row.fields) for row in rows] == [(2, {"a": 1}), (4, {"a": 2}), (5, None)]
    assert rows_of(tmp_path, "[ ]", "data.json") == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"a": 1},\n {"a" 2}]', r"line 2, column 7: invalid JSON list: Expecting ':'"),
        ('[{"a": 1}\n', "line 2, column 1: invalid JSON list: Expecting ',' or ']'"),
        ('[{"a": 1},]', "line 1, column 11: invalid JSON list: Expecting value"),
        ('[{"a": 1}] x', "Extra data after the list"),
        ("[", "Expecting value"),
    ],
)
def test_a_broken_json_list_is_located(tmp_path: Path, content: str, message: str):
    with pytest.raises(DataError, match=message):
        rows_of(tmp_path, content, "data.json")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_delimiter_is_found_though_the_prose_has_others(tmp_path: Path, delimiter: str):
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=delimiter)
    writer.writerows([["text", " label "], ["one, two; three | four\tfive", "x"], ["six\nseven", "y"], ["eight", "z"]])
    rows = rows_of(tmp_path, buffer.getvalue(), "data.csv")
    assert [(row.line, dict(row.fields or {})["label"]) for row in rows] == [(2, "x"), (3, "y"), (5, "z")]
    assert dict(rows[1].fields or {})["text"] == "six\nseven"


def test_csv_blank_rows_bom_and_tsv(tmp_path: Path):
    rows = rows_of(tmp_path, "\ufefftext\tlabel\r\n\r\na, b\tx\r\n", "data.tsv")
    assert [(row.line, row.fields) for row in rows] == [(3, {"text": "a, b", "label": "x"})]
    assert rows_of(tmp_path, "", "data.csv") == []


def test_csv_row_with_too_many_cells_is_named(tmp_path: Path):
    rows = rows_of(tmp_path, "text,label\nHello, you,x\nfine,y\n", "data.csv")
    assert [row.problem for row in rows] == ["3 cells under a header of 2; put quotes around cells with the delimiter", ""]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'text,label\n"open,x\n', "broken CSV: unexpected end of data"),
        (b"text,label,text\na,b,c\n", "names `text` twice"),
        (b"text,label\nok,x\ncaf\xe9,y\n", r"line 3: not UTF-8: byte 0xe9 at byte 19 of the file"),
        (b"text,label\na\x00,y\n", "line 2: a NUL byte at byte 12"),
        (b"text,label\n" + b"x" * 200_000 + b",y\n", "broken CSV: field larger than field limit.*want JSONL"),
    ],
)
def test_a_broken_csv_is_located(tmp_path: Path, content: bytes, message: str):
    with pytest.raises(DataError, match=message):
        rows_of(tmp_path, content, "data.csv")


@given(
    st.lists(st.tuples(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")), st.text("abc ,;\"'\n", min_size=1)))
)
def test_csv_round_trip(tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]):
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows([("text", "label"), *pairs])
    rows = rows_of(tmp_path_factory.mktemp("csv"), buffer.getvalue(), "data.csv")
    assert [tuple((row.fields or {}).values()) for row in rows] == [pair for pair in pairs if "".join(pair).strip()]


def test_files_that_cannot_be_opened(tmp_path: Path):
    with pytest.raises(DataError, match="There is no file"):
        list(raw_rows(tmp_path / "nowhere.jsonl"))
    with pytest.raises(DataError, match="is a folder"):
        list(raw_rows(tmp_path))


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (gzip.compress(json.dumps({"prompt": "x" * 500}).encode() * 90)[:-12], "a.jsonl.gz", "damaged or truncated gzip"),
        ('{"a": 1}'.encode("utf-16"), "a.jsonl", "is UTF-16"),
        (b"PAR1....", "a.parquet", "Cannot tell the format"),
    ],
)
def test_files_that_are_no_rows(tmp_path: Path, content: bytes, name: str, message: str):
    with pytest.raises(DataError, match=message):
        rows_of(tmp_path, content, name)


def test_an_unknown_suffix_is_read_by_content(tmp_path: Path):
    assert rows_of(tmp_path, ROW, "rows.txt")[0].fields is not None
    assert rows_of(tmp_path, b"[" + ROW + b"]", "rows")[0].fields is not None

"""Reading what a stranger wrote: every departure from the format is refused by name."""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword.errors import PrefixError, PrefixFileError
from foreword.prefix.artifact import Prefix
from foreword.prefix.header import read_header


def split(path: Path) -> tuple[dict[str, Any], bytes]:
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    return json.loads(raw[8 : 8 + length]), raw[8 + length :]


def join(path: Path, preamble: str | bytes | dict[str, Any], data: bytes, *, length: int | None = None) -> None:
    raw = json.dumps(preamble) if isinstance(preamble, dict) else preamble
    raw = raw.encode() if isinstance(raw, str) else raw
    path.write_bytes(struct.pack("<Q", len(raw) if length is None else length) + raw + data)


def with_header(preamble: dict[str, Any], change: Callable[[dict[str, Any]], None] | str) -> None:
    """Replaces the header and mends its checksum, as a hostile writer would."""
    if isinstance(change, str):
        text = change
    else:
        header = json.loads(preamble["__metadata__"]["foreword"])
        change(header)
        text = json.dumps(header)
    preamble["__metadata__"] = {"foreword": text, "foreword_sha256": hashlib.sha256(text.encode()).hexdigest()}


@pytest.fixture
def path(make_prefix, tmp_path) -> Path:
    target = tmp_path / "p.safetensors"
    make_prefix().save(target)
    return target


def refused(path: Path, words: str) -> None:
    with pytest.raises(PrefixFileError, match=words):
        read_header(path)
    with pytest.raises(PrefixFileError):
        Prefix.load(path, verify=False)


def test_a_sound_file_reads(path, make_prefix):
    assert read_header(path).digest == make_prefix().header.digest
    assert read_header(str(path)).name == "support"


def test_missing_folder_and_pipe(tmp_path):
    with pytest.raises(PrefixFileError, match="No such file"):
        read_header(tmp_path / "none")
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", ""):
        with pytest.raises(PrefixFileError, match="not a regular file"):
            read_header(tmp_path / name)


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 16 * 2**20 + 1])
def test_a_huge_length_is_refused_unread(path, length):
    preamble, data = split(path)
    join(path, preamble, data, length=length)
    refused(path, "at most")


def test_a_length_past_the_end(path):
    preamble, data = split(path)
    join(path, preamble, data, length=2 * path.stat().st_size)
    refused(path, "truncated")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 50_000, "nested too deeply"),
        ("[1, 2]", "not a JSON object"),
        ("null", "not a JSON object"),
        ("", "not valid JSON"),
        (b"\xff\xfe{}", "not valid JSON"),
        ('{"a": NaN}', "not valid JSON"),
        ('{"a": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"a": 1, "a": 2}', "appears twice"),
        ("{}", "metadata must hold"),
        ('{"__metadata__": {"format": "pt"}}', "another kind of safetensors"),
        ('{"__metadata__": {"foreword": 1, "foreword_sha256": "x"}}', "must be strings"),
        ('{"__metadata__": {"foreword": "\\ud800", "foreword_sha256": "x"}}', "checksum"),
    ],
)
def test_preambles_that_are_no_prefix(path, raw, words):
    join(path, raw, b"")
    refused(path, words)


def test_duplicate_tensor_names(path):
    preamble, data = split(path)
    text = json.dumps(preamble)
    join(path, text[:-1] + ', "key_LHND": ' + json.dumps(preamble["value_LHND"]) + "}", data)
    refused(path, "appears twice")


@pytest.mark.parametrize(
    ("label", "entry", "words"),
    [
        ("value_LHND", {"data_offsets": [0, 960]}, "overlap"),
        ("value_LHND", {"data_offsets": [1000, 1960]}, "overlap or leave gaps"),
        ("value_LHND", {"data_offsets": [960, 1921]}, "must span 960"),
        ("value_LHND", {"data_offsets": [1920, 960]}, "must span"),
        ("key_LHND", {"data_offsets": [-960, 0]}, "must span"),
        ("key_LHND", {"data_offsets": [False, 960]}, "must span"),
        ("key_LHND", {"data_offsets": [0.0, 960.0]}, "must span"),
        ("key_LHND", {"data_offsets": [0]}, "must span"),
        ("key_LHND", {"data_offsets": None}, "must span"),
        ("key_LHND", {"shape": [2, 3, 6, 8]}, "has shape"),
        ("key_LHND", {"shape": [2, 3, 5, 2**62]}, "has shape"),
        ("key_LHND", {"shape": "2358"}, "has shape"),
        ("key_LHND", {"shape": [240]}, "has shape"),
        ("key_LHND", {"dtype": "F64"}, "has dtype"),
        ("key_LHND", {"dtype": ["F32"]}, "has dtype"),
        ("key_LHND", {"more": 1}, "exactly"),
    ],
)
def test_entries_that_lie(path, label, entry, words):
    preamble, data = split(path)
    preamble[label] |= entry
    join(path, preamble, data)
    refused(path, words)


def test_entries_that_are_no_objects_missing_or_too_many(path):
    preamble, data = split(path)
    join(path, preamble | {"key_LHND": 3}, data)
    refused(path, "exactly")
    join(path, {key: value for key, value in preamble.items() if key != "key_LHND"}, data)
    refused(path, "it holds value_LHND")
    join(path, preamble | {"extra": preamble["key_LHND"]}, data)
    refused(path, "it holds extra")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda header: header.update(format_version=2), "version 2"),
        (lambda header: header.update(format_version=True), "version True"),
        (lambda header: header.pop("format_version"), "version None"),
        (lambda header: header.update(surprise=1), "surprise"),
        (lambda header: header.pop("digest"), "digest"),
        (lambda header: header.update(positions="5"), "positions"),
        (lambda header: header.update(positions=2**31), "positions"),
        (lambda header: header.update(positions=6), "has shape"),
        (lambda header: header.update(dtype="int8"), "must hold the tensors"),
        (lambda header: header["geometry"].update(layers=2**30), "has shape"),
        (lambda header: header["geometry"]["rotary"][0].update(layers=[7]), "outside"),
        (lambda header: header.update(name="../../etc/passwd"), "name"),
        ("[" * 100_000, "nested too deeply"),
        ("[]", "not a JSON object"),
        ('{"format_version": 1, "format_version": 1}', "appears twice"),
        ('{"format_version": 1, "recipe": ' + '{"a":' * 600 + "1" + "}" * 600 + "}", "not valid|nested too deeply"),
    ],
)
def test_headers_that_lie_even_with_a_right_checksum(path, change, words):
    preamble, data = split(path)
    with_header(preamble, change)
    join(path, preamble, data)
    refused(path, words)


def test_a_changed_header_without_a_right_checksum(path):
    preamble, data = split(path)
    preamble["__metadata__"]["foreword"] = preamble["__metadata__"]["foreword"].replace("0.01", "0.02")
    join(path, preamble, data)
    refused(path, "checksum")


def test_bytes_after_the_tensors(path):
    path.write_bytes(path.read_bytes() + b"x")
    refused(path, "1,921 follow")


@given(raw=st.binary(max_size=200), prefix_length=st.booleans())
def test_noise_is_refused_never_a_crash(tmp_path_factory, raw, prefix_length):
    path = tmp_path_factory.getbasetemp() / "noise.safetensors"
    path.write_bytes((struct.pack("<Q", len(raw)) if prefix_length else b"") + raw)
    with pytest.raises(PrefixFileError):
        read_header(path)


def test_what_could_not_be_read_back_is_not_written(make_prefix, tmp_path):
    deep: Any = 1
    for _ in range(5000):
        deep = [deep]
    with pytest.raises(PrefixError):
        make_prefix(recipe={"deep": deep}).save(tmp_path / "deep")
    with pytest.raises(PrefixError, match="Shorten it"):
        make_prefix(text_tail="x" * (16 * 2**20)).save(tmp_path / "long")
    with pytest.raises(PrefixError, match="cannot be"):
        make_prefix(text_tail="\ud800").save(tmp_path / "surrogate")
    assert list(tmp_path.iterdir()) == []

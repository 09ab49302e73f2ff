"""Bytes to rows: JSONL, CSV and JSON lists, packed with gzip or not. What a row means is decided in `rows.py`.

A row that cannot be parsed on its own is yielded with its problem, so that the reader can collect all of them. Damage that hides where
the next row starts (a truncated archive, an open quote, a broken JSON list) raises at once.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from foreword.data.rows import KNOWN_FIELDS, complete_shapes
from foreword.errors import DataError

MAX_LINE_BYTES = 16 * 1024 * 1024
"""A longer line is a bad row: most likely a file without line breaks."""

_BOM = b"\xef\xbb\xbf"
_DELIMITERS = (",", "\t", ";", "|")


@dataclass(frozen=True, slots=True, kw_only=True)
class RawRow:
    """One row as it stands in the file: its fields, or the problem that kept it from being parsed."""

    line: int
    fields: Mapping[str, object] | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    number: int
    offset: int
    content: bytes
    length: int


def raw_rows(path: Path) -> Iterator[RawRow]:
    """Rows of a `.jsonl`, `.json`, `.csv` or `.tsv` file, also with `.gz` after it. Blank lines are passed over.

    Raises:
        DataError: the file cannot be opened, unpacked or recognised, or is damaged beyond single rows.
    """
    with _opened(path) as file:
        suffix = next((s for s in reversed(path.suffixes) if s.lower() != ".gz"), "").lower()
        head = _head(file, path)
        if suffix in (".csv", ".tsv"):
            yield from _csv_rows(_whole_text(file, path), path, "\t" if suffix == ".tsv" else None)
        elif head.startswith(b"["):
            yield from _list_rows(_whole_text(file, path), path)
        elif not head or head.startswith(b"{") or suffix in (".jsonl", ".ndjson", ".json"):
            yield from _jsonl_rows(file)
        else:
            raise DataError(
                f"Cannot tell the format of `{path}`: the name ends in neither .jsonl, .json, .csv nor .tsv (.gz may follow), and the "
                "content starts with neither `{` nor `[`. Rename or convert it."
            )


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as raw:
            if raw.peek(2)[:2] == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=raw) as unpacked:
                    yield unpacked  # type: ignore[misc]  # a GzipFile is a binary file in all that is used here
            else:
                yield raw
    except FileNotFoundError as error:
        raise DataError(f"There is no file `{path}`. Check the path; it is relative to {Path.cwd()}.") from error
    except IsADirectoryError as error:
        raise DataError(f"`{path}` is a folder. Give one file of rows, or `hf:{path}` for a folder of Hugging Face data.") from error
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"`{path}` is a damaged or truncated gzip file ({error}). Fetch or pack it again.") from error
    except OSError as error:
        raise DataError(f"`{path}` cannot be read: {error.strerror or error}.") from error


def _head(file: IO[bytes], path: Path) -> bytes:
    """The first bytes with something in them, BOM and blanks removed; the file stays where it is."""
    head = file.peek(4096)[:4096]  # type: ignore[attr-defined]  # BufferedReader and GzipFile both have it
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"`{path}` is UTF-16. Save it as UTF-8 (for example `iconv -f utf-16 -t utf-8`).")
    return head.removeprefix(_BOM).lstrip()


def _lines(file: IO[bytes]) -> Iterator[_Line]:
    """Lines split at \\n alone: JSON strings may hold U+2028, which `str.splitlines` would cut at."""
    number = offset = 0
    while content := file.readline(MAX_LINE_BYTES + 1):
        number += 1
        length = len(content)
        if length > MAX_LINE_BYTES and not content.endswith(b"\n"):
            while not content.endswith(b"\n") and (content := file.readline(1 << 20)):
                length += len(content)
            content = b""
        yield _Line(number=number, offset=offset, content=content, length=length)
        offset += length


def _jsonl_rows(file: IO[bytes]) -> Iterator[RawRow]:
    for line in _lines(file):
        content = line.content.removeprefix(_BOM) if line.number == 1 else line.content
        shift = line.offset + len(line.content) - len(content)
        if line.length > MAX_LINE_BYTES:
            problem = f"the line is {line.length:,} bytes long, the limit is {MAX_LINE_BYTES:,}; is a line break missing?"
            yield RawRow(line=line.number, problem=problem)
        elif problem := _byte_problem(content, shift):
            yield RawRow(line=line.number, problem=problem)
        elif text := content.decode("utf-8").strip():
            yield _object_row(text, line.number)


def _byte_problem(content: bytes, offset: int) -> str:
    """Why these bytes are no UTF-8 text, or an empty string. `offset` is where they start in the (unpacked) file."""
    if (position := content.find(b"\x00")) >= 0:
        return f"a NUL byte at byte {offset + position} of the file; remove it (is the file UTF-16 or damaged?)"
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        return (
            f"not UTF-8: byte 0x{content[error.start]:02x} at byte {offset + error.start} of the file; save the file as UTF-8 "
            "(for example `iconv -f latin1 -t utf-8`)"
        )
    return ""


def _object_row(text: str, line: int) -> RawRow:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        return RawRow(line=line, problem=f"invalid JSON at column {error.colno}: {error.msg}; a line must be one JSON object")
    except (ValueError, RecursionError) as error:  # an integer with thousands of digits; nesting without end
        return RawRow(line=line, problem=f"JSON that cannot be read: {error}")
    return _as_row(value, line)


def _as_row(value: object, line: int) -> RawRow:
    if isinstance(value, dict):
        return RawRow(line=line, fields=value)
    return RawRow(line=line, problem=f"a row must be a JSON object with named fields; got {type(value).__name__}")


def _whole_text(file: IO[bytes], path: Path) -> str:
    content = file.read()
    start = len(_BOM) if content.startswith(_BOM) else 0
    offset = start
    if not _byte_problem(content[start:], start):
        return content[start:].decode("utf-8")
    for number, line in enumerate(content[start:].split(b"\n"), start=1):
        if problem := _byte_problem(line, offset):
            raise DataError(f"`{path}`, line {number}: {problem}.")
        offset += len(line) + 1
    raise AssertionError("a byte problem lies on one line: UTF-8 sequences never span a line feed")


def _list_rows(text: str, path: Path) -> Iterator[RawRow]:
    """Elements of a JSON list with the line that each starts on."""
    decoder = json.JSONDecoder()
    position, line, counted = _past_blanks(text, text.index("[") + 1), 1, 0
    try:
        separator = "]" if text[position : position + 1] == "]" else ","
        while separator == ",":
            line, counted = line + text.count("\n", counted, position), position
            value, position = decoder.raw_decode(text, position)
            yield _as_row(value, line)
            position = _past_blanks(text, position)
            separator = text[position : position + 1]
            if separator not in (",", "]") or not separator:
                raise json.JSONDecodeError("Expecting ',' or ']'", text, position)
            position = _past_blanks(text, position + 1) if separator == "," else position
        if text[position + 1 :].strip():
            raise json.JSONDecodeError("Extra data after the list", text, position + 1)
    except json.JSONDecodeError as error:
        raise DataError(f"`{path}`, line {error.lineno}, column {error.colno}: invalid JSON list: {error.msg}. Mend it there.") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"`{path}`, line {line}: JSON that cannot be read: {error}.") from error


def _past_blanks(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _csv_rows(text: str, path: Path, delimiter: str | None) -> Iterator[RawRow]:
    if not text.strip():
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter or _sniffed(text), strict=True)
    try:
        header = [name.strip() for name in next(row for row in reader if any(cell.strip() for cell in row))]
        if twice := sorted({name for name in header if header.count(name) > 1 and name in KNOWN_FIELDS}):
            raise DataError(f"`{path}`: the header names `{twice[0]}` twice. Rename or remove one of the columns.")
        start = reader.line_num + 1
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield _csv_row(header, cells, start)
            start = reader.line_num + 1
    except csv.Error as error:
        raise DataError(
            f"`{path}`, line {reader.line_num}: broken CSV: {error}. Check the quotes there; cells over {csv.field_size_limit():,} "
            "characters want JSONL."
        ) from error


def _csv_row(header: list[str], cells: list[str], line: int) -> RawRow:
    if len(cells) != len(header):
        return RawRow(line=line, problem=f"{len(cells)} cells under a header of {len(header)}; put quotes around cells with the delimiter")
    return RawRow(line=line, fields=dict(zip(header, cells, strict=True)))


def _sniffed(text: str) -> str:
    """The delimiter under which the header has the fields of a known row shape, or else the most columns.

    `csv.Sniffer` guesses from character counts and is often wrong on prose; here the wanted header is known.
    """

    def fit(delimiter: str) -> tuple[bool, int]:
        try:
            header = next(csv.reader(io.StringIO(text.lstrip(), newline=""), delimiter=delimiter))
        except csv.Error:
            return (False, 0)
        return (bool(complete_shapes(dict.fromkeys((name.strip() for name in header), "x"))), len(header))

    return max(_DELIMITERS, key=fit)

"""The start of a prefix file: 8 bytes of length, then JSON. Reaches no torch.

A prefix file is one `.safetensors` file: the preamble's length (unsigned, little-endian), the preamble, the tensors' bytes. The
preamble's `__metadata__` holds two strings: `foreword`, the header as JSON, and `foreword_sha256`, the checksum of that string.
Reading is strict, because a prefix may come from a stranger: anything that the format does not name is an error.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import struct
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from pydantic import ValidationError

from foreword.errors import PrefixError, PrefixFileError
from foreword.prefix.header import FORMAT_VERSION, SIZES, PrefixHeader, TensorSpec, describe

MAX_BYTES = 16 * 2**20
METADATA_KEY = "foreword"
CHECKSUM_KEY = "foreword_sha256"


def read(path: str | os.PathLike[str]) -> PrefixHeader:
    """The header of a prefix file; see `foreword.prefix.header.read_header`."""
    source = Path(path)
    try:
        with _open_regular(source) as file:
            size = os.fstat(file.fileno()).st_size
            raw = _read_raw(file, size, source)
    except OSError as error:
        raise PrefixFileError(f"Cannot read prefix file {source}: {error.strerror or error}. Check the path.") from error
    return parse(raw, size - 8 - len(raw), source)


def parse(raw: bytes, data_bytes: int, path: Path) -> PrefixHeader:
    """The header inside a safetensors preamble, checked against the `data_bytes` that follow it.

    Raises:
        PrefixFileError: see `read`.
    """
    preamble = _strict_json(raw, path, "preamble")
    metadata = preamble.pop("__metadata__", None)
    if not isinstance(metadata, dict) or set(metadata) != {METADATA_KEY, CHECKSUM_KEY}:
        _refuse(path, f"its metadata must hold exactly `{METADATA_KEY}` and `{CHECKSUM_KEY}`; it may be another kind of safetensors file")
    header = _parse_metadata(metadata, path)
    _check_tensors(preamble, header, data_bytes, path)
    return header


def build(header: PrefixHeader) -> tuple[bytes, list[str]]:
    """The preamble of a prefix file (with its 8 length bytes), and the order in which the tensors follow it.

    Wider dtypes come first and the preamble's length is a multiple of 8, so that every tensor is aligned when memory-mapped. The
    bytes depend on the header alone.

    Raises:
        PrefixError: the header cannot be written, e.g. a text that is no valid Unicode.
    """
    specs = header.file_tensors()
    order = sorted(specs, key=lambda name: (-SIZES[specs[name].tag], name))
    try:
        text = header.model_dump_json()
        checksum = hashlib.sha256(text.encode()).hexdigest()
    except ValueError as error:
        raise PrefixError(f"The header of prefix `{header.name}` cannot be written as JSON: {error}.") from error
    entries: dict[str, Any] = {"__metadata__": {METADATA_KEY: text, CHECKSUM_KEY: checksum}}
    start = 0
    for name in order:
        end = start + specs[name].nbytes
        entries[name] = {"dtype": specs[name].tag, "shape": list(specs[name].shape), "data_offsets": [start, end]}
        start = end
    raw = json.dumps(entries, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    if len(raw) > MAX_BYTES:
        raise PrefixError(f"The header of prefix `{header.name}` takes {len(raw):,} bytes; at most {MAX_BYTES:,} are allowed. Shorten it.")
    parse(raw, start, Path(header.name))
    return struct.pack("<Q", len(raw)) + raw, order


def _refuse(path: Path, reason: str) -> NoReturn:
    raise PrefixFileError(f"{path} is not a sound prefix file: {reason}. Take a fresh copy, or make the prefix again.")


def _open_regular(path: Path) -> BinaryIO:
    if path.exists() and not stat.S_ISREG(path.stat().st_mode):
        _refuse(path, "it is not a regular file")
    return path.open("rb")


def _read_raw(file: BinaryIO, size: int, path: Path) -> bytes:
    lead = file.read(8)
    if len(lead) < 8:
        _refuse(path, f"it has {len(lead)} bytes, fewer than the 8 that give the preamble's length")
    (length,) = struct.unpack("<Q", lead)
    if length > MAX_BYTES:
        _refuse(path, f"its preamble claims {length:,} bytes; at most {MAX_BYTES:,} are allowed")
    raw = file.read(length)
    if length > size - 8 or len(raw) < length:
        _refuse(path, f"its preamble claims {length:,} bytes but only {len(raw):,} follow; the file is truncated")
    return raw


def _strict_json(raw: str | bytes, path: Path, what: str) -> dict[str, Any]:
    def no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        unique = dict(pairs)
        if len(unique) != len(pairs):
            raise ValueError("a key appears twice")
        return unique

    def no_constant(text: str) -> NoReturn:
        raise ValueError(f"{text} is not JSON")

    try:
        text = raw.decode("utf-8") if isinstance(raw, bytes) else raw
        value = json.loads(text, object_pairs_hook=no_duplicates, parse_constant=no_constant)
    except RecursionError:
        _refuse(path, f"its {what} is nested too deeply")
    except ValueError as error:
        _refuse(path, f"its {what} is not valid JSON ({error})")
    if not isinstance(value, dict):
        _refuse(path, f"its {what} is not a JSON object")
    return value


def _parse_metadata(metadata: dict[str, Any], path: Path) -> PrefixHeader:
    text, checksum = metadata[METADATA_KEY], metadata[CHECKSUM_KEY]
    if not isinstance(text, str) or not isinstance(checksum, str):
        _refuse(path, "its metadata must be strings")
    if hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest() != checksum:
        _refuse(path, "its header does not match the header's checksum; the file was altered")
    version = _strict_json(text, path, "header").get("format_version")
    if version != FORMAT_VERSION or isinstance(version, bool):
        _refuse(path, f"it has format version {version!r} and this Foreword reads version {FORMAT_VERSION}; a newer Foreword may read it")
    try:
        return PrefixHeader.model_validate_json(text, strict=True)
    except (ValidationError, UnicodeEncodeError) as error:
        _refuse(path, f"its header is not valid: {describe(error) if isinstance(error, ValidationError) else error}")


def _check_tensors(entries: dict[str, Any], header: PrefixHeader, data_bytes: int, path: Path) -> None:
    specs = header.file_tensors()
    if set(entries) != set(specs):
        _refuse(path, f"it must hold the tensors {', '.join(specs)}; it holds {', '.join(sorted(entries))[:200] or 'none'}")
    spans = sorted((*_span(name, entries[name], spec, path), name) for name, spec in specs.items())
    expected = 0
    for start, end, name in spans:
        if start != expected:
            _refuse(path, f"tensor `{name}` starts at byte {start}, not at {expected}; tensors must not overlap or leave gaps")
        expected = end
    if expected != data_bytes:
        _refuse(path, f"its tensors take {expected:,} bytes but {data_bytes:,} follow the preamble; the file is truncated or too long")


def _span(name: str, entry: Any, spec: TensorSpec, path: Path) -> tuple[int, int]:
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        _refuse(path, f"the entry of tensor `{name}` must hold exactly dtype, shape and data_offsets")
    if entry["dtype"] != spec.tag:
        _refuse(path, f"tensor `{name}` has dtype {entry['dtype']!r}; the header says {spec.tag}")
    if not _integers(entry["shape"]) or tuple(entry["shape"]) != spec.shape:
        _refuse(path, f"tensor `{name}` has shape {str(entry['shape'])[:80]}; the header says {list(spec.shape)}")
    offsets = entry["data_offsets"]
    if not _integers(offsets) or len(offsets) != 2 or offsets[0] < 0 or offsets[1] - offsets[0] != spec.nbytes:
        _refuse(path, f"tensor `{name}` has data_offsets {str(offsets)[:80]}; they must span {spec.nbytes} bytes")
    return offsets[0], offsets[1]


def _integers(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int for item in value)

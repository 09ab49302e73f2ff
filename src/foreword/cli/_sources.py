"""Texts from files and from standard input."""

from __future__ import annotations

import sys
from pathlib import Path

from foreword.errors import DataError

STDIN = "-"


def read_text(source: str) -> str:
    """The text of a file or of standard input.

    Raises:
        DataError: there is no such file, it is empty, or it is not UTF-8 text.
    """
    shown = "standard input" if source == STDIN else f"`{source}`"
    try:
        content = sys.stdin.buffer.read() if source == STDIN else Path(source).read_bytes()
    except FileNotFoundError:
        raise DataError(f"There is no file {shown}. Check the path; it is relative to {Path.cwd()}.") from None
    except OSError as error:
        raise DataError(f"{shown} cannot be read: {error.strerror or error}.") from error
    if (position := content.find(b"\x00")) >= 0:
        raise DataError(f"{shown} is no text: it has a NUL byte at byte {position:,}. Give a UTF-8 text file.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{shown} is not UTF-8: byte 0x{error.object[error.start]:02x} at byte {error.start:,}. Save it as UTF-8, for example with "
            "`iconv -f latin1 -t utf-8`."
        ) from error
    if not text.strip():
        raise DataError(f"{shown} is empty: there is no text in it.")
    return text

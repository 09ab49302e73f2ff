"""`sql`: a query of a SQLite file that can only read.

Two walls, each of which would do against writing: the file is opened read-only, and SQLite asks an authorizer about every part of a
statement before it runs, which allows `SELECT` and what that needs (no `ATTACH`, no `PRAGMA`, no extensions). What a query may take is
bounded too: its time, its rows, and the size of any text or blob on the way.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foreword.agent.detached import Detached
from foreword.errors import ConfigError, ToolError
from foreword.prompting.tool import MOST_CHARACTERS, Tool

MOST_SCHEMA = 4_000
"""Characters of the tables' definitions that the model is told."""
MOST_CELL = 500
"""Characters of one value."""
_STEPS = 1_000
"""Steps of SQLite's machine between two looks at the clock."""
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 20_000,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    sqlite3.SQLITE_LIMIT_COMPOUND_SELECT: 50,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
}
_ALLOWED = frozenset({sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE})
_FORBIDDEN_FUNCTIONS = frozenset({"load_extension", "readfile", "writefile", "edit", "fts3_tokenizer"})


def make(
    *, path: str, most_rows: int = 50, seconds: float = 5.0, most_characters: int = MOST_CHARACTERS, name: str = "sql", about: str = ""
) -> Tool:
    """The tool.

    Args:
        path: of the SQLite file.
        most_rows: given of a result.
        seconds: after which a query is stopped.
        about: what is in the file, for the model; its tables and their columns are told anyway.

    Raises:
        ConfigError: there is no such file, it is no SQLite file, or a number cannot be used.
    """
    file = Path(path).absolute()
    if most_rows < 1 or seconds <= 0:
        raise ConfigError(f"`most_rows` must be 1 or more and `seconds` more than 0; got {most_rows} and {seconds:g}.")
    schema = _schema(file)
    threads = Detached(name)

    async def call(arguments: Mapping[str, Any]) -> str:
        query = arguments.get("query")
        if not isinstance(query, str) or not query.strip() or set(arguments) != {"query"}:
            raise ToolError(f'`{name}` takes one argument, a text: {{"query": "SELECT 1"}}.')
        stopped = threading.Event()
        try:
            return await threads.call(_answered, file, query, most_rows, seconds, stopped)
        finally:
            stopped.set()  # a query whose caller is gone ends at its next step

    return Tool(
        name=name,
        description=f"Runs one SQL query (SQLite's dialect, reading only) and gives its rows. {about} Tables: {schema}".replace("  ", " "),
        parameters={
            "type": "object",
            "properties": {"query": {"type": "string", "description": "One SELECT statement"}},
            "required": ["query"],
            "additionalProperties": False,
        },
        call=call,
        seconds=seconds + 2,
        most_characters=most_characters,
    )


def _connected(file: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=1.0, isolation_level=None)


def _schema(file: Path) -> str:
    if not file.is_file():
        raise ConfigError(f"There is no file {file}. Give `path`, that of a SQLite file.")
    try:
        connection = _connected(file)
        try:
            rows = connection.execute(
                "SELECT sql FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%'"
            ).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise ConfigError(f"{file} cannot be read as a SQLite file: {error}.") from None
    told = "; ".join(" ".join(str(sql).split()) for (sql,) in rows)
    return told if len(told) <= MOST_SCHEMA else f"{told[:MOST_SCHEMA]} [cut; ask sqlite_master for the rest]"


def _answered(file: Path, query: str, most_rows: int, seconds: float, stopped: threading.Event) -> str:
    deadline = time.monotonic() + seconds
    connection = None
    try:
        connection = _connected(file)
        for limit, value in _LIMITS.items():
            connection.setlimit(limit, value)
        connection.set_authorizer(_authorized)
        connection.set_progress_handler(lambda: int(stopped.is_set() or time.monotonic() > deadline), _STEPS)
        cursor = connection.execute(query)
        if cursor.description is None:
            raise ToolError("That is no query. Write one SELECT statement.")
        rows = cursor.fetchmany(most_rows + 1)
        return _told([column[0] for column in cursor.description], rows, most_rows)
    except sqlite3.DatabaseError as error:
        if str(error) == "interrupted":
            raise ToolError(f"The query took longer than {seconds:g} seconds and was stopped. Ask for less.") from None
        if "authoriz" in str(error) or "prohibited" in str(error):
            raise ToolError("That is not allowed: the tool can only read, with one SELECT statement and without pragmas.") from None
        raise ToolError(f"SQLite says: {error}. Mend the query: {_first(query)}") from None
    except (sqlite3.Error, sqlite3.Warning, UnicodeError) as error:
        raise ToolError(f"SQLite says: {error}. Write one SELECT statement.") from None
    finally:
        if connection is not None:
            connection.close()


def _authorized(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    if action not in _ALLOWED:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _FORBIDDEN_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _told(columns: list[str], rows: list[tuple[Any, ...]], most_rows: int) -> str:
    lines = [" | ".join(columns), *(" | ".join(map(_cell, row)) for row in rows[:most_rows])]
    count = f"(the first {most_rows} rows; there are more)" if len(rows) > most_rows else f"({len(rows)} rows)"
    return "\n".join([*lines, count])


def _cell(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"<{len(value):,} bytes>"
    text = str(value)
    return text if len(text) <= MOST_CELL else f"{text[:MOST_CELL]}[cut: {len(text) - MOST_CELL:,} more characters]"


def _first(query: str) -> str:
    line = " ".join(query.split())
    return line if len(line) <= 200 else f"{line[:200]}…"

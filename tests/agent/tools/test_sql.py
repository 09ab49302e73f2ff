"""Queries of a real SQLite file, which stays as it was."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from foreword.agent.tools import sql
from foreword.errors import ConfigError
from foreword.prompting.tool import Observation, Tool, Tools


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    path = tmp_path / "the shop?.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE teas (name TEXT, price REAL)")
        connection.executemany("INSERT INTO teas VALUES (?, ?)", [("oolong", 7.5), ("sencha", 5), ("mate", None)])
        connection.execute("CREATE TABLE numbers (n INTEGER)")
        connection.executemany("INSERT INTO numbers VALUES (?)", [(n,) for n in range(1_000)])
        connection.execute("CREATE VIEW dear AS SELECT * FROM teas WHERE price > 6")
    return path


def called(made: Tool, arguments: str | dict[str, Any]) -> Observation:
    return asyncio.run(Tools.of([made]).call(made.name, arguments))


def asked(path: Path, query: str, **settings: Any) -> Observation:
    return called(sql.make(path=str(path), **settings), {"query": query})


def test_rows_are_given(shop: Path) -> None:
    assert asked(shop, "SELECT name, price FROM teas ORDER BY name") == Observation(
        text="name | price\nmate | NULL\noolong | 7.5\nsencha | 5.0\n(3 rows)"
    )
    assert asked(shop, "SELECT count(*) AS n FROM dear").text == "n\n1\n(1 rows)"
    assert (
        asked(shop, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c WHERE x<3) SELECT sum(x) FROM c;").text
        == "sum(x)\n6\n(1 rows)"
    )


def test_the_model_is_told_of_the_tables(shop: Path) -> None:
    made = sql.make(path=str(shop), about="The shop's teas.")
    assert "The shop's teas." in made.description
    assert "CREATE TABLE teas (name TEXT, price REAL)" in made.description
    assert "CREATE VIEW dear" in made.description


WRITES = [
    "INSERT INTO teas VALUES ('x', 1)",
    "UPDATE teas SET price = 0",
    "DELETE FROM teas",
    "DROP TABLE teas",
    "CREATE TABLE x (a)",
    "CREATE TEMP TABLE x (a)",
    "ALTER TABLE teas ADD COLUMN x",
    "VACUUM",
    "REINDEX",
    "ATTACH ':memory:' AS other",
    "ATTACH '/etc/passwd' AS other",
    "PRAGMA table_info(teas)",
    "PRAGMA writable_schema = 1",
    "SELECT * FROM pragma_table_info('teas')",
    "SELECT load_extension('x')",
    "BEGIN",
    "SAVEPOINT a",
    "WITH x AS (SELECT 1) DELETE FROM teas",
    "EXPLAIN DELETE FROM teas",
    "SELECT 1; DELETE FROM teas",
    "INSERT INTO teas SELECT * FROM teas RETURNING name",
]


@pytest.mark.parametrize("query", WRITES)
def test_whatever_is_no_select_is_refused_and_changes_nothing(shop: Path, query: str) -> None:
    before = hashlib.sha256(shop.read_bytes()).digest()
    found = asked(shop, query)
    assert not found.ok
    assert "SELECT" in found.text
    assert hashlib.sha256(shop.read_bytes()).digest() == before
    assert list(shop.parent.iterdir()) == [shop]


@pytest.mark.parametrize("query", WRITES)
def test_the_file_alone_would_not_let_itself_be_changed(shop: Path, query: str) -> None:
    before = hashlib.sha256(shop.read_bytes()).digest()
    with closing(sql._connected(shop)) as connection, suppress(sqlite3.Error, sqlite3.Warning):
        connection.execute(query).fetchall()
    assert hashlib.sha256(shop.read_bytes()).digest() == before


@pytest.mark.parametrize("query", ["SELECT * FROM coffees", "SELEC 1", "SELECT nme FROM teas", "", ";", "-- nothing", "SELECT '\x00'"])
def test_a_query_that_is_wrong_is_told(shop: Path, query: str) -> None:
    found = asked(shop, query)
    assert "SELECT" in found.text or "SQLite says" in found.text or found.ok


def test_no_copy_of_the_file_is_written(shop: Path) -> None:
    copy = shop.parent / "copy.db"
    assert not asked(shop, f"VACUUM INTO '{copy}'").ok
    assert not copy.exists()


def test_an_endless_query_is_stopped(shop: Path) -> None:
    found = asked(shop, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT max(x) FROM c", seconds=0.1)
    assert (found.ok, "longer than 0.1 seconds" in found.text) == (False, True)
    found = asked(shop, "SELECT count(*) FROM numbers a, numbers b, numbers c, numbers d", seconds=0.1)
    assert not found.ok


@pytest.mark.parametrize("query", ["SELECT zeroblob(1000000000)", "SELECT printf('%1000000000d', 1)", "SELECT hex(zeroblob(900000))"])
def test_a_value_without_end_is_refused(shop: Path, query: str) -> None:
    found = asked(shop, query)
    assert len(found.text) < 1_000


def test_of_many_rows_the_first_are_given(shop: Path) -> None:
    found = asked(shop, "SELECT n FROM numbers ORDER BY n", most_rows=3)
    assert found.text == "n\n0\n1\n2\n(the first 3 rows; there are more)"


def test_long_values_and_bytes_are_cut(shop: Path) -> None:
    found = asked(shop, "SELECT replace(hex(zeroblob(5000)), '0', 'x') AS long, zeroblob(12) AS bytes")
    assert "9,500 more characters]" in found.text
    assert "<12 bytes>" in found.text


def test_what_another_program_writes_is_seen(shop: Path) -> None:
    made = sql.make(path=str(shop))
    with closing(sqlite3.connect(shop)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("INSERT INTO teas VALUES ('assam', 4)")
        connection.commit()
        assert "assam" in called(made, {"query": "SELECT name FROM teas"}).text


@pytest.mark.parametrize("arguments", [{}, {"query": " "}, {"query": 1}, {"query": "SELECT 1", "path": "/etc/passwd"}])
def test_other_arguments_are_refused(shop: Path, arguments: dict[str, Any]) -> None:
    assert not called(sql.make(path=str(shop)), arguments).ok


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="There is no file"):
        sql.make(path=str(tmp_path / "none.db"))
    assert not (tmp_path / "none.db").exists()
    (tmp_path / "notes.txt").write_text("tea " * 1_000)
    with pytest.raises(ConfigError, match="cannot be read as a SQLite file"):
        sql.make(path=str(tmp_path / "notes.txt"))
    with pytest.raises(ConfigError, match="`most_rows`"):
        sql.make(path=str(tmp_path / "none.db"), most_rows=0)

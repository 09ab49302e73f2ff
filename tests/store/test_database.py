"""Tables written behind: batches, kills, bad rows, and the same on SQLite and PostgreSQL."""

import os
import signal
import subprocess
import sys
import textwrap
import threading

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, func, select

from foreword.errors import ConfigError, StoreError
from foreword.store.database import Database, Writer, open_database

METADATA = MetaData()
ROWS = Table("rows", METADATA, Column("id", Integer, primary_key=True), Column("text", String(8), nullable=False))


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    place = tmp_path / "new" / "rows.sqlite" if request.param == "sqlite" else request.getfixturevalue("postgres_url")
    database = open_database(place)
    database.create(METADATA)
    yield database
    if request.param == "postgresql":
        METADATA.drop_all(database._engine)
    database.close()


def count(database: Database) -> int:
    with database.reading() as connection:
        return connection.execute(select(func.count()).select_from(ROWS)).scalar_one()


def test_what_was_added_is_there_after_a_flush(database):
    writer = Writer(database)
    for number in range(5_000):
        writer.add(ROWS, {"id": number, "text": "tea"})
    writer.flush()
    assert count(database) == 5_000
    assert (writer.written, writer.lost) == (5_000, 0)
    writer.close()


def test_rows_from_many_threads(database):
    writer = Writer(database)

    def add(start: int) -> None:
        for number in range(start, start + 200):
            writer.add(ROWS, {"id": number, "text": "tea"})

    threads = [threading.Thread(target=add, args=(start,)) for start in range(0, 1_600, 200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert count(database) == 1_600


def test_one_bad_row_takes_no_other_with_it(database, monkeypatch, caplog):
    monkeypatch.setattr("foreword.store.database.RETRY_SECONDS", ())
    writer = Writer(database)
    for number in (1, 2, 2, 3):
        writer.add(ROWS, {"id": number, "text": "secret"})
    writer.flush()
    assert count(database) == 3
    assert writer.lost == 1
    assert "lost" in caplog.text
    assert "secret" not in caplog.text
    writer.close()


def test_a_transaction_is_undone_by_an_exception(database):
    with pytest.raises(ZeroDivisionError), database.writing() as connection:
        connection.execute(ROWS.insert(), [{"id": 1, "text": "tea"}])
        raise ZeroDivisionError
    assert count(database) == 0


def test_another_kind_of_url_is_refused():
    with pytest.raises(ConfigError, match="mysql"):
        open_database("mysql://host/db")


def test_a_server_that_is_not_there_is_told_without_the_password():
    with pytest.raises(StoreError) as raised:
        open_database("postgresql://me:hunter2@127.0.0.1:1/none").create(METADATA)
    assert "hunter2" not in str(raised.value)


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be made"):
        open_database(tmp_path / "file" / "rows.sqlite")


def test_a_file_that_is_no_database(tmp_path):
    (tmp_path / "rows.sqlite").write_bytes(b"not a database at all, but long enough to be read as one" * 20)
    with pytest.raises(StoreError):
        open_database(tmp_path / "rows.sqlite").create(METADATA)


def test_a_kill_loses_nothing_that_was_flushed_and_leaves_nothing_half_written(tmp_path):
    program = textwrap.dedent("""
        import sys
        from sqlalchemy import Column, Integer, MetaData, String, Table
        from foreword.store.database import Writer, open_database
        metadata = MetaData()
        rows = Table("rows", metadata, Column("id", Integer, primary_key=True), Column("text", String(8), nullable=False))
        database = open_database(sys.argv[1])
        database.create(metadata)
        writer = Writer(database)
        number = 0
        while True:
            for _ in range(50):
                writer.add(rows, {"id": number, "text": "tea"})
                number += 1
            writer.flush()
            print(number, flush=True)
    """)
    path = tmp_path / "rows.sqlite"
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        flushed = [int(process.stdout.readline()) for _ in range(20)][-1]
        os.kill(process.pid, signal.SIGKILL)
    database = open_database(path)
    with database.reading() as connection:
        ids = [row.id for row in connection.execute(select(ROWS.c.id).order_by(ROWS.c.id))]
        assert connection.exec_driver_sql("pragma integrity_check").scalar_one() == "ok"
    assert ids == list(range(len(ids)))
    assert len(ids) >= flushed
    database.close()

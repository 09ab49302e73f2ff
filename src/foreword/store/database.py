"""Tables on one machine (SQLite, a file) or on many (PostgreSQL, a URL), written behind by one thread that batches.

    database = open_database("ledger.sqlite")           # or "postgresql://..."
    database.create(METADATA)
    writer = Writer(database)
    writer.add(table, {"id": ...})                       # returns at once
    writer.flush()                                       # returns once everything so far is committed

A batch is one transaction: after a kill, a row is there whole or not at all, and every row that a `flush` has returned for is there.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foreword.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, MetaData, Table

POSTGRES = ("postgresql://", "postgres://", "postgresql+psycopg://")
MOST_WAITING = 100_000
"""Rows that may wait for the disk; a further one waits with its caller."""
BATCH_ROWS, BATCH_SECONDS = 2_000, 0.02
RETRY_SECONDS = (0.05, 0.2, 1.0, 3.0)
_STOP = object()

logger = logging.getLogger(__name__)


class Database:
    """Connections to one database. Safe to use from several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def dialect(self) -> str:
        """`sqlite` or `postgresql`."""
        return self._engine.dialect.name

    def create(self, metadata: MetaData) -> None:
        """Makes the tables that are not there yet. Raises `StoreError`."""
        with _told(self._engine):
            metadata.create_all(self._engine)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read with. Raises `StoreError`."""
        with _told(self._engine), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction: committed at the end, undone where an exception leaves it. Raises `StoreError`."""
        with _told(self._engine), self._engine.begin() as connection:
            yield connection

    def close(self) -> None:
        """Closes the connections."""
        self._engine.dispose()


def open_database(place: str | Path) -> Database:
    """The database at a path (SQLite, made where it is not there yet) or at a `postgresql://` URL.

    Raises:
        ConfigError: the package for it is not installed, or the URL is of another kind.
        StoreError: the folder cannot be made.
    """
    try:
        from sqlalchemy import URL, create_engine, event, make_url
    except ModuleNotFoundError as error:
        raise ConfigError("A database needs the package `sqlalchemy`. Install it: pip install 'foreword[serve]'.") from error
    text = str(place)
    if text.startswith(POSTGRES):
        return Database(create_engine(make_url(text).set(drivername="postgresql+psycopg"), pool_pre_ping=True))
    if "://" in text:
        raise ConfigError(f"A database is a path or a `postgresql://` URL; got one of `{text.partition(':')[0]}`.")
    path = Path(text)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"{path.parent} cannot be made: {error.strerror or error}. Choose another folder.") from error
    engine = create_engine(URL.create("sqlite", database=str(path)), connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _set(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        # In WAL a committed row outlives the process with `normal`; only a power cut may take the last ones.
        for pragma in ("journal_mode=wal", "synchronous=normal", "foreign_keys=on"):
            cursor.execute(f"pragma {pragma}")
        cursor.close()

    return Database(engine)


class Writer:
    """Adds rows to tables from a thread of its own, many in one transaction.

    Where the database does not take a batch, it is tried again for some seconds, then row by row, so that one bad row does not take the
    others with it; rows that were lost are counted and logged.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._hurry = threading.Event()
        self.written = self.lost = 0
        self._thread = threading.Thread(target=self._work, name="foreword-writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Rows that are not committed yet, about."""
        return self._waiting.qsize()

    def add(self, table: Table, row: Mapping[str, Any]) -> None:
        """Takes a row on; waits only while far too many do."""
        self.add_all([(table, row)])

    def add_all(self, rows: list[tuple[Table, Mapping[str, Any]]]) -> None:
        """Takes rows on that belong together, for one transaction; waits only while far too many do."""
        while self._waiting.qsize() > MOST_WAITING:
            time.sleep(BATCH_SECONDS)
        self._waiting.put(rows)

    def flush(self, seconds: float = 30.0) -> None:
        """Returns once everything that was added before is committed or lost. Raises `StoreError` where that takes too long."""
        done = threading.Event()
        self._waiting.put(done)
        self._hurry.set()
        if not done.wait(seconds):
            raise StoreError(f"The database has not taken its rows within {seconds:g} seconds. Look at its log and at the disk.")

    def close(self) -> None:
        """Writes what waits, and ends the thread."""
        self._waiting.put(_STOP)
        self._hurry.set()
        self._thread.join()

    def _work(self) -> None:
        open_for_more = True
        while open_for_more:
            batch = self._batch()
            open_for_more = _STOP not in batch
            rows = [row for item in batch if isinstance(item, list) for row in item]
            if rows:
                self._write(rows)
            for item in batch:
                if isinstance(item, threading.Event):
                    item.set()

    def _batch(self) -> list[Any]:
        """What waits, and what comes within a moment after the first; a flush or the end is not kept waiting."""
        batch = [self._waiting.get()]
        # Asleep, and not waiting for each row: every wake-up takes the interpreter away from the event loop.
        if isinstance(batch[0], list):
            self._hurry.wait(BATCH_SECONDS)
        self._hurry.clear()
        while len(batch) < BATCH_ROWS and isinstance(batch[-1], list):
            try:
                batch.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        return batch

    def _write(self, rows: list[tuple[Table, Mapping[str, Any]]]) -> None:
        for pause in (*RETRY_SECONDS, None):
            try:
                self._insert(rows)
                self.written += len(rows)
                return
            except StoreError as error:
                if pause is not None:
                    logger.info("a batch of %d rows is tried again: %s", len(rows), error)
                    time.sleep(pause)
        for row in rows:
            try:
                self._insert([row])
                self.written += 1
            except StoreError as error:
                self.lost += 1
                logger.error("a row of table %s is lost: %s", row[0].name, error)

    def _insert(self, rows: list[tuple[Table, Mapping[str, Any]]]) -> None:
        by_table: dict[Table, list[Mapping[str, Any]]] = {}
        for table, row in rows:
            by_table.setdefault(table, []).append(row)
        with self._database.writing() as connection:
            for table, its_rows in by_table.items():
                connection.execute(table.insert(), its_rows)


@contextmanager
def _told(engine: Engine) -> Iterator[None]:
    """Errors of the database as `StoreError`; neither a password nor a row's values are told."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or type(error).__name__).splitlines()[0]
        raise StoreError(f"The database {engine.url.render_as_string(hide_password=True)} refused: {reason}.") from error

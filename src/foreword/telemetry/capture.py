"""Requests and answers as they were, written down to be looked at later; nothing is unless somebody asks for it.

    capture = Capture(open_database("captures.sqlite"), redact=Patterns().redacted)
    capture.take(lambda: Captured(...))             # returns at once; the rest is done in a thread
    for captured in read(open_database("captures.sqlite"), task="support"):
        ...

Every text goes through `redact` before it is written: nothing reaches the disk as it was said.
"""

from __future__ import annotations

import json
import logging
import threading
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Column, Float, Index, Integer, MetaData, String, Table, Text

from foreword.errors import StoreError
from foreword.store.database import Database, Writer

MOST_CHARACTERS = 20_000
"""Of one text; of a longer one, the beginning is captured."""
CUT = " [cut]"
MOST_WAITING = 1_000
"""Captures under way; further ones are left out, and counted."""

METADATA = MetaData()
CAPTURES = Table(
    "captures",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("at", Float, nullable=False),
    Column("tenant", String(128), nullable=False),
    Column("task_type", String(128), nullable=False),
    Column("status", String(16), nullable=False),
    Column("success", Integer),
    Column("content", Text, nullable=False),
    Index("captures_at", "at"),
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Captured:
    """One request with its answer.

    Attributes:
        id: the ledger's.
        status: as the ledger has it.
        prompt: the stored prompt's version; `prefix` the prefix's.
        cache: how the cache was used, as the ledger has it.
        messages: as they went to the model, each a chat message's JSON.
        tools: definitions that were offered; `called` the names of those that the answer called.
        sources: (name, text) of the passages that stood before the question.
        left_out: what `assemble` says that it left out.
        input_tokens, output_tokens: as the model counts, of all its calls for this request; None where it did not say.
    """

    id: str
    at: datetime
    tenant: str
    task: str
    status: str
    success: bool | None = None
    model: str = ""
    prompt: str = ""
    prefix: str = ""
    cache: str = "off"
    messages: Sequence[Mapping[str, Any]] = ()
    tools: Sequence[Mapping[str, Any]] = ()
    called: Sequence[str] = ()
    sources: Sequence[tuple[str, str]] = ()
    answer: str = ""
    left_out: str = ""
    input_tokens: int | None = None
    output_tokens: int | None = None


_COLUMNS = ("id", "tenant", "status")
_OUTSIDE = (*_COLUMNS, "at", "task", "success")
"""Fields that have a column of their own; the others are the content."""


class Capture:
    """Writes captures down, in a thread of its own."""

    def __init__(self, database: Database, *, redact: Callable[[str], str], most_waiting: int = MOST_WAITING) -> None:
        """Args: redact: makes personal data and secrets in a text unreadable. Raises `StoreError`."""
        database.create(METADATA)
        self._database, self._redact, self._most_waiting = database, redact, most_waiting
        self._writer = Writer(database)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="foreword-capture")
        self._lock = threading.Lock()
        self._waiting = self.left_out = 0

    def take(self, make: Callable[[], Captured]) -> bool:
        """Captures what `make` gives, which is called in the thread; False where too many wait, and this one is left out."""
        with self._lock:
            if self._waiting >= self._most_waiting:
                self.left_out += 1
                if self.left_out == 1:
                    logger.warning("captures come faster than they can be written: some are left out")
                return False
            self._waiting += 1
        self._thread.submit(self._write, make)
        return True

    def flush(self) -> None:
        """Returns once all that was taken is on the disk. Raises `StoreError`."""
        self._thread.submit(lambda: None).result()
        self._writer.flush()

    def close(self) -> None:
        """Writes what waits, and ends the threads."""
        self._thread.shutdown()
        self._writer.close()
        self._database.close()

    def _write(self, make: Callable[[], Captured]) -> None:
        try:
            self._writer.add(CAPTURES, row_of(make(), self._redact))
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            # Without its message, which could hold what must not be in a log.
            logger.warning("a capture cannot be written: %s", type(error).__name__)
        finally:
            with self._lock:
                self._waiting -= 1


def sampled(id_: str, share: float) -> bool:
    """Whether a request is among a share of all; the same answer each time, and for every server."""
    return zlib.crc32(id_.encode()) < share * 2**32


def row_of(captured: Captured, redact: Callable[[str], str]) -> dict[str, Any]:
    """A capture as a row, every text of its content made unreadable where it must be."""
    fields = asdict(captured)
    content = {name: _redacted(value, redact) for name, value in fields.items() if name not in _OUTSIDE}
    success = None if captured.success is None else int(captured.success)
    own = {name: fields[name] for name in _COLUMNS}
    written = json.dumps(content, separators=(",", ":"))
    return {**own, "at": captured.at.timestamp(), "task_type": captured.task, "success": success, "content": written}


def read(database: Database, *, task: str | None = None, since: datetime | None = None) -> Iterator[Captured]:
    """Captures in the order in which they were made, of one task type and from a day on where that is wanted. Raises `StoreError`."""
    database.create(METADATA)
    query = CAPTURES.select().order_by(CAPTURES.c.at, CAPTURES.c.id)
    if task is not None:
        query = query.where(CAPTURES.c.task_type == task)
    if since is not None:
        query = query.where(CAPTURES.c.at >= since.timestamp())
    with database.reading() as connection:
        for row in connection.execution_options(yield_per=200).execute(query):
            yield _captured(row)


def forget(database: Database, *, tenant: str | None = None, before: datetime | None = None) -> int:
    """Removes captures of one tenant, older than a time, or both; returns how many. Raises `StoreError`."""
    if tenant is None and before is None:
        raise StoreError("Say which captures to remove: a tenant's, or those before a time.")
    query = CAPTURES.delete()
    if tenant is not None:
        query = query.where(CAPTURES.c.tenant == tenant)
    if before is not None:
        query = query.where(CAPTURES.c.at < before.timestamp())
    with database.writing() as connection:
        return connection.execute(query).rowcount


def _captured(row: Any) -> Captured:
    try:
        content = json.loads(row.content)
        content["sources"] = tuple((name, text) for name, text in content.get("sources", ()))
        return Captured(
            id=row.id,
            at=datetime.fromtimestamp(row.at, UTC),
            tenant=row.tenant,
            task=row.task_type,
            status=row.status,
            success=None if row.success is None else bool(row.success),
            **content,
        )
    except (TypeError, ValueError) as error:
        raise StoreError(f"The capture `{row.id}` cannot be read: {type(error).__name__}. Another version of Foreword wrote it.") from None


def _redacted(value: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return redact(value if len(value) <= MOST_CHARACTERS else f"{value[:MOST_CHARACTERS]}{CUT}")
    if isinstance(value, Mapping):
        return {name: _redacted(inner, redact) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(inner, redact) for inner in value]
    return value

"""What is known of batches: files piece by piece, the requests in them, and what became of each. In SQLite or PostgreSQL.

A request is written down with its answer in one transaction, so that after a kill none is asked again that had its answer.
A server that works on a batch holds a lease on it, which it renews; where it dies, another one, or the same one started again, goes on
once the lease is over. Blocking; for threads.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import msgspec
from sqlalchemy import Table, and_, delete, func, insert, or_, select, update

from foreword.gateway.batch_tables import (
    AT_WORK,
    BATCHES,
    FILES,
    METADATA,
    OUTPUT,
    PIECES,
    ROWS,
    Batch,
    Row,
    Status,
    StoredFile,
    batch_of,
    file_of,
    row_of,
)
from foreword.gateway.tenants import Tenant
from foreword.store.database import Database

PIECE_BYTES = 256 * 1024


class BatchStore:
    """Files and batches of all tenants. Everything but `close` raises `StoreError` where the database does not answer."""

    def __init__(self, database: Database) -> None:
        database.create(METADATA)
        self._database = database

    def close(self) -> None:
        """Closes the database."""
        self._database.close()

    # Files.

    def add_file(self, tenant: str, *, filename: str, purpose: str, content: BinaryIO) -> StoredFile:
        """Keeps a file."""
        pieces = iter(lambda: content.read(PIECE_BYTES), b"")
        with self._database.writing() as connection:
            return _add_file(connection, tenant, filename, purpose, pieces)

    def file(self, tenant: str, id: str) -> StoredFile | None:
        """A tenant's file; None where there is none, or it is another's."""
        with self._database.reading() as connection:
            row = connection.execute(select(FILES).where(FILES.c.id == id, FILES.c.tenant == tenant)).one_or_none()
        return None if row is None else file_of(row)

    def files(self, tenant: str, *, purpose: str | None, after: str | None, limit: int) -> list[StoredFile]:
        """A tenant's files, the newest first."""
        query = select(FILES).where(FILES.c.tenant == tenant)
        if purpose is not None:
            query = query.where(FILES.c.purpose == purpose)
        with self._database.reading() as connection:
            return [file_of(row) for row in connection.execute(_page(query, FILES, after, limit))]

    def stored_bytes(self, tenant: str) -> int:
        """Of all files of a tenant."""
        with self._database.reading() as connection:
            return int(connection.execute(select(func.sum(FILES.c.bytes)).where(FILES.c.tenant == tenant)).scalar() or 0)

    def piece(self, file: str, number: int) -> bytes | None:
        """A piece of a file; None behind the last one."""
        with self._database.reading() as connection:
            found = connection.execute(select(PIECES.c.data).where(PIECES.c.file == file, PIECES.c.number == number)).scalar()
        return None if found is None else bytes(found)

    def lines(self, file: str) -> Iterator[bytes]:
        """A file line by line, without their ends."""
        rest, number = b"", 0
        while (piece := self.piece(file, number)) is not None:
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
            number += 1
        if rest:
            yield rest

    def delete_file(self, tenant: str, id: str) -> bool:
        """Removes a file; False where there is none, or it is another's. Raises as all; `file_in_use` says whether it may be."""
        with self._database.writing() as connection:
            gone = connection.execute(delete(FILES).where(FILES.c.id == id, FILES.c.tenant == tenant)).rowcount
            if gone:
                connection.execute(delete(PIECES).where(PIECES.c.file == id))
        return bool(gone)

    def file_in_use(self, id: str) -> bool:
        """Whether a batch still has to be read from it."""
        with self._database.reading() as connection:
            query = select(BATCHES.c.id).where(BATCHES.c.input_file == id, BATCHES.c.status == "validating")
            return connection.execute(query).first() is not None

    # Batches.

    def add_batch(self, tenant: Tenant, *, endpoint: str, window: str, seconds: float, input_file: str, metadata: dict[str, str]) -> Batch:
        """A new batch, to be done within `seconds`."""
        now, id = time.time(), f"batch_{secrets.token_hex(12)}"
        row = {
            "id": id,
            "tenant": tenant.name,
            "patterns": _json([pattern.pattern for pattern in tenant.patterns]),
            "endpoint": endpoint,
            "window": window,
            "input_file": input_file,
            "status": "validating",
            "times": "{}",
            "at": now,
            "expires_at": now + seconds,
            "errors": "[]",
            "metadata": _json(metadata),
            "owner": "",
            **dict.fromkeys(("total", "completed", "failed"), 0),
            **dict.fromkeys(("lease_until", "not_before", "worked_at"), 0.0),
        }
        with self._database.writing() as connection:
            connection.execute(insert(BATCHES), row)
        found = self.batch(tenant.name, id)
        assert found is not None, "it was just written"
        return found

    def batch(self, tenant: str, id: str) -> Batch | None:
        """A tenant's batch; None where there is none, or it is another's."""
        with self._database.reading() as connection:
            row = connection.execute(select(BATCHES).where(BATCHES.c.id == id, BATCHES.c.tenant == tenant)).one_or_none()
        return None if row is None else batch_of(row)

    def batches(self, tenant: str, *, after: str | None, limit: int) -> list[Batch]:
        """A tenant's batches, the newest first."""
        with self._database.reading() as connection:
            rows = connection.execute(_page(select(BATCHES).where(BATCHES.c.tenant == tenant), BATCHES, after, limit))
            return [batch_of(row) for row in rows]

    def open_batches(self, tenant: str) -> int:
        """How many of a tenant's batches are not finished."""
        query = select(func.count()).select_from(BATCHES).where(BATCHES.c.tenant == tenant, BATCHES.c.status.in_(AT_WORK))
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar() or 0)

    def move(self, id: str, to: Status, *, of: Sequence[Status], **fields: Any) -> bool:
        """Brings a batch from one of some statuses into another one; False where it is in none of them."""
        with self._database.writing() as connection:
            return _move(connection, id, to, of, fields)

    # For who works on them.

    def claim(self, owner: str, lease: float) -> Batch | None:
        """Takes the batch on that was worked on longest ago, for `lease` seconds; None where there is nothing to do."""
        now = time.time()
        free = and_(
            BATCHES.c.status.in_(AT_WORK),
            or_(BATCHES.c.lease_until < now, BATCHES.c.owner == owner),
            # One that is to end does not wait for a better moment.
            or_(BATCHES.c.not_before <= now, BATCHES.c.expires_at <= now, BATCHES.c.status == "cancelling"),
        )
        with self._database.writing() as connection:
            found = connection.execute(select(BATCHES.c.id).where(free).order_by(BATCHES.c.worked_at, BATCHES.c.at).limit(1)).scalar()
            if found is None:
                return None
            taken = update(BATCHES).where(BATCHES.c.id == found, free).values(owner=owner, lease_until=now + lease, worked_at=now)
            if not connection.execute(taken).rowcount:
                return None
            return batch_of(connection.execute(select(BATCHES).where(BATCHES.c.id == found)).one())

    def renew(self, id: str, owner: str, lease: float) -> bool:
        """Keeps a batch; False where another one has it."""
        kept = update(BATCHES).where(BATCHES.c.id == id, BATCHES.c.owner == owner).values(lease_until=time.time() + lease)
        with self._database.writing() as connection:
            return bool(connection.execute(kept).rowcount)

    def release(self, id: str, owner: str, *, not_before: float = 0.0) -> None:
        """Gives a batch back. Args: not_before: Unix seconds until which nobody need look at it."""
        given = update(BATCHES).where(BATCHES.c.id == id, BATCHES.c.owner == owner).values(lease_until=0.0, not_before=not_before)
        with self._database.writing() as connection:
            connection.execute(given)

    def begin(self, id: str, rows: Iterable[Row]) -> None:
        """Puts a batch's requests in, all or none, and has it begin; one that was cancelled meanwhile only gets its requests."""
        total = 0
        with self._database.writing() as connection:
            connection.execute(delete(ROWS).where(ROWS.c.batch == id))
            for some in _chunks(rows, 500):
                values = [{"batch": id, "number": row.number, "custom_id": row.custom_id, "body": row.body, "tries": 0} for row in some]
                connection.execute(insert(ROWS), values)
                total += len(some)
            connection.execute(update(BATCHES).where(BATCHES.c.id == id).values(total=total))
            _move(connection, id, "in_progress", ("validating",), {})

    def waiting(self, id: str, *, limit: int) -> list[Row]:
        """Requests of a batch that have no answer yet, in their order."""
        query = select(ROWS).where(ROWS.c.batch == id, ROWS.c.status_code.is_(None)).order_by(ROWS.c.number).limit(limit)
        with self._database.reading() as connection:
            return [row_of(row) for row in connection.execute(query)]

    def goes_on(self, id: str) -> bool:
        """Whether requests of a batch are still to be begun."""
        query = select(BATCHES.c.id).where(BATCHES.c.id == id, BATCHES.c.status == "in_progress", BATCHES.c.expires_at > time.time())
        with self._database.reading() as connection:
            return connection.execute(query).first() is not None

    def answered(self, id: str, number: int, *, status_code: int, request_id: str, answer: bytes) -> None:
        """Writes down what became of a request; the first word holds."""
        this = and_(ROWS.c.batch == id, ROWS.c.number == number, ROWS.c.status_code.is_(None))
        count = BATCHES.c.completed if status_code == 200 else BATCHES.c.failed
        with self._database.writing() as connection:
            row = update(ROWS).where(this).values(status_code=status_code, request_id=request_id, answer=answer)
            if connection.execute(row).rowcount:
                connection.execute(update(BATCHES).where(BATCHES.c.id == id).values({count: count + 1}))

    def failed_once(self, id: str, number: int) -> None:
        """Counts a try of a request that is to be asked again."""
        with self._database.writing() as connection:
            connection.execute(update(ROWS).where(ROWS.c.batch == id, ROWS.c.number == number).values(tries=ROWS.c.tries + 1))

    def rows(self, connection: Any, id: str) -> Iterator[Row]:
        """All requests of a batch, within a transaction."""
        number = -1
        while True:
            query = select(ROWS).where(ROWS.c.batch == id, ROWS.c.number > number).order_by(ROWS.c.number).limit(200)
            some = [row_of(row) for row in connection.execute(query)]
            if not some:
                return
            yield from some
            number = some[-1].number

    def finish(self, batch: Batch, to: Status, *, answers: Any, errors: Any) -> None:
        """Ends a batch: writes its files, and lets go of its requests, all in one transaction.

        Args:
            answers, errors: each takes a row and gives its line in that file, or None where it has none there.
        """
        with self._database.writing() as connection:
            files: dict[str, str | None] = {}
            for name, line in (("output_file", answers), ("error_file", errors)):
                lines = (line(row) for row in self.rows(connection, batch.id))
                pieces = _joined(written for written in lines if written is not None)
                filename = f"{batch.id}_{name.removesuffix('_file')}.jsonl"
                made = _add_file(connection, batch.tenant.name, filename, OUTPUT, pieces, keep_empty=False)
                files[name] = None if made is None else made.id
            unanswered = select(func.count()).select_from(ROWS).where(ROWS.c.batch == batch.id, ROWS.c.status_code.is_(None))
            left = int(connection.execute(unanswered).scalar() or 0)
            connection.execute(update(BATCHES).where(BATCHES.c.id == batch.id).values(failed=BATCHES.c.failed + left))
            _move(connection, batch.id, to, AT_WORK, files)
            connection.execute(delete(ROWS).where(ROWS.c.batch == batch.id))

    def forget(self, before: float) -> None:
        """Removes files and finished batches that are older. Args: before: Unix seconds."""
        used = select(BATCHES.c.input_file).where(BATCHES.c.status.in_(AT_WORK))
        with self._database.writing() as connection:
            old = select(FILES.c.id).where(FILES.c.at < before, FILES.c.id.not_in(used))
            connection.execute(delete(PIECES).where(PIECES.c.file.in_(old)))
            connection.execute(delete(FILES).where(FILES.c.at < before, FILES.c.id.not_in(used)))
            connection.execute(delete(BATCHES).where(BATCHES.c.at < before, BATCHES.c.status.not_in(AT_WORK)))


def _move(connection: Any, id: str, to: Status, of: Sequence[Status], fields: dict[str, Any]) -> bool:
    found = connection.execute(select(BATCHES.c.times).where(BATCHES.c.id == id, BATCHES.c.status.in_(of))).scalar()
    if found is None:
        return False
    times = _json({**msgspec.json.decode(found), to: time.time()})
    moved = update(BATCHES).where(BATCHES.c.id == id, BATCHES.c.status.in_(of)).values(status=to, times=times, **fields)
    return bool(connection.execute(moved).rowcount)


def _add_file(connection: Any, tenant: str, filename: str, purpose: str, pieces: Iterable[bytes], *, keep_empty: bool = True) -> Any:
    id, total = f"file-{secrets.token_hex(12)}", 0
    for number, piece in enumerate(pieces):
        connection.execute(insert(PIECES), {"file": id, "number": number, "data": piece})
        total += len(piece)
    if not total and not keep_empty:
        return None
    row = {"id": id, "tenant": tenant, "purpose": purpose, "filename": filename, "bytes": total, "at": time.time()}
    connection.execute(insert(FILES), row)
    return StoredFile(**{name: value for name, value in row.items() if name != "tenant"})


def _page(query: Any, table: Table, after: str | None, limit: int) -> Any:
    if after is not None:
        at = select(table.c.at).where(table.c.id == after).scalar_subquery()
        query = query.where(or_(table.c.at < at, and_(table.c.at == at, table.c.id < after)))
    return query.order_by(table.c.at.desc(), table.c.id.desc()).limit(limit)


def _chunks(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    some: list[Row] = []
    for row in rows:
        some.append(row)
        if len(some) == size:
            yield some
            some = []
    if some:
        yield some


def _joined(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Lines as pieces of a file."""
    held: list[bytes] = []
    size = 0
    for line in lines:
        held += (line, b"\n")
        size += len(line) + 1
        if size >= PIECE_BYTES:
            yield b"".join(held)
            held, size = [], 0
    if held:
        yield b"".join(held)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()

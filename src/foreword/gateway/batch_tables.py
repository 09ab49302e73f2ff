"""The tables that batches are kept in, and what their rows mean."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
from sqlalchemy import BigInteger, Column, Float, Index, Integer, LargeBinary, MetaData, String, Table, Text

from foreword.gateway.tenants import Tenant

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
AT_WORK: tuple[Status, ...] = ("validating", "in_progress", "finalizing", "cancelling")
"""Statuses of a batch that somebody has to do something for."""
INPUT, OUTPUT = "batch", "batch_output"
"""What files are for."""

METADATA = MetaData()
FILES = Table(
    "batch_files",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("tenant", String(128), nullable=False),
    Column("purpose", String(32), nullable=False),
    Column("filename", String(256), nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("at", Float, nullable=False),
    Index("batch_files_tenant", "tenant", "at"),
)
PIECES = Table(
    "batch_pieces",
    METADATA,
    Column("file", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
)
BATCHES = Table(
    "batches",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("tenant", String(128), nullable=False),
    Column("patterns", Text, nullable=False),
    Column("endpoint", String(64), nullable=False),
    Column("window", String(16), nullable=False),
    Column("input_file", String(64), nullable=False),
    Column("output_file", String(64)),
    Column("error_file", String(64)),
    Column("status", String(16), nullable=False),
    Column("times", Text, nullable=False),
    Column("at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("total", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("errors", Text, nullable=False),
    Column("metadata", Text, nullable=False),
    Column("owner", String(64), nullable=False),
    Column("lease_until", Float, nullable=False),
    Column("not_before", Float, nullable=False),
    Column("worked_at", Float, nullable=False),
    Index("batches_tenant", "tenant", "at"),
)
ROWS = Table(
    "batch_rows",
    METADATA,
    Column("batch", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("custom_id", String(512), nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("status_code", Integer),
    Column("request_id", String(64)),
    Column("answer", LargeBinary),
    Column("tries", Integer, nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """A file. Attributes: at: Unix seconds."""

    id: str
    purpose: str
    filename: str
    bytes: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """A batch as it stands.

    Attributes:
        window: as it was asked for, such as `24h`.
        times: Unix seconds at which it came into a status, by status.
        errors: why it failed as a whole.
    """

    id: str
    tenant: Tenant
    endpoint: str
    window: str
    input_file: str
    output_file: str | None
    error_file: str | None
    status: Status
    times: dict[str, float]
    at: float
    expires_at: float
    total: int
    completed: int
    failed: int
    errors: list[dict[str, Any]] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One request of a batch. Attributes: status_code: of its answer; None until it has one. tries: how often it failed for the moment."""

    number: int
    custom_id: str
    body: bytes
    status_code: int | None = None
    request_id: str | None = None
    answer: bytes | None = None
    tries: int = 0


def file_of(row: Any) -> StoredFile:
    """A file from its row."""
    return StoredFile(id=row.id, purpose=row.purpose, filename=row.filename, bytes=int(row.bytes), at=row.at)


def batch_of(row: Any) -> Batch:
    """A batch from its row."""
    patterns = tuple(re.compile(pattern) for pattern in msgspec.json.decode(row.patterns))
    same = ("id", "endpoint", "window", "input_file", "output_file", "error_file", "status", "at", "expires_at", "total")
    return Batch(
        **{name: getattr(row, name) for name in (*same, "completed", "failed")},
        tenant=Tenant(name=row.tenant, patterns=patterns),
        **{name: msgspec.json.decode(row._mapping[name]) for name in ("times", "errors", "metadata")},
    )


def row_of(row: Any) -> Row:
    """A request from its row."""
    return Row(
        number=row.number,
        custom_id=row.custom_id,
        body=bytes(row.body),
        status_code=row.status_code,
        request_id=row.request_id,
        answer=None if row.answer is None else bytes(row.answer),
        tries=row.tries,
    )

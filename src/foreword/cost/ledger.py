"""The ledger: what every request cost, line by line, and whether it succeeded.

A request has one entry, and a charge for each thing that was paid for: a call of a model, a retry that failed, an embedding, a judge.
Sums are exact: amounts are whole numbers of 10⁻¹² of the currency's unit (a cent for a million tokens is ten thousand of them for each), so
that the sum of the stages is the total to the last digit, whatever adds them up. A charge whose price nobody knows is there without an
amount, and its request is unpriced; it never counts as free.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Literal

from sqlalchemy import BigInteger, Column, Float, Index, Integer, MetaData, String, Table

from foreword.cost.rates import Charge
from foreword.store.database import Database, Writer

UNIT = Decimal("1e-12")
"""What amounts are whole numbers of."""

CacheUse = Literal["off", "miss", "exact", "semantic", "stale"]
Status = Literal["answered", "refused", "failed", "cancelled"]

METADATA = MetaData()

ENTRIES = Table(
    "ledger_entries",
    METADATA,
    Column("id", String(64), primary_key=True),
    Column("at", Float, nullable=False),
    Column("week", String(8), nullable=False),
    Column("tenant", String(128), nullable=False),
    Column("user", String(128), nullable=False),
    Column("task_type", String(128), nullable=False),
    Column("asked_model", String(256), nullable=False),
    Column("model", String(256), nullable=False),
    Column("prompt", String(128), nullable=False),
    Column("prefix", String(256), nullable=False),
    Column("status", String(16), nullable=False),
    Column("success", Integer),
    Column("score", Float),
    Column("cache", String(16), nullable=False),
    Column("escalated", Integer, nullable=False),
    Column("retries", Integer, nullable=False),
    Column("fallbacks", Integer, nullable=False),
    Column("degraded", String(128), nullable=False),
    Column("seconds", Float, nullable=False),
    Column("first_token_seconds", Float),
    Column("amount", BigInteger),
    Column("currency", String(3), nullable=False),
    Index("ledger_entries_at", "at"),
)
CHARGES = Table(
    "ledger_charges",
    METADATA,
    Column("entry", String(64), primary_key=True),
    Column("number", Integer, primary_key=True),
    Column("stage", String(32), nullable=False),
    Column("model", String(256), nullable=False),
    Column("meter", String(32), nullable=False),
    Column("quantity", Float, nullable=False),
    Column("amount", BigInteger),
    Column("priced_by", String(64), nullable=False),
)
SAVINGS = Table(
    "ledger_savings",
    METADATA,
    Column("entry", String(64), primary_key=True),
    Column("lever", String(32), primary_key=True),
    Column("amount", BigInteger, nullable=False),
)
FEEDBACK = Table(
    "ledger_feedback",
    METADATA,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("entry", String(64), nullable=False, index=True),
    Column("at", Float, nullable=False),
    Column("tenant", String(128), nullable=False),
    Column("success", Integer, nullable=False),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What was paid for at one stage.

    Attributes:
        model: whose price it is.
        charges: None where the price is unknown.
        priced_by: where the price is from.
        consumed: counts by meter that an unpriced line is told with.
    """

    stage: str
    model: str
    charges: tuple[Charge, ...] | None
    priced_by: str = ""
    consumed: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """What one lever (`cache`, `prefix`, `route`) spared, against what would have been paid without it."""

    lever: str
    amount: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One request, as it ended.

    Attributes:
        id: unique; what feedback names.
        asked_model, model: what the client named, and what answered.
        prompt, prefix: versions, such as `support@v3`; empty for none.
        success: None where nothing judged it.
        score: of the check, 0 to 1.
        degraded: what a budget took away, such as `lighter tier`; empty for nothing.
    """

    id: str
    at: datetime
    tenant: str
    task_type: str
    asked_model: str
    model: str
    status: Status
    seconds: float
    lines: tuple[Line, ...] = ()
    savings: tuple[Saving, ...] = ()
    user: str = ""
    prompt: str = ""
    prefix: str = ""
    success: bool | None = None
    score: float | None = None
    cache: CacheUse = "off"
    escalated: bool = False
    retries: int = 0
    fallbacks: int = 0
    degraded: str = ""
    first_token_seconds: float | None = None
    currency: str = "USD"

    @property
    def amount(self) -> Decimal | None:
        """What all lines cost together; None where one is unpriced."""
        return total(self.lines)


def whole_units(amount: Decimal) -> int:
    """An amount in the ledger's unit."""
    return int(amount.scaleb(12).to_integral_value(ROUND_HALF_EVEN))


def money(units: int | None) -> Decimal | None:
    """An amount of the ledger as money."""
    return None if units is None else Decimal(units) * UNIT


def total(lines: Sequence[Line]) -> Decimal | None:
    """The sum of lines, each charge rounded as the ledger keeps it; None where one is unpriced."""
    if any(line.charges is None for line in lines):
        return None
    return money(sum(whole_units(charge.amount) for line in lines for charge in line.charges or ()))


class Ledger:
    """Takes entries on, and writes them behind."""

    def __init__(self, database: Database) -> None:
        """Makes the tables where they are not there yet. Raises `StoreError`."""
        database.create(METADATA)
        self.database = database
        self.writer = Writer(database)

    def record(self, entry: Entry) -> None:
        """Takes one entry on, with its charges and savings; returns before they are on the disk."""
        units = None if (amount := entry.amount) is None else whole_units(amount)
        charges = [row for line in entry.lines for row in _charge_rows(line)]
        savings = [{"entry": entry.id, "lever": saving.lever, "amount": whole_units(saving.amount)} for saving in entry.savings]
        # Together, so that no kill leaves an entry without its charges.
        self.writer.add_all(
            [
                (ENTRIES, _row(entry, units)),
                *((CHARGES, {"entry": entry.id, "number": number, **row}) for number, row in enumerate(charges)),
                *((SAVINGS, row) for row in savings),
            ]
        )

    def feedback(self, entry: str, *, tenant: str, success: bool, at: datetime) -> None:
        """What somebody says of an answer afterwards; the last word counts, and only the tenant's whose request it was."""
        row = {"entry": entry, "at": at.timestamp(), "tenant": tenant, "success": int(success)}
        self.writer.add(FEEDBACK, row)

    def flush(self) -> None:
        """Returns once all that was recorded is on the disk. Raises `StoreError`."""
        self.writer.flush()

    def close(self) -> None:
        """Writes what waits and closes the database."""
        self.writer.close()
        self.database.close()


def week_of(at: datetime) -> str:
    """The ISO week, `2026-W47`."""
    return at.astimezone(UTC).strftime("%G-W%V")


def _row(entry: Entry, units: int | None) -> dict[str, object]:
    return {
        "id": entry.id,
        "at": entry.at.timestamp(),
        "week": week_of(entry.at),
        "tenant": entry.tenant,
        "user": entry.user,
        "task_type": entry.task_type,
        "asked_model": entry.asked_model,
        "model": entry.model,
        "prompt": entry.prompt,
        "prefix": entry.prefix,
        "status": entry.status,
        "success": None if entry.success is None else int(entry.success),
        "score": entry.score,
        "cache": entry.cache,
        "escalated": int(entry.escalated),
        "retries": entry.retries,
        "fallbacks": entry.fallbacks,
        "degraded": entry.degraded,
        "seconds": entry.seconds,
        "first_token_seconds": entry.first_token_seconds,
        "amount": units,
        "currency": entry.currency,
    }


def _charge_rows(line: Line) -> list[dict[str, object]]:
    told = {"stage": line.stage, "model": line.model, "priced_by": line.priced_by}
    if line.charges is None:
        return [{**told, "meter": meter, "quantity": count, "amount": None} for meter, count in line.consumed or (("unknown", 0.0),)]
    return [
        {**told, "meter": charge.meter, "quantity": float(charge.quantity), "amount": whole_units(charge.amount)} for charge in line.charges
    ]

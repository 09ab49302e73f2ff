"""What success costs, from the ledger: by task type, stage, tenant, model, prompt, prefix or week.

Cost per success divides what the judged requests cost by how many of them succeeded; cost per attempt divides what all of them cost by how
many there were. The two can rank options differently, so both are told, with the share of requests that anything judged.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, get_args

from sqlalchemy import Select, and_, case, func, select

from foreword.cost.ledger import CHARGES, ENTRIES, FEEDBACK, SAVINGS, money
from foreword.cost.prices import cost_per_success
from foreword.errors import ConfigError
from foreword.store.database import Database

Dimension = Literal["task-type", "tenant", "user", "model", "asked-model", "prompt", "prefix", "week", "status", "cache"]
DIMENSIONS: tuple[Dimension, ...] = get_args(Dimension)
_HITS = frozenset({"exact", "semantic", "stale"})


@dataclass(frozen=True, slots=True, kw_only=True)
class CostRow:
    """One line of the report.

    Attributes:
        group: the values of the dimensions asked for.
        judged: requests of which somebody or something said whether they succeeded.
        unpriced: requests of whose cost a part is unknown; they are left out of `cost` and of everything made of it.
        cost, cost_per_success, cost_per_attempt: None where nothing is known to divide.
        cache_hit_rate: of the requests that looked.
        saved: by lever.
    """

    group: tuple[str, ...]
    requests: int
    judged: int
    successes: int
    unpriced: int
    cost: Decimal | None
    cost_per_success: Decimal | None
    cost_per_attempt: Decimal | None
    cache_hit_rate: float | None
    escalation_rate: float
    retries: int
    fallbacks: int
    saved: dict[str, Decimal]
    currency: str

    @property
    def success_rate(self) -> float | None:
        """Successes among the judged."""
        return self.successes / self.judged if self.judged else None


@dataclass(slots=True)
class _Sum:
    requests: int = 0
    judged: int = 0
    successes: int = 0
    unpriced: int = 0
    units: int = 0
    judged_units: int = 0
    looked: int = 0
    hits: int = 0
    escalated: int = 0
    retries: int = 0
    fallbacks: int = 0


def cost_report(
    database: Database,
    by: Sequence[Dimension] = ("task-type",),
    *,
    since: datetime | None = None,
    until: datetime | None = None,
    tenant: str | None = None,
) -> tuple[CostRow, ...]:
    """The report, dearest group first; amounts in different currencies are never added up, and stand in rows of their own.

    Raises:
        ConfigError: a dimension is unknown.
        StoreError: the database cannot be read.
    """
    unknown = [name for name in by if name not in DIMENSIONS]
    if unknown:
        raise ConfigError(f"A report is by {', '.join(DIMENSIONS)}; got `{unknown[0]}`.")
    columns = [ENTRIES.c[name.replace("-", "_")] for name in by]
    where = _where(since, until, tenant)
    with database.reading() as connection:
        entries = connection.execute(_entries(columns, where)).all()
        savings = connection.execute(_savings(columns, where)).all()
    sums: dict[tuple[str, ...], _Sum] = defaultdict(_Sum)
    for row in entries:
        _add(sums[(*row[: len(by)], row.currency)], row)
    saved: dict[tuple[str, ...], dict[str, Decimal]] = defaultdict(dict)
    for row in savings:
        amount = money(int(row.units))
        assert amount is not None
        saved[(*row[: len(by)], row.currency)][row.lever] = amount
    rows = [_finished(key, found, saved.get(key, {})) for key, found in sums.items()]
    return tuple(sorted(rows, key=lambda row: (-(row.cost or Decimal(0)), row.group)))


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRow:
    """What one stage cost with one model.

    Attributes:
        unpriced: charges without a price; they are left out of `cost`, and nothing is known of a success then.
        cost_per_success: of the judged requests' part, for each request that succeeded; `cost_per_attempt` of all, for each request.
    """

    stage: str
    model: str
    currency: str
    cost: Decimal | None
    cost_per_success: Decimal | None
    cost_per_attempt: Decimal | None
    unpriced: int


def stage_rows(
    database: Database, *, since: datetime | None = None, until: datetime | None = None, tenant: str | None = None
) -> tuple[StageRow, ...]:
    """What each stage cost with each model, for a success and for an attempt; both add up to those of the whole. Raises `StoreError`."""
    whole = {row.currency: row for row in cost_report(database, (), since=since, until=until, tenant=tenant)}
    said, verdict = _verdicts()
    columns = (CHARGES.c.stage, CHARGES.c.model, ENTRIES.c.currency)
    joined = CHARGES.join(ENTRIES, ENTRIES.c.id == CHARGES.c.entry)
    query = (
        select(
            *columns,
            func.sum(CHARGES.c.amount).label("units"),
            func.sum(case((verdict.is_not(None), CHARGES.c.amount))).label("judged"),
            (func.count() - func.count(CHARGES.c.amount)).label("unpriced"),
        )
        .select_from(joined.outerjoin(said, and_(said.c.entry == ENTRIES.c.id, said.c.tenant == ENTRIES.c.tenant)))
        .where(*_where(since, until, tenant))
        .group_by(*columns)
        .order_by(*columns)
    )
    with database.reading() as connection:
        rows = connection.execute(query).all()
    return tuple(_stage_row(row, whole[row.currency]) for row in rows)


def _stage_row(row: Any, whole: CostRow) -> StageRow:
    cost = money(None if row.units is None else int(row.units))
    priced = whole.requests - whole.unpriced
    return StageRow(
        stage=row.stage,
        model=row.model,
        currency=row.currency,
        cost=cost,
        cost_per_success=None if whole.unpriced else cost_per_success(money(int(row.judged or 0)), whole.successes),
        cost_per_attempt=None if cost is None or not priced else cost / priced,
        unpriced=row.unpriced,
    )


def _where(since: datetime | None, until: datetime | None, tenant: str | None) -> list[Any]:
    conditions: list[Any] = []
    if since is not None:
        conditions.append(ENTRIES.c.at >= since.timestamp())
    if until is not None:
        conditions.append(ENTRIES.c.at < until.timestamp())
    if tenant is not None:
        conditions.append(ENTRIES.c.tenant == tenant)
    return conditions


def _entries(columns: Sequence[Any], where: Iterable[Any]) -> Select[*tuple[Any, ...]]:
    """Sums of entries that are alike in everything that the report tells apart; a tenant's last word goes before what the check said."""
    said, verdict = _verdicts()
    kinds = (*columns, ENTRIES.c.currency, ENTRIES.c.cache, ENTRIES.c.escalated)
    return (
        select(
            *kinds,
            verdict.label("verdict"),
            func.count().label("requests"),
            func.count(ENTRIES.c.amount).label("priced"),
            func.sum(ENTRIES.c.amount).label("units"),
            func.sum(ENTRIES.c.retries).label("retries"),
            func.sum(ENTRIES.c.fallbacks).label("fallbacks"),
        )
        .select_from(ENTRIES.outerjoin(said, and_(said.c.entry == ENTRIES.c.id, said.c.tenant == ENTRIES.c.tenant)))
        .where(*where)
        .group_by(*kinds, verdict)
    )


def _verdicts() -> tuple[Any, Any]:
    """Each tenant's last words, to be joined to entries, and what then counts as an entry's success."""
    last = select(FEEDBACK.c.entry, FEEDBACK.c.tenant, func.max(FEEDBACK.c.id).label("id")).group_by(FEEDBACK.c.entry, FEEDBACK.c.tenant)
    words = last.subquery()
    said = select(words.c.entry, words.c.tenant, FEEDBACK.c.success).join(FEEDBACK, FEEDBACK.c.id == words.c.id).subquery()
    return said, func.coalesce(said.c.success, ENTRIES.c.success)


def _savings(columns: Sequence[Any], where: Iterable[Any]) -> Select[*tuple[Any, ...]]:
    kinds = (*columns, ENTRIES.c.currency, SAVINGS.c.lever)
    joined = SAVINGS.join(ENTRIES, ENTRIES.c.id == SAVINGS.c.entry)
    return select(*kinds, func.sum(SAVINGS.c.amount).label("units")).select_from(joined).where(*where).group_by(*kinds)


def _add(found: _Sum, row: Any) -> None:
    units = int(row.units or 0)
    found.requests += row.requests
    found.unpriced += row.requests - row.priced
    found.units += units
    if row.verdict is not None:
        found.judged += row.requests
        found.successes += row.requests * int(row.verdict)
        found.judged_units += units
    found.looked += row.requests * (row.cache != "off")
    found.hits += row.requests * (row.cache in _HITS)
    found.escalated += row.requests * row.escalated
    found.retries += int(row.retries or 0)
    found.fallbacks += int(row.fallbacks or 0)


def _finished(key: tuple[str, ...], found: _Sum, saved: dict[str, Decimal]) -> CostRow:
    priced = found.requests - found.unpriced
    cost = money(found.units) if priced else None
    return CostRow(
        group=key[:-1],
        currency=key[-1],
        requests=found.requests,
        judged=found.judged,
        successes=found.successes,
        unpriced=found.unpriced,
        cost=cost,
        # With a part of the prices unknown, the rest of them is no cost of a success.
        cost_per_success=None if found.unpriced else cost_per_success(money(found.judged_units), found.successes),
        cost_per_attempt=None if cost is None else cost / priced,
        cache_hit_rate=found.hits / found.looked if found.looked else None,
        escalation_rate=found.escalated / found.requests,
        retries=found.retries,
        fallbacks=found.fallbacks,
        saved=saved,
    )

"""What judging a prompt on some rows comes to: successes with their interval, cost, cost per success; and two prompts on the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from foreword.prompting import intervals
from foreword.prompting.judging import Judged

if TYPE_CHECKING:
    from pydantic import JsonValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One prompt on some rows.

    Attributes:
        cost: money for all of them, failures' own cost included; None without a price.
        tokens: of all of them.
    """

    success: intervals.Share
    cost: Decimal | None
    tokens: int

    @property
    def cost_per_success(self) -> Decimal | None:
        """None without a price, and where nothing succeeded."""
        return None if self.cost is None or not self.success.successes else self.cost / self.success.successes

    @property
    def tokens_per_success(self) -> float | None:
        """None where nothing succeeded."""
        return self.tokens / self.success.successes if self.success.successes else None

    @property
    def dearness(self) -> float:
        """What prompts are ordered by: cost per success, or tokens per success without a price; infinite where nothing succeeded."""
        one = self.tokens_per_success if self.cost is None else self.cost_per_success
        return float("inf") if one is None else float(one)

    def told(self) -> dict[str, JsonValue]:
        """As JSON; money as text, so that no digit is lost."""
        share = self.success
        return {
            "successes": share.successes,
            "rows": share.rows,
            "success": share.share,
            "interval": [share.low, share.high],
            "cost": _money(self.cost),
            "cost_per_success": _money(self.cost_per_success),
            "tokens": self.tokens,
            "tokens_per_success": self.tokens_per_success,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """A prompt and the one that came of it, on the same rows."""

    before: Measured
    after: Measured
    difference: intervals.Difference

    def told(self) -> dict[str, JsonValue]:
        """As JSON."""
        change = self.difference
        return {
            "before": self.before.told(),
            "after": self.after.told(),
            "difference": change.difference,
            "interval": [change.low, change.high],
        }


def measure(judged: Sequence[Judged], *, failure_cost: Decimal = Decimal(0)) -> Measured:
    """At least one verdict. Args: failure_cost: added for each failure, where the rows have a price."""
    known = [one.cost for one in judged if one.cost is not None]
    failures = sum(not one.success for one in judged)
    return Measured(
        success=intervals.share([one.success for one in judged]),
        cost=sum(known, Decimal(0)) + failures * failure_cost if len(known) == len(judged) else None,
        tokens=sum(one.tokens for one in judged),
    )


def compare(before: Sequence[Judged], after: Sequence[Judged], *, failure_cost: Decimal = Decimal(0)) -> Compared:
    """Two prompts' verdicts on the same rows, in the same order."""
    return Compared(
        before=measure(before, failure_cost=failure_cost),
        after=measure(after, failure_cost=failure_cost),
        difference=intervals.difference([one.success for one in after], [one.success for one in before]),
    )


def _money(amount: Decimal | None) -> str | None:
    return None if amount is None else format(amount.normalize(), "f")

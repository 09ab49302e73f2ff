"""`budget`: which budgets hold for the request; near the end of one, what the request does without: tier, passages, history, freshness.

Money itself is set aside by `reserve`, once it is known which model is asked and how much it has to read.
"""

from __future__ import annotations

from foreword.gateway.budgets import budgets_of
from foreword.gateway.passage import Passage
from foreword.gateway.stage import Next, Parts, Stage


def make(parts: Parts) -> Stage:
    """The stage. Raises `ConfigError`, `StoreError`."""
    budgets = budgets_of(parts)

    async def budget(passage: Passage) -> Next:
        if budgets is not None:
            await budgets.begin(passage)
        return Next.ON

    return budget

"""Several answers to one conversation, of which those that were paid for are kept even when the budget ends in their midst."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from foreword.errors import BudgetSpent
from foreword.prompting.strategy import Run, together
from foreword.types import Completion, Message


async def drawn(
    run: Run, conversations: Sequence[Sequence[Message]], *, purpose: str, **changes: Any
) -> tuple[list[Completion | None], BudgetSpent | None]:
    """One answer to each conversation, all asked at once and in their order.

    Returns:
        The answers, None for those that the budget had no place for, and the reason, where there was one.
    """
    spent: list[BudgetSpent] = []

    async def one(conversation: Sequence[Message]) -> Completion | None:
        try:
            return await run.ask(conversation, purpose=purpose, **changes)
        except BudgetSpent as reason:
            # Not raised at once: that would cancel the calls that began before it, which are paid for.
            spent.append(reason)
            return None

    answers = await together([one(conversation) for conversation in conversations])
    return answers, spent[0] if spent else None

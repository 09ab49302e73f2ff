"""`zero-shot`: the question as it is, once."""

from __future__ import annotations

from foreword.prompting.strategy import Draft, Run, StrategySettings
from foreword.prompting.turns import with_system
from foreword.types import Message


class Settings(StrategySettings):
    """Attributes: instruction: put before the conversation as its system message; nothing where it is empty."""

    instruction: str = ""


async def answer(conversation: tuple[Message, ...], settings: Settings, run: Run) -> Draft:
    """One call."""
    completion = await run.ask(with_system(conversation, settings.instruction))
    return Draft(text=completion.text)

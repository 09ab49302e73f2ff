"""`cot`: chain of thought. Without examples the model is told to think step by step (Kojima et al. 2022), with them it is shown how (Wei et
al. 2022).

Kojima et al. ask twice: for the reasons, and then, with these before it, for the answer alone (section 3). A model that ends its reasons
with a marked answer need not be asked again, so that the second call is made only where there is none.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from foreword.errors import ConfigError
from foreword.prompting.final_answer import final_answer
from foreword.prompting.strategies._reasoning import Reading, reasoned, short_answer
from foreword.prompting.strategy import Draft, Run, StrategySettings
from foreword.prompting.turns import followed_by
from foreword.types import Message

THEREFORE = "Therefore, what is the answer? Write nothing else."
MOST_ANSWER = 32
"""Tokens of the answer alone."""


class Settings(StrategySettings):
    """
    Attributes:
        shots: worked examples shown before the question, the first of those that stand by; 0 tells the model to think step by step.
        stages: 1 reads the answer from the reasons, 2 always asks for it in a call of its own, `auto` where the reasons have none.
        reading: how the answer is found.
    """

    shots: int = Field(default=0, ge=0, le=1000)
    stages: Literal[1, 2, "auto"] = "auto"
    reading: Reading = "marked"


async def answer(conversation: tuple[Message, ...], settings: Settings, run: Run) -> Draft:
    """One call or two. Raises `ConfigError` where fewer examples stand by than are to be shown."""
    if settings.shots > len(run.resources.shots):
        raise ConfigError(
            f"`cot(shots={settings.shots})` shows worked examples, and {len(run.resources.shots)} stand by. Give more as the resources' "
            "`shots`, or leave the setting out."
        )
    asked = reasoned(conversation, run.resources.shots[: settings.shots])
    completion = await run.ask(asked, purpose="reasons")
    text, final = completion.text, short_answer(completion.text, settings.reading)
    run.keep(Draft(text=text, final=final or final_answer(text), note="the reasons alone"))
    if settings.stages == 2 or (settings.stages == "auto" and final is None):
        most = min(MOST_ANSWER, run.sampling.max_new_tokens)
        second = await run.ask(followed_by(asked, text, THEREFORE), purpose="answer", max_new_tokens=most)
        said = short_answer(second.text, settings.reading) or final_answer(second.text)
        text, final = f"{text}\n\n{second.text}", said or final
    if final is not None:
        return Draft(text=text, final=final)
    last = final_answer(text)
    return Draft(text=text, final=last, note="no answer could be recognised; the last line stands for it")

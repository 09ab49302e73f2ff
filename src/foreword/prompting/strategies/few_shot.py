"""`few-shot`: examples of the task before the question, chosen and ordered.

Nearest: Liu et al. 2021, "What Makes Good In-Context Examples for GPT-3?" (KATE). Diverse: maximal marginal relevance (Carbonell &
Goldstein 1998), which takes the nearest first and then what is near the question but not like what is taken. Order matters to small models
(Lu et al. 2021): the last example counts most, so the nearest one can be put last.

Axes: S shot, D dimension.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from foreword.errors import ConfigError
from foreword.prompting.strategy import Draft, Run, StrategySettings
from foreword.prompting.turns import question, with_shots, with_system
from foreword.types import Message

if TYPE_CHECKING:
    import numpy as np


class Settings(StrategySettings):
    """
    Attributes:
        k: examples; all there are, where these are fewer.
        select: `fixed` takes the first ones, `nearest` those most like the question, `diverse` those like the question and unlike each
            other.
        order: `given` is the order in which they stand by, `nearest-last` puts the one most like the question right before it, `random`
            shuffles.
        seed: of the shuffling.
        relevance: for `diverse`, the weight of likeness to the question; the rest is that of unlikeness to the examples taken.
        instruction: put before the conversation as its system message.
    """

    k: int = Field(default=4, ge=1, le=1000)
    select: Literal["fixed", "nearest", "diverse"] = "fixed"
    order: Literal["given", "nearest-last", "random"] = "given"
    seed: int = 0
    relevance: float = Field(default=0.5, ge=0, le=1)
    instruction: str = ""


async def answer(conversation: tuple[Message, ...], settings: Settings, run: Run) -> Draft:
    """One call. Raises `ConfigError` where there are no examples, or where they are to be compared and nothing compares them."""
    shots = run.resources.shots
    if not shots:
        raise ConfigError("`few-shot` has no examples to show. Give some as the resources' `shots`, or use `zero-shot`.")
    chosen = await _chosen(question(conversation), settings, run)
    completion = await run.ask(with_shots(with_system(conversation, settings.instruction), [shots[index] for index in chosen]))
    note = "" if len(chosen) == settings.k else f"{len(chosen)} of {settings.k} examples: there are no more"
    return Draft(text=completion.text, note=note)


async def _chosen(text: str, settings: Settings, run: Run) -> list[int]:
    """Places of the chosen examples, in the order in which they are shown."""
    shots, likeness_S = run.resources.shots, None
    if settings.select != "fixed" or settings.order == "nearest-last":
        if run.resources.embedder is None:
            wanted = f"select={settings.select}" if settings.select != "fixed" else f"order={settings.order}"
            raise ConfigError(f"`few-shot({wanted})` compares texts and has no embedder. Give the resources one, or use `select=fixed`.")
        # Vectors of a thousand examples take tens of milliseconds the first time, for which the loop must not stand still.
        vectors_SD, likeness_S = await asyncio.to_thread(_compared, text, run)
    if settings.select == "fixed" or likeness_S is None:
        chosen = list(range(min(settings.k, len(shots))))
    elif settings.select == "nearest":
        chosen = sorted(range(len(shots)), key=lambda index: -likeness_S[index])[: settings.k]
    else:
        chosen = spread(vectors_SD, likeness_S, settings.k, relevance=settings.relevance)
    return _ordered(chosen, likeness_S, settings)


def _compared(text: str, run: Run) -> tuple[np.ndarray, Sequence[float]]:
    """Vectors S D of the examples, and how like each is to a text."""
    embedder = run.resources.embedder
    assert embedder is not None
    vectors_SD = run.resources.shot_vectors()
    return vectors_SD, (vectors_SD @ embedder.embed([text])[0]).tolist()


def spread(vectors_SD: np.ndarray, likeness_S: Sequence[float], count: int, *, relevance: float) -> list[int]:
    """Places by maximal marginal relevance: each next one has the most of `relevance` times its likeness to the question, less the rest of
    1 times its likeness to the nearest one taken."""
    left, taken = list(range(len(likeness_S))), []
    nearest_taken_S = [0.0] * len(left)
    while left and len(taken) < count:
        best = max(left, key=lambda index: relevance * likeness_S[index] - (1 - relevance) * nearest_taken_S[index])
        taken.append(best)
        left.remove(best)
        to_best_S = (vectors_SD @ vectors_SD[best]).tolist()
        # Vectors may point away from each other; the first one taken sets the measure, whatever its sign.
        nearest_taken_S = to_best_S if len(taken) == 1 else [max(pair) for pair in zip(nearest_taken_S, to_best_S, strict=True)]
    return taken


def _ordered(chosen: list[int], likeness_S: Sequence[float] | None, settings: Settings) -> list[int]:
    if settings.order == "random":
        return random.Random(settings.seed).sample(chosen, len(chosen))
    if settings.order == "nearest-last" and likeness_S is not None:
        return sorted(chosen, key=lambda index: likeness_S[index])
    return sorted(chosen)

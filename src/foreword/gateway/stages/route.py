"""`route`: which models are tried, the first one first.

A client that names a model of the configuration gets that one. One that names `auto` leaves the choice to its task type's tiers, in their
order from the cheapest up, or as far up as the learned router thinks it has to begin.
"""

from __future__ import annotations

import difflib

from foreword.gateway.errors import not_found
from foreword.gateway.passage import Passage
from foreword.gateway.path_settings import AUTO, PathSettings
from foreword.gateway.stage import Next, Parts, Stage


def make(parts: Parts) -> Stage:
    """The stage."""
    settings = parts.settings

    async def route(passage: Passage) -> Next:
        asked = passage.request.model
        passage.tiers = list(passage.task.tiers) if asked == AUTO else [_known(asked, settings)]
        return Next.ON

    return route


def _known(model: str, settings: PathSettings) -> str:
    """A model of the configuration. Raises `Refusal` (404)."""
    name = model.partition(":")[0]
    if name in settings.models:
        return model
    near = difflib.get_close_matches(name[:64], [AUTO, *settings.models], n=1)
    hint = f"Did you mean `{near[0]}`?" if near else f"There are: {', '.join((AUTO, *settings.models))}."
    raise not_found(f"No model is named `{model[:120]}` here. {hint}")

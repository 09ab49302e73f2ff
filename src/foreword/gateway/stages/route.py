"""`route`: which models are tried, the first one first.

A client that names a model of the configuration gets that one. One that names `auto` leaves the choice to its task type's tiers: in their
order from the cheapest up, or from the one up that the learned router expects to be worth its price. Where a budget has made the request a
lighter one, the cheapest tier is all that there is.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable

from foreword.errors import ConfigError
from foreword.gateway.budgets import LIGHTER
from foreword.gateway.errors import not_found
from foreword.gateway.passage import Passage
from foreword.gateway.path_settings import AUTO, DEFAULT_TASK, PathSettings, TaskSettings
from foreword.gateway.question import question, question_vector
from foreword.gateway.routing import Router
from foreword.gateway.stage import Next, Parts, Stage
from foreword.retrieval.embedder import Embedder

TOLD = "foreword-route"

Chooser = Callable[[Passage], int]
"""Gives the place of the first tier to try, and tells the client how it was found."""


def make(parts: Parts) -> Stage:
    """The stage. Raises `ConfigError`: a learned router is wanted, and cannot be used."""
    settings = parts.settings
    choosers = _choosers(settings, parts.embedder)

    async def route(passage: Passage) -> Next:
        asked, tiers = passage.request.model, passage.task.tiers
        if asked != AUTO:
            passage.tiers = [_known(asked, settings)]
        elif LIGHTER in passage.degraded:
            passage.tiers = [tiers[0]]
            passage.told[TOLD] = LIGHTER
        elif (chooser := choosers.get(passage.task.name)) is not None:
            passage.tiers = list(tiers[chooser(passage) :])
        else:
            passage.tiers = list(tiers)
            passage.told[TOLD] = "first"
        return Next.ON

    return route


def _choosers(settings: PathSettings, embedder: Embedder | None) -> dict[str, Chooser]:
    """By the names of the task types that want the learned router."""
    wanting = [task for name in {*settings.tasks, DEFAULT_TASK} if (task := settings.task(name)).router == "learned"]
    if not wanting:
        return {}
    first = wanting[0].name
    if settings.router_model is None:
        raise ConfigError(f'`tasks.{first}.router` is "learned", and `router_model` names no router. Make one: foreword route fit.')
    if embedder is None:
        raise ConfigError("A learned router needs an embedder, and none was loaded. Install one: pip install 'foreword[retrieval]'.")
    router = Router.read(settings.router_model, embedder)
    return {task.name: _chooser(router, task, embedder) for task in wanting}


def _chooser(router: Router, task: TaskSettings, embedder: Embedder) -> Chooser:
    unknown = [tier for tier in task.tiers if tier not in router.tiers]
    if unknown:
        raise ConfigError(
            f"The router knows {', '.join(router.tiers)}, and `tasks.{task.name}.tiers` has `{unknown[0]}`. "
            "Fit it again with that tier: foreword route fit."
        )
    among = [router.tiers.index(tier) for tier in task.tiers]
    places = {place: number for number, place in enumerate(among)}

    def choose(passage: Passage) -> int:
        vector_D = question_vector(passage, embedder)
        choice = router.choose(question(passage.request), vector_D, among)
        passage.told[TOLD] = f"learned p={choice.probability:.2f}"
        return places[choice.place]

    return choose


def _known(model: str, settings: PathSettings) -> str:
    """A model of the configuration. Raises `Refusal` (404)."""
    name = model.partition(":")[0]
    if name in settings.models:
        return model
    near = difflib.get_close_matches(name[:64], [AUTO, *settings.models], n=1)
    hint = f"Did you mean `{near[0]}`?" if near else f"There are: {', '.join((AUTO, *settings.models))}."
    raise not_found(f"No model is named `{model[:120]}` here. {hint}")

"""`intake`: what kind of task a request is, and with that every setting that holds for it; its priority, its deadline and its user.

A client says the type in the header `foreword-task` or in `metadata.task`; where it does not, the first type one of whose rules matches the
last user turn is taken, then the one whose labelled lines are most alike, and else `default`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial

from foreword.errors import ConfigError
from foreword.gateway.capturing import capture_of
from foreword.gateway.errors import Refusal
from foreword.gateway.intake import wishes
from foreword.gateway.intake.centroids import Centroids
from foreword.gateway.passage import Passage
from foreword.gateway.path_settings import DEFAULT_TASK, TaskSettings
from foreword.gateway.question import question, question_vector
from foreword.gateway.stage import Next, Parts, Stage

MOST_CHARACTERS = 20_000
"""Of the last turn, that rules look at."""


def make(parts: Parts) -> Stage:
    """The stage."""
    settings = parts.settings
    rules = tuple((name, tuple(re.compile(rule) for rule in task.rules)) for name, task in settings.tasks.items() if task.rules)
    known = {name: settings.task(name) for name in {*settings.tasks, DEFAULT_TASK}}
    likeness = _likeness(parts, known)
    capture = capture_of(parts)

    async def intake(passage: Passage) -> Next:
        if capture is not None:
            passage.afterwards.append(partial(capture, passage))
        task = _told(passage, known)
        if task is None:
            text = question(passage.request) if rules else ""
            task = known[_matched(text[:MOST_CHARACTERS], rules) or likeness(passage) or DEFAULT_TASK]
        passage.task = task
        wishes.take(passage)
        passage.told["foreword-task"] = task.name
        return Next.ON

    return intake


def _told(passage: Passage, known: Mapping[str, TaskSettings]) -> TaskSettings | None:
    """The type that the client says. Raises `Refusal` (400) where there is no such type."""
    metadata = passage.request.metadata
    name = passage.headers.get("foreword-task") or (metadata.get("task") if isinstance(metadata, dict) else None)
    if not name:
        return None
    if name not in known:
        types = ", ".join(sorted(known))
        raise Refusal(400, f"There is no task type `{name[:64]}`. There are: {types}.", code="invalid_value", param="metadata.task")
    return known[name]


def _matched(text: str, rules: tuple[tuple[str, tuple[re.Pattern[str], ...]], ...]) -> str | None:
    for name, patterns in rules:
        for pattern in patterns:
            if pattern.search(text):
                return name
    return None


def _likeness(parts: Parts, known: Mapping[str, TaskSettings]) -> Callable[[Passage], str | None]:
    """What finds the type by likeness; nothing does where nothing was trained. Raises `ConfigError`."""
    path, embedder = parts.settings.intake_model, parts.embedder
    if path is None:
        return lambda passage: None
    if embedder is None:
        raise ConfigError("`intake_model` needs an embedder, and none was loaded. Install one: pip install 'foreword[retrieval]'.")
    centroids = Centroids.read(path, embedder)
    unknown = [label for label in centroids.labels if label not in known]
    if unknown:
        raise ConfigError(f"{path} knows the task type `{unknown[0]}`, and `tasks` does not. Add it, or train without its lines.")
    return lambda passage: centroids.label(question_vector(passage, embedder))

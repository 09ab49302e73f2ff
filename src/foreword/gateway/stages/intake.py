"""`intake`: what kind of task a request is, who sends it, how urgent it is.

The header `foreword-task` or `task` in the request's metadata says it outright. Else the rules of the task types are tried in their order
on the user's last turn; what none matches is of type `default`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from foreword.gateway.errors import Refusal
from foreword.gateway.passage import Passage
from foreword.gateway.path_settings import DEFAULT_TASK, TaskSettings
from foreword.gateway.stage import Next, Parts, Stage

MOST_CHARACTERS = 20_000
"""Of the last turn, that rules look at."""


def make(parts: Parts) -> Stage:
    """The stage."""
    settings = parts.settings
    rules = [(name, [re.compile(rule) for rule in task.rules]) for name, task in settings.tasks.items()]
    known = {name: settings.task(name) for name in {*settings.tasks, DEFAULT_TASK}}

    async def intake(passage: Passage) -> Next:
        passage.task = _told(passage, known) or known[_matched(_question(passage), rules)]
        passage.told["foreword-task"] = passage.task.name
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


def _matched(text: str, rules: list[tuple[str, list[re.Pattern[str]]]]) -> str:
    return next((name for name, patterns in rules if any(pattern.search(text) for pattern in patterns)), DEFAULT_TASK)


def _question(passage: Passage) -> str:
    return next((message.text for message in reversed(passage.request.messages) if message.role == "user"), "")[:MOST_CHARACTERS]

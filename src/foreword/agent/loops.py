"""Finds an agent that goes round in circles: the same calls with the same arguments and the same observations, over and over."""

from __future__ import annotations

import json
from collections.abc import Hashable
from typing import Literal

LONGEST_CYCLE = 3
TELLINGS = 2
"""How often an agent is told in one piece of work, each time of another circle; the next one ends it."""

Verdict = Literal["", "tell", "stop"]


class Loops:
    """Looks at one step after another."""

    def __init__(self) -> None:
        self.length = 0
        self._steps: list[Hashable] = []
        self._told: set[frozenset[Hashable]] = set()

    def add(self, name: str, arguments: str, observation: str) -> Verdict:
        """What to do after a step: nothing, tell the model that it goes round in circles, or stop it. `length` then says in how many steps.

        A circle is told of once; the same one again, or one circle too many, is the end.
        """
        self._steps.append((name, _canonical(arguments), observation))
        circle = self._circle()
        if circle is None:
            return ""
        self.length = len(circle)
        key = frozenset(circle)
        if key in self._told or len(self._told) >= TELLINGS:
            return "stop"
        self._told.add(key)
        return "tell"

    def _circle(self) -> list[Hashable] | None:
        for length in range(1, LONGEST_CYCLE + 1):
            last = self._steps[-length:]
            if len(self._steps) >= 2 * length and last == self._steps[-2 * length : -length]:
                return last
        return None


def _canonical(arguments: str) -> str:
    """The same text for the same arguments, however they are spaced and ordered."""
    try:
        return json.dumps(json.loads(arguments), sort_keys=True)
    except (ValueError, RecursionError):
        return " ".join(arguments.split())

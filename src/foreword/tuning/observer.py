"""What a tuning run tells whoever watches it. The default watcher says nothing."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Watches a run. Every method is called from the training loop, so it must be quick."""

    def stage(self, text: str) -> None:
        """A new part of the run begins: `probe 1 of 3: few-shot:4, rate 0.02`, `training`, `choosing`."""
        ...

    def planned(self, total_targets: int) -> None:
        """How many training targets the whole run will see, probes included; may be told again as the plan firms up."""
        ...

    def step(self, loss: float, targets_done: int, tokens_per_second: float) -> None:
        """One step was taken; `targets_done` counts from the beginning of the run."""
        ...

    def evaluated(self, name: str, loss: float) -> None:
        """The dev loss of a candidate."""
        ...

    def note(self, text: str) -> None:
        """Something the user should know, such as skipped examples."""
        ...


class Silent:
    """Says nothing."""

    def stage(self, text: str) -> None: ...

    def planned(self, total_targets: int) -> None: ...

    def step(self, loss: float, targets_done: int, tokens_per_second: float) -> None: ...

    def evaluated(self, name: str, loss: float) -> None: ...

    def note(self, text: str) -> None: ...

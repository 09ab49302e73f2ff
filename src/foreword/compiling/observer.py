"""What a compilation tells whoever watches it. The default watcher says nothing."""

from __future__ import annotations

from typing import Protocol


class Observer(Protocol):
    """Watches a compilation. Every method is called from the working loop, so it must be quick."""

    def stage(self, text: str, total: int) -> None:
        """A new part of the work begins, such as `reading the text again`; it has `total` pieces."""
        ...

    def advance(self, pieces: int) -> None:
        """Some pieces of the part are done."""
        ...

    def note(self, text: str) -> None:
        """Something the user should know, such as a source that had to be split."""
        ...


class Silent:
    """Says nothing."""

    def stage(self, text: str, total: int) -> None: ...

    def advance(self, pieces: int) -> None: ...

    def note(self, text: str) -> None: ...

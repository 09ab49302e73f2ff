"""A circuit breaker: a model that fails again and again is left alone for a while, then asked by one call, which decides.

After Nygard, *Release It!* (2007), ch. 5: closed, open, half-open.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Literal

Way = Literal["closed", "probe", "open"]
"""How a call finds the circuit: `closed` and `probe` let it through, the latter one call at a time."""

logger = logging.getLogger(__name__)


class Breaker:
    """What is known of how one model does."""

    def __init__(self, name: str, *, failures: int, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        """Args: failures: in a row, after which no call is sent for `seconds`."""
        self._name, self._most, self._seconds, self._now = name, failures, seconds, now
        self._failed = 0
        self._until = 0.0
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether a call would be held back just now; takes nothing."""
        return not self.is_closed and (self._probing or self._now() < self._until)

    @property
    def is_closed(self) -> bool:
        """Whether calls go through as they come."""
        return self._failed < self._most

    @property
    def opens_in(self) -> float:
        """Seconds until a call is let through again."""
        return 0.0 if self.is_closed else max(0.0, self._until - self._now())

    def way(self) -> Way:
        """Asks for a call to be let through; where it is, one of `succeeded`, `failed` and `gave_up` follows."""
        if self.is_closed:
            return "closed"
        if self.is_open:
            return "open"
        self._probing = True
        return "probe"

    def succeeded(self) -> None:
        """The model answered."""
        if not self.is_closed:
            logger.warning("model %s answers again", self._name)
        self._failed, self._probing = 0, False

    def failed(self, way: Way) -> None:
        """The model did not answer."""
        self._failed += 1
        if way == "probe":
            self._probing = False
        # A call that was sent before the circuit opened says nothing new, and does not keep it open for longer.
        if self._failed == self._most or way == "probe":
            self._until = self._now() + self._seconds
            logger.warning("model %s failed %d times in a row; it is not asked for %g seconds", self._name, self._failed, self._seconds)

    def gave_up(self, way: Way) -> None:
        """Nobody waited for the model's answer any more, so that nothing is known of it."""
        if way == "probe":
            self._probing = False

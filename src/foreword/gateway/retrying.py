"""Whether and when a call that failed is sent again.

Waits are drawn from the whole of an interval that doubles ("full jitter"; M. Brooker, *Exponential Backoff And Jitter*, 2015), and retries
take from a bucket that calls fill ("retry budget"; Google SRE book, ch. 21), so that a model that is down is not asked the more for it.
"""

from __future__ import annotations

import random

from foreword.gateway.passage import TargetError

FIRST_SECONDS, MOST_SECONDS = 0.25, 8.0
"""The interval that the first wait is drawn from, and the widest one."""
PATIENCE_SECONDS = 5.0
"""How long a wait that a model asks for is kept to while another model stands by."""
MOST_TOKENS = 10.0
_PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
"""Statuses that say that the same request may fare better later."""


class RetryBudget:
    """Tokens: each call adds a share of one, each retry takes a whole one. It starts full, and holds ten."""

    def __init__(self, share: float) -> None:
        """Args: share: retries at most for each call, in the long run; 0 allows none."""
        self._share = share
        self._tokens = MOST_TOKENS if share > 0 else 0.0

    def called(self) -> None:
        """A call was sent for the first time."""
        if self._tokens < MOST_TOKENS:
            self._tokens = min(MOST_TOKENS, self._tokens + self._share)

    def take(self) -> bool:
        """Takes what one retry costs, where it is there."""
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


def passes(error: TargetError) -> bool:
    """Whether the same call may fare better later."""
    if error.refusal is not None or error.begun or error.status in ("cancelled", "open-circuit"):
        return False
    return error.http_status in (None, 200) or error.http_status in _PASSING


def wait(error: TargetError, *, tried: int, left: float, stands_by: bool, draw: random.Random) -> float | None:
    """Seconds to wait before the call is sent again; None where it is not worth it.

    Args:
        tried: how often it was sent already.
        left: seconds until the request's deadline.
        stands_by: whether another model can be asked instead.
    """
    if not passes(error):
        return None
    jitter = draw.uniform(0.0, min(MOST_SECONDS, FIRST_SECONDS * 2.0 ** (tried - 1)))
    seconds = jitter
    if error.retry_after is not None:
        if stands_by and error.retry_after > PATIENCE_SECONDS:
            return None
        # All who were told the same time would come back at once; a tenth more at most spreads them.
        seconds = error.retry_after + min(jitter, error.retry_after / 10)
    return seconds if seconds < left else None

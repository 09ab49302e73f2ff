"""Names for requests: 24 hexadecimal digits that no other server or request has.

They tell requests apart, and protect nothing: what is asked about one is checked against its tenant. So they are drawn from a generator
that the system's randomness seeds once, and not from the system each time, which takes as long as reading the request does.
"""

from __future__ import annotations

import random
import secrets

_RANDOM = random.Random(secrets.randbits(512))


def fresh() -> str:
    """A new one."""
    return f"{_RANDOM.getrandbits(96):024x}"

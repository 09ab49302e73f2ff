"""What a client may say of its request besides the request: how urgent it is, how long it waits, and on whose behalf it is.

    foreword-priority: -1        lower than its task type's, never higher
    foreword-deadline: 2.5       seconds, never more than its task type's
    foreword-user: u-17          where the body has no `user`

What is taken differently than it was asked for is told in the answer under the same name.
"""

from __future__ import annotations

import asyncio
import math
import re

from foreword.gateway.errors import Refusal
from foreword.gateway.passage import Passage

PRIORITY, DEADLINE, USER = "foreword-priority", "foreword-deadline", "foreword-user"
MOST_USER = 128
_INTEGER = re.compile(r"[+-]?[0-9]{1,6}")
_USER = re.compile(rf"[\x21-\x7e]{{1,{MOST_USER}}}")


def take(passage: Passage) -> None:
    """Sets priority, deadline and user of a passage whose task type is known.

    Raises:
        Refusal: 400, a header is not what it should be.
    """
    headers, task = passage.headers, passage.task
    passage.priority = task.priority if PRIORITY not in headers else _priority(passage, headers[PRIORITY])
    seconds = task.seconds if DEADLINE not in headers else _seconds(passage, headers[DEADLINE])
    passage.deadline = asyncio.get_running_loop().time() + seconds
    if not passage.user and USER in headers:
        passage.user = _user(headers[USER])


def _priority(passage: Passage, given: str) -> int:
    if not _INTEGER.fullmatch(given.strip()):
        raise _refusal(PRIORITY, given, "a whole number")
    most = passage.task.priority
    if int(given) > most:
        passage.told[PRIORITY] = str(most)
    return min(int(given), most)


def _seconds(passage: Passage, given: str) -> float:
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise _refusal(DEADLINE, given, "a number of seconds above 0")
    most = passage.task.seconds
    if seconds > most:
        passage.told[DEADLINE] = f"{most:g}"
    return min(seconds, most)


def _user(given: str) -> str:
    if not _USER.fullmatch(given.strip()):
        raise _refusal(USER, given, f"1 to {MOST_USER} printable ASCII characters without blanks")
    return given.strip()


def _refusal(header: str, given: str, wanted: str) -> Refusal:
    return Refusal(400, f"The header `{header}` must be {wanted}; got {given[:40]!r}.", code="invalid_value", param=header)

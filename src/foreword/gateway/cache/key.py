"""What a request is kept under: its partition, in which alone it may be answered from the cache, and its exact key.

Everything that an answer depends on besides the last question belongs to the partition: tenant, model and prefix versions, prompt version,
system prompt, earlier turns, tools, answer format, and every other field of the request but those that only say how the answer travels. A
field that this file has never heard of is part of it too, so that a new field makes a miss and never a wrong hit.

Keys are digests. No text of a request is in them, and none is logged.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

TRAVEL = frozenset({"stream", "stream_options", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key"})
"""Fields that no answer depends on."""
_DEFAULTS: dict[str, Any] = {"n": 1, "top_p": 1, "logprobs": False, "top_logprobs": 0, "presence_penalty": 0, "frequency_penalty": 0}
"""Saying these is saying nothing."""
_SORTED = msgspec.json.Encoder(order="sorted")

TemperatureRule = Literal["zero", "unset", "any"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cacheable:
    """Which requests may be answered from the cache.

    Attributes:
        temperature: `zero`: only those that ask for greedy answers, or give a seed, and so would get the same answer each time; `unset`:
            also those that say nothing about it, though OpenAI's default is 1; `any`: also those that ask for drawn answers, which then are
            all alike.
        several: also those for several answers (`n` above 1), which want them to differ.
        logprobs: also those for log-probabilities, which are then those of the first time.
    """

    temperature: TemperatureRule = "unset"
    several: bool = False
    logprobs: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """Where a request's answer is kept.

    Attributes:
        tenant: whose it is; no look-up crosses from one to another.
        partition: digest of everything but the last question.
        exact: digest of everything.
        question: the last user turn, for the look-up by meaning; empty where that turn is no plain text.
    """

    tenant: str
    partition: str
    exact: str
    question: str

    def __repr__(self) -> str:
        """Without the question, so that no log line can hold one."""
        return f"Key(tenant={self.tenant!r}, partition={self.partition[:12]!r}, exact={self.exact[:12]!r})"


def key_of(
    body: Mapping[str, Any],
    *,
    tenant: str,
    model: str,
    prefix_versions: Sequence[str] = (),
    prompt_version: str | None = None,
) -> Key:
    """The key of a chat request.

    Args:
        body: the request as JSON, its `messages` as they are sent to the model: after a stored prompt was put in.
        model: what the requested name stands for by now, so that an alias that moves on leaves its old answers behind.
        prefix_versions: each prefix with its version, in order.
        prompt_version: of the stored prompt that the messages come from.
    """
    messages = list(body.get("messages") or ())
    question = _question(messages)
    rest = {name: value for name, value in body.items() if name not in TRAVEL | {"messages", "model"} and _says_something(name, value)}
    place = {
        "tenant": tenant,
        "model": model,
        "prefixes": list(prefix_versions),
        "prompt": prompt_version,
        "before": messages[:-1] if question else messages,
        "fields": rest,
    }
    partition = _digest(place)
    return Key(tenant=tenant, partition=partition, exact=_digest([partition, messages[-1:] if question else []]), question=question)


def refused(body: Mapping[str, Any], rule: Cacheable) -> str | None:
    """Why a request may not be answered from the cache, in a word or two; None where it may."""
    if not rule.several and (body.get("n") or 1) > 1:
        return "several answers"
    if not rule.logprobs and (body.get("logprobs") or body.get("top_logprobs")):
        return "logprobs"
    temperature, seeded = body.get("temperature"), body.get("seed") is not None
    if temperature == 0 or seeded or rule.temperature == "any":
        return None
    if temperature is None and rule.temperature == "unset":
        return None
    return "drawn answers"


def _question(messages: Sequence[Any]) -> str:
    last = messages[-1] if messages else None
    if not isinstance(last, Mapping) or last.get("role") != "user":
        return ""
    content = last.get("content")
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(part, Mapping) and part.get("type") == "text" for part in content):
        return "".join(str(part.get("text", "")) for part in content)
    return ""


def _says_something(name: str, value: Any) -> bool:
    return value is not None and not (name in _DEFAULTS and value == _DEFAULTS[name])


def _digest(value: Any) -> str:
    try:
        written = _SORTED.encode(value)
    except UnicodeEncodeError:
        # Escaped to ASCII, so that a half of a character, which JSON can carry, has a digest too.
        written = json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
    return hashlib.sha256(written).hexdigest()

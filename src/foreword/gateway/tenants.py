"""Who is asking, and which prefixes they may know of. Keys are kept as hashes only, and no message or log line holds one."""

from __future__ import annotations

import fnmatch
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from foreword.errors import ConfigError
from foreword.gateway.errors import Refusal

LEAST_KEY = 8
_KEY = re.compile(r"[\x21-\x7e]+")
_PATTERN = re.compile(r"[a-z0-9._*?\[\]!-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenant:
    """Somebody who may send requests.

    Attributes:
        patterns: shell patterns of the prefixes that exist for this tenant; empty for all.
    """

    name: str
    patterns: tuple[re.Pattern[str], ...] = ()

    def sees(self, prefix: str) -> bool:
        """Whether a prefix exists for this tenant; of a composed one (`task+user`), whether every part does."""
        if not self.patterns:
            return True
        return all(any(pattern.fullmatch(part) for pattern in self.patterns) for part in prefix.split("+"))


EVERYBODY = Tenant(name="everybody")
"""Who asks where no keys are set up."""


class Keyring:
    """The keys of all tenants."""

    def __init__(self, tenants: Mapping[bytes, Tenant]) -> None:
        """Args: tenants: by the SHA-256 of their key."""
        self._tenants = dict(tenants)

    def tenant(self, authorization: str | None) -> Tenant:
        """Whose key a request's `Authorization` header holds. Raises `Refusal` (401)."""
        # Looked up by its hash, so that how long it takes says nothing about any key.
        found = self._tenants.get(_hash(_bearer(authorization)))
        if found is None:
            raise _unauthorized("The API key is missing or not known. Send `Authorization: Bearer KEY`.")
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminKey:
    """The one key that opens the admin routes."""

    digest: bytes

    def check(self, authorization: str | None) -> None:
        """Raises `Refusal` (401) unless the header holds the key."""
        if not hmac.compare_digest(_hash(_bearer(authorization)), self.digest):
            raise _unauthorized("This route needs the admin key. Send `Authorization: Bearer KEY`.")


def admin_key(text: str) -> AdminKey:
    """The admin key from its text. Raises `ConfigError` where it is too short to be one."""
    return AdminKey(digest=_hash(_checked(text.strip(), "the admin key")))


def read_keys(path: Path) -> Keyring:
    """The keys of a file. Raises `ConfigError` where it cannot be read or used."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigError(f"The file of API keys {path} cannot be read: {reason}. Name one that can.") from None
    return parse_keys(text, source=str(path))


def parse_keys(text: str, *, source: str) -> Keyring:
    """Keys from lines `key tenant [pattern ...]`; blank lines and lines that start with `#` are left out.

    A tenant without patterns may use every prefix. Several keys may belong to one tenant, each with its own patterns.

    Raises:
        ConfigError: a line that cannot be used, named by its number and never quoted; or no key at all.
    """
    tenants: dict[bytes, Tenant] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        place = f"line {number} of {source}"
        if len(words) < 2:
            raise ConfigError(f"{place} must read `key tenant [prefix-pattern ...]`; it has one word. Add the tenant's name.")
        digest = _hash(_checked(words[0], f"the key in {place}"))
        if digest in tenants:
            raise ConfigError(f"{place} gives a key for the second time. Give each key once.")
        tenants[digest] = Tenant(name=words[1], patterns=tuple(_pattern(word, place) for word in words[2:]))
    if not tenants:
        raise ConfigError(f"{source} holds no API key. Write lines `key tenant [prefix-pattern ...]`, or serve without keys.")
    return Keyring(tenants)


def _pattern(word: str, place: str) -> re.Pattern[str]:
    if not _PATTERN.fullmatch(word):
        raise ConfigError(f"{place} has a pattern that matches no prefix: {word[:80]!r}. Write a name, or one with `*`.")
    return re.compile(fnmatch.translate(word))


def _checked(key: str, what: str) -> str:
    if len(key) < LEAST_KEY or not _KEY.fullmatch(key):
        raise ConfigError(
            f"{what} must have {LEAST_KEY} or more printable ASCII characters and no blanks; it has {len(key)}. Make a longer one."
        )
    return key


def _bearer(authorization: str | None) -> str:
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _unauthorized(message: str) -> Refusal:
    return Refusal(401, message, code="invalid_api_key", headers={"www-authenticate": "Bearer"})

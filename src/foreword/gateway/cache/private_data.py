"""Personal data and secrets in a text, as far as patterns and check digits find them.

It errs towards finding: a text that holds something of the kind is not cached, and that is all that happens to it. Names, places and dates
are no patterns; whoever must find them gives the cache another finder.

Sources: Luhn's check digit (ISO/IEC 7812-1, annex B), IBAN's (ISO 13616, mod 97), the Spanish DNI's letter, the Brazilian CPF's digits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol


class PrivateData(Protocol):
    """Finds what must not be kept."""

    def kinds(self, text: str) -> frozenset[str]:
        """What kinds of personal data or secrets are in a text, by name; empty where there are none."""
        ...


def _digits(text: str) -> list[int]:
    return [int(letter) for letter in text if letter.isdigit()]


def luhn(text: str) -> bool:
    """Whether the digits in `text` end with the right check digit."""
    digits = _digits(text)
    doubled = (digit if place % 2 == 0 else (digit * 2 - 9 if digit > 4 else digit * 2) for place, digit in enumerate(reversed(digits)))
    return len(set(digits)) > 1 and sum(doubled) % 10 == 0


def iban(text: str) -> bool:
    """Whether `text` is an IBAN: its first four characters moved to the end, letters read as 10 to 35, are 1 modulo 97."""
    plain = re.sub(r"[^0-9A-Za-z]", "", text).upper()
    if not 15 <= len(plain) <= 34:
        return False
    return int("".join(str(int(letter, 36)) for letter in plain[4:] + plain[:4])) % 97 == 1


def _social_security(text: str) -> bool:
    """A number that the US issues: area not 000, 666 or 900 and more, no part all zeros."""
    area, group, serial = re.split(r"[- ]", text)
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def _spanish(text: str) -> bool:
    number = re.sub(r"[XYZ]", lambda match: str("XYZ".index(match.group())), text[:-1].upper().rstrip("-"))
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == text[-1].upper()


def _brazilian(text: str) -> bool:
    digits = _digits(text)
    if len(set(digits)) == 1:
        return False
    return all(
        (sum(digit * weight for digit, weight in zip(digits[:count], range(count + 1, 1, -1), strict=True)) * 10 % 11) % 10 == digits[count]
        for count in (9, 10)
    )


def _phone(text: str) -> bool:
    return 8 <= len(_digits(text)) <= 15


_PATTERNS: tuple[tuple[str, re.Pattern[str], Callable[[str], bool] | None], ...] = (
    ("email", re.compile(r"(?<![\w.+%-])[\w.+%-]+@[\w-]+(?:\.[\w-]+)+"), None),
    ("card", re.compile(r"(?<![\d.])\d(?:[ -]?\d){11,18}(?![\d.]\d)"), luhn),
    ("iban", re.compile(r"\b[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]{2,4}){3,8}\b"), iban),
    ("phone", re.compile(r"(?<![\w.])(?:\+|00)\d{1,3}[ .-]?(?:\(?\d{1,4}\)?[ .-]?){2,6}\d{2,4}(?!\w)"), _phone),
    ("phone", re.compile(r"(?<![\w.])\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?:\s?(?:x|ext\.?)\s?\d{1,6})?(?!\w)"), None),
    ("phone", re.compile(r"(?i)\b(?:phone|mobile|cell|call|tel|fax|whatsapp|text)\b[^\d\n]{0,24}\+?\d(?:[ ().-]{0,2}\d){6,14}"), None),
    ("phone", re.compile(r"(?<![\w.])0\d{2,5}[ -/]{0,3}\d{2,4}(?:[ -]\d{2,4}){1,3}(?!\w)"), _phone),
    ("national id", re.compile(r"(?<![\w-])\d{3}[- ]\d{2}[- ]\d{4}(?![\w-])"), _social_security),
    ("national id", re.compile(r"\b[A-CEGHJ-PR-TW-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D]\b"), None),
    ("national id", re.compile(r"\b[XYZxyz]?\d{7,8}-?[A-Za-z]\b"), _spanish),
    ("national id", re.compile(r"\b\d{3}\.\d{3}\.\d{3}-\d{2}\b"), _brazilian),
    (
        "national id",
        re.compile(
            r"(?i)\b(?:ssn|social security|passport|driver'?s? licen[cs]e|national id|tax id|id card)\b"
            r"[^\d\n]{0,24}[A-Z]{0,3}\d[\dA-Z -]{4,}"
        ),
        None,
    ),
    ("ip address", re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])"), None),
    ("secret", re.compile(r"\b(?:sk|pk|rk)[-_](?:live|test|proj|ant|or)?[-_]?[A-Za-z0-9_-]{16,}"), None),
    ("secret", re.compile(r"\b(?:gh[pousr]_|github_pat_|glpat-|xox[abeprs]-|hf_|AIza|ya29\.)[A-Za-z0-9_.-]{10,}"), None),
    ("secret", re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), None),
    ("secret", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"), None),
    ("secret", re.compile(r"(?<![A-Za-z0-9_-])eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*"), None),
    (
        "secret",
        re.compile(r"(?i)\b(?:api[ _-]?key|secret|token|password|passwd|pwd|bearer)\b\s*(?:is|[:=])?\s*['\"]?(?=\S*\d)[\w./+=-]{8,}"),
        None,
    ),
    ("secret", re.compile(r"\b[a-z][a-z0-9+.-]{0,31}://[^\s/:@]{1,256}:[^\s/@]{1,256}@"), None),
)

_KEY_BLOCK = (
    "secret",
    re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL),
    None,
)
"""A key with all that is in it; its first line says enough to find it, and not to make it unreadable."""


_SIGN = re.compile(r"[\d@]|-----B")
_LEAST_SECRET = 13
"""Characters of the shortest secret that has neither a digit nor an `@`, all in one word."""


class Patterns:
    """The finder that needs nothing else. Meets `PrivateData`."""

    def kinds(self, text: str) -> frozenset[str]:
        """See `PrivateData`."""
        # Most texts hold nothing that any pattern could begin with, and are looked at once and not twenty times.
        if _SIGN.search(text) is None and max(map(len, text.split()), default=0) < _LEAST_SECRET:
            return _NOTHING
        return frozenset(name for name, pattern, check in _PATTERNS if _is_in(text, pattern, check))


_NOTHING: frozenset[str] = frozenset()


def _is_in(text: str, pattern: re.Pattern[str], check: Callable[[str], bool] | None) -> bool:
    if check is None:
        return pattern.search(text) is not None
    return any(check(match.group()) for match in pattern.finditer(text))


def redacted(text: str) -> str:
    """The text with what `Patterns` finds in it made unreadable: `write to [email]`."""
    for name, pattern, check in (_KEY_BLOCK, *_PATTERNS):
        text = _replaced(text, pattern, check, f"[{name}]")
    return text


def _replaced(text: str, pattern: re.Pattern[str], check: Callable[[str], bool] | None, by: str) -> str:
    return pattern.sub(lambda match: by if check is None or check(match.group()) else match.group(), text)

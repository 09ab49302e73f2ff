"""Texts with what is private in them made unreadable."""

from __future__ import annotations

import time

import pytest

from foreword.gateway.cache.private_data import Patterns, redacted


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("write to jo@example.org.", "write to [email]."),
        ("card 4111 1111 1111 1111, card 4111 1111 1111 1112", "card [card], card 4111 1111 1111 1112"),
        ("use sk-proj-abcdefghijklmnop1234 now", "use [secret] now"),
        ("-----BEGIN RSA PRIVATE KEY-----\nMIIE\n-----END RSA PRIVATE KEY-----\nbye", "[secret]\nbye"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE", "[secret]"),
        ("from 192.168.0.1", "from [ip address]"),
        ("nothing of the kind", "nothing of the kind"),
        ("", ""),
    ],
)
def test_findings_are_named_by_their_kind(text: str, said: str) -> None:
    assert redacted(text) == said


def test_nothing_is_found_in_what_is_redacted() -> None:
    text = "jo@example.org, +49 30 123456, 4111 1111 1111 1111, 078-05-1120, https://me:pw@example.org/, DE89 3704 0044 0532 0130 00"
    assert Patterns().kinds(text) and not Patterns().kinds(redacted(text))


@pytest.mark.parametrize("text", ["a" * 200_000, "a." * 100_000, "eyJ-" * 50_000, "x://a:" * 30_000])
def test_a_text_that_nearly_matches_everywhere_does_not_take_for_ever(text: str) -> None:
    began = time.process_time()
    Patterns().kinds(text)
    # Quadratic time would be minutes.
    assert time.process_time() - began < 30

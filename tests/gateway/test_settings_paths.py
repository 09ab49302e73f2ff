"""Paths in a `foreword.toml`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foreword.gateway.settings_paths import rooted

FOLDER = Path("/etc/foreword")


@pytest.mark.parametrize(
    ("given", "rooted_to"),
    [
        ({"store": {"ledger": "l.sqlite", "durable": True}}, {"store": {"ledger": "/etc/foreword/l.sqlite", "durable": True}}),
        ({"store": {"capture": "a/c.sqlite"}}, {"store": {"capture": "/etc/foreword/a/c.sqlite"}}),
        ({"store": {"batches": "b.sqlite"}}, {"store": {"batches": "/etc/foreword/b.sqlite"}}),
        (
            {"intake_model": "i.json", "router_model": "../r.json"},
            {"intake_model": "/etc/foreword/i.json", "router_model": "/etc/foreword/../r.json"},
        ),
        (
            {"tasks": {"t": {"assemble": {"passages": {"folder": "texts"}}}, "u": {}}},
            {"tasks": {"t": {"assemble": {"passages": {"folder": "/etc/foreword/texts"}}}, "u": {}}},
        ),
        (
            {"models": {"m": {"engine": "transformers", "model": "./mine"}}},
            {"models": {"m": {"engine": "transformers", "model": "/etc/foreword/mine"}}},
        ),
    ],
)
def test_what_is_relative_starts_at_the_files_folder(given: dict[str, Any], rooted_to: dict[str, Any]) -> None:
    before = repr(given)
    assert rooted(given, FOLDER) == rooted_to
    assert repr(given) == before


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"store": {"ledger": "/var/l.sqlite"}},
        {"store": {"ledger": "none", "batches": "none"}},
        {"store": {"ledger": "postgresql://a/b"}},
        {"models": {"m": {"engine": "transformers", "model": "smollm2"}, "n": {"url": "http://a", "model": "org/name"}}},
        # Of the wrong kind; whoever checks them says so.
        {"store": 7, "tasks": [], "models": {"m": "x"}, "intake_model": 7},
        {"tasks": {"t": {"assemble": {"passages": "texts"}}}},
    ],
)
def test_what_is_none_or_not_relative_stays(given: dict[str, Any]) -> None:
    assert rooted(given, FOLDER) == given

"""Look-ups in a store of prompts; tests/gateway/test_naming.py tries them on prefixes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from foreword.gateway.references import References
from foreword.gateway.tenants import EVERYBODY, Tenant, parse_keys
from foreword.prompting.store import PromptStore
from foreword.prompting.template import parse_text

ONLY_DESK = parse_keys("key-of-anna anna desk", source="test").tenant("Bearer key-of-anna")


@pytest.fixture
def store(tmp_path: Path) -> PromptStore:
    """`desk` (two versions, `prod` is the first) and `till`."""
    store = PromptStore(tmp_path / "prompts")
    for name in ("desk", "desk", "till"):
        store.publish(parse_text("be kind", source="test", name=name))
    store.alias("desk", "prod", 1)
    return store


@pytest.mark.parametrize(
    ("ref", "found"),
    [
        ("desk", "desk@v2"),
        ("desk@prod", "desk@v1"),
        ("desk@v1", "desk@v1"),
        ("till@1", "till@v1"),
        *((ref, None) for ref in ("nobody", "desk@nope", "desk@v9", "../desk", "", "@prod", "a\0b", "\ud800", "x" * 5000, "desk+till")),
    ],
)
def test_what_a_reference_means(store: PromptStore, ref: str, found: str | None):
    reference = References(store).find(ref, EVERYBODY)
    assert (None if reference is None else str(reference)) == found


@pytest.mark.parametrize("settled", [False, True])
def test_changes_are_seen(store: PromptStore, settled: bool):
    references = References(store)
    if settled:
        before = time.time() - 100
        for folder in store.root.iterdir():
            os.utime(folder, (before, before))
    assert [str(references.find("desk@prod", EVERYBODY)) for _ in range(2)] == ["desk@v1"] * 2
    store.alias("desk", "prod", 2)
    assert str(references.find("desk@prod", EVERYBODY)) == "desk@v2"
    store.remove("till", all=True)
    assert references.find("till", EVERYBODY) is None


def test_a_tenant_knows_only_its_own(store: PromptStore):
    references = References(store)
    assert references.find("till", ONLY_DESK) is None and references.find("desk", ONLY_DESK) is not None
    assert [listing.name for listing in references.listings(ONLY_DESK)] == ["desk"]

    def near(ref: str, tenant: Tenant) -> list[str]:
        return references.near(ref, tenant)

    assert near("tills@prod", EVERYBODY) == ["till"] and near("tills", ONLY_DESK) == [] and near("dsk", ONLY_DESK) == ["desk"]

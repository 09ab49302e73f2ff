"""From a model's name to prefix files, while the store changes."""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import openai
import pytest

from foreword.gateway.errors import Refusal
from foreword.gateway.naming import MOST_PARTS, Names
from foreword.gateway.tenants import EVERYBODY, Tenant, parse_keys

ONLY_ANNA = parse_keys("key-of-anna anna anna support", source="test").tenant("Bearer key-of-anna")


@pytest.fixture
def names(store: Any) -> Names:
    return Names("echo", store)


def files(names: Names, model: str, tenant: Tenant = EVERYBODY) -> list[str] | None:
    found = names.find(model, tenant)
    return None if found is None else [f"{path.parent.name}/{path.name}" for path in found.files]


def settle(store: Any) -> None:
    """Makes every folder one that was changed long ago, whose look-ups are kept."""
    before = time.time() - 100
    for folder in store.root.iterdir():
        os.utime(folder, (before, before))


@pytest.mark.parametrize(
    ("model", "found"),
    [
        ("echo", []),
        ("echo:support", ["support/v0002.safetensors"]),
        ("echo:support@prod", ["support/v0001.safetensors"]),
        ("echo:support@v1", ["support/v0001.safetensors"]),
        ("echo:support@latest", ["support/v0002.safetensors"]),
        ("echo:support@prod+anna", ["support/v0001.safetensors", "anna/v0001.safetensors"]),
        ("echo:anna+support@prod", ["anna/v0001.safetensors", "support/v0001.safetensors"]),
        *(
            (model, None)
            for model in ("gpt-4", "echo:", "echo:nobody", "echo:support@nope", "echo:support@v9", "echo:support+nobody", "Echo")
        ),
        *(
            (f"echo:{ref}", None)
            for ref in ("../x", "/etc/passwd", "..", ".", "a/b", "+", "+anna", "anna+", "@prod", "a\0b", "x" * 500, "\ud800")
        ),
        ("echo:" + "+".join(["anna"] * (MOST_PARTS + 1)), None),
    ],
)
def test_what_a_name_means(names: Names, model: str, found: list[str] | None):
    assert files(names, model) == found


def test_a_stored_name_with_a_plus_goes_first(names: Names, store: Any, prefix_named: Any):
    store.publish(prefix_named("support+anna"))
    assert files(names, "echo:support+anna") == ["support+anna/v0001.safetensors"]
    assert files(names, "echo:anna+support") == ["anna/v0001.safetensors", "support/v0002.safetensors"]


def test_a_base_with_a_colon(store: Any):
    names = Names("qwen:0.5b", store)
    assert files(names, "qwen:0.5b") == [] and files(names, "qwen:0.5b:anna") == ["anna/v0001.safetensors"]
    assert files(names, "qwen:anna") is None


@pytest.mark.parametrize("settled", [False, True])
def test_changes_are_seen(names: Names, store: Any, prefix_named: Any, settled: bool):
    if settled:
        settle(store)
    assert files(names, "echo:anna") == ["anna/v0001.safetensors"] and files(names, "echo:new") is None
    assert files(names, "echo:support@prod") == ["support/v0001.safetensors"]
    store.publish(prefix_named("new"))
    store.publish(prefix_named("anna"))
    store.alias("support", "prod", 2)
    assert files(names, "echo:anna") == ["anna/v0002.safetensors"] and files(names, "echo:new") == ["new/v0001.safetensors"]
    assert files(names, "echo:support@prod") == ["support/v0002.safetensors"]
    if settled:
        settle(store)
        assert files(names, "echo:anna") == ["anna/v0002.safetensors"]
    store.remove("anna@v2")
    store.remove("new", all=True)
    assert files(names, "echo:anna") == ["anna/v0001.safetensors"] and files(names, "echo:new") is None


@pytest.mark.parametrize("settled", [False, True])
def test_only_a_settled_name_is_kept(names: Names, store: Any, settled: bool):
    folder = store.root / "support"
    changed = time.time() + (-100 if settled else 100)
    os.utime(folder, (changed, changed))
    assert files(names, "echo:support@prod") == ["support/v0001.safetensors"]
    # Taken away without a trace in the folder's time of change, as two changes within one tick of the disk's clock are: only a look-up
    # that was kept still finds it, and one so close to a change must not be.
    (folder / "aliases.json").unlink()
    os.utime(folder, (changed, changed))
    assert files(names, "echo:support@prod") == (["support/v0001.safetensors"] if settled else None)


def test_labels_leave_versions_and_users_out(names: Names):
    labels = [found.label for model in ("echo", "echo:support@prod", "echo:support+anna") if (found := names.find(model, EVERYBODY))]
    assert labels == ["", "support", "support+*"]


def test_a_tenant_knows_only_its_own(names: Names, store: Any, prefix_named: Any):
    store.publish(prefix_named("anna+ben"))
    assert files(names, "echo:anna", ONLY_ANNA) and files(names, "echo:support+anna", ONLY_ANNA)
    for model in ("echo:ben", "echo:anna+ben", "echo:support+ben"):
        assert files(names, model, ONLY_ANNA) is None and files(names, model) is not None
    assert [listing.name for listing in names.listings(ONLY_ANNA)] == ["anna", "support"]


def test_suggestions_are_near_and_known(names: Names):
    def message(model: str, tenant: Tenant = EVERYBODY) -> str:
        with pytest.raises(Refusal) as refused:
            asyncio.run(names.named(model, tenant))
        assert (refused.value.status, refused.value.detail.code) == (404, "model_not_found")
        return str(refused.value)

    assert "Did you mean `echo:support`?" in message("echo:suport@prod")
    assert "alone or as `echo:PREFIX`" in message("gpt-4")
    assert message("echo:bem", ONLY_ANNA) == message("echo:bem").replace(
        "Did you mean `echo:ben`?", "`GET /v1/models` lists what there is."
    )
    assert message("echo:ben", ONLY_ANNA) == message("echo:bem", ONLY_ANNA).replace("bem", "ben")


def test_no_message_tells_where_the_store_lies(names: Names, store: Any):
    (store.root / "anna" / "aliases.json").write_text("{broken")
    for model in ("echo:anna@prod", "echo:nobody", "echo:" + "x" * 5000):
        with pytest.raises(Refusal) as refused:
            asyncio.run(names.named(model, EVERYBODY))
        assert str(store.root) not in str(refused.value) and len(str(refused.value)) < 500


def test_the_store_changes_while_the_server_runs(server: Any, prefix_named: Any):
    messages: Any = [{"role": "user", "content": "hi"}]
    with server.client() as client:

        def positions(model: str) -> int:
            return client.chat.completions.create(model=model, messages=messages).usage.prompt_tokens_details.prefix_positions

        with pytest.raises(openai.NotFoundError):
            positions("echo:late")
        server.store.publish(prefix_named("late", positions=4))
        assert positions("echo:late") == 4
        server.store.publish(prefix_named("late", positions=6))
        assert positions("echo:late") == 6
        prefix_named("late", positions=7).save(server.store.resolve("late").path)
        assert positions("echo:late") == 7
        server.store.resolve("late").path.write_bytes(b"half")
        with pytest.raises(openai.InternalServerError) as damaged:
            positions("echo:late")
        assert damaged.value.status_code == 503 and str(server.store.root) not in damaged.value.message
        server.store.remove("late@v2")
        assert positions("echo:late") == 4
        server.store.remove("late", all=True)
        with pytest.raises(openai.NotFoundError):
            positions("echo:late")

"""The store: versions, aliases, and other processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from foreword.errors import PrefixFileError, StoreError
from foreword.prefix.store import PrefixStore, default_root


@pytest.fixture
def store(tmp_path) -> PrefixStore:
    return PrefixStore(tmp_path / "prefixes")


def files(store: PrefixStore, name: str = "support") -> list[str]:
    return sorted(entry.name for entry in (store.root / name).iterdir())


def test_publish_counts_versions_and_resolve_finds_them(store, make_prefix):
    first, second = store.publish(make_prefix(seed=1)), store.publish(make_prefix(seed=2))
    assert (str(first), str(second)) == ("support@v1", "support@v2")
    assert files(store) == ["v0001.safetensors", "v0002.safetensors"]
    assert store.resolve("support") == store.resolve("support@2") == store.resolve("support@latest") == second
    assert store.resolve("support@v1") == store.resolve(first) == first
    assert store.header("support@v1").digest == make_prefix(seed=1).header.digest
    assert torch.equal(store.load("support").key_LHND, make_prefix(seed=2).key_LHND)


def test_aliases_point_at_versions(store, make_prefix):
    for seed in range(3):
        store.publish(make_prefix(seed=seed))
    assert store.alias("support", "prod", 2).version == 2
    store.alias("support", "canary", "v3")
    assert store.alias("support", "stable", "prod").version == 2
    assert store.resolve("support@prod").version == 2
    store.alias("support", "prod", 1)
    assert store.list()[0].aliases == {"canary": 3, "prod": 1, "stable": 2}
    store.unalias("support", "stable")
    with pytest.raises(StoreError, match="no alias `stable`"):
        store.resolve("support@stable")
    with pytest.raises(StoreError, match="no alias"):
        store.unalias("support", "stable")


@pytest.mark.parametrize("alias", ["3", "v3", "latest", "", "a/b", "../x", "Prod", "a" * 65])
def test_aliases_that_are_not_allowed(store, make_prefix, alias):
    store.publish(make_prefix())
    with pytest.raises(StoreError, match="An alias has"):
        store.alias("support", alias, 1)


def test_list_sees_what_is_there_now(store, make_prefix):
    assert store.list() == ()
    store.publish(make_prefix(name="b"))
    store.publish(make_prefix(name="a"))
    store.publish(make_prefix(name="a"))
    other = PrefixStore(store.root)
    assert [(entry.name, entry.versions, entry.latest) for entry in other.list()] == [("a", (1, 2), 2), ("b", (1,), 1)]
    store.remove("b@v1")
    assert [entry.name for entry in other.list()] == ["a"]


def test_a_file_put_there_by_hand_is_served(store, make_prefix):
    store.publish(make_prefix(seed=1))
    make_prefix(seed=9).save(store.root / "support" / "v0007.safetensors")
    assert store.resolve("support").version == 7
    assert store.publish(make_prefix()).version == 8


def test_messages_suggest_close_names(store, make_prefix):
    with pytest.raises(StoreError, match="none yet"):
        store.resolve("support")
    store.publish(make_prefix())
    store.alias("support", "prod", 1)
    with pytest.raises(StoreError, match="Did you mean `support`"):
        store.load("suport")
    with pytest.raises(StoreError, match="Did you mean `prod`"):
        store.load("support@prd")
    with pytest.raises(StoreError, match="There are: support"):
        store.header("zebra@prod")
    with pytest.raises(StoreError, match="Version 5 of `support` does not exist"):
        store.resolve("support@v5")


@pytest.mark.parametrize(
    "ref", ["../support", "/etc/passwd", "", ".", "..", ".locks", "support/v0001", "a\0b", "support@", "support@../x", "support@a@b"]
)
def test_references_cannot_leave_the_store(store, make_prefix, ref):
    store.publish(make_prefix())
    for action in (store.resolve, store.load, store.header, lambda ref: store.remove(ref, force=True)):
        with pytest.raises(StoreError):
            action(ref)
    assert len(store.list()) == 1


def test_remove_one_version_and_never_give_it_again(store, make_prefix):
    for seed in range(3):
        store.publish(make_prefix(seed=seed))
    loaded = store.load("support@3")
    assert [str(gone) for gone in store.remove("support@3")] == ["support@v3"]
    assert store.resolve("support").version == 2
    with pytest.raises(StoreError, match="Version 3 of `support` was removed"):
        store.load("support@3")
    assert store.publish(make_prefix()).version == 4
    assert torch.equal(loaded.key_LHND, make_prefix(seed=2).key_LHND)


def test_what_an_alias_points_at_is_kept(store, make_prefix):
    for seed in range(2):
        store.publish(make_prefix(seed=seed))
    store.alias("support", "prod", 1)
    for ref in ("support@v1", "support@prod"):
        with pytest.raises(StoreError, match="prod points at it"):
            store.remove(ref)
    with pytest.raises(StoreError, match="in use"):
        store.remove("support", all=True)
    assert store.list()[0].versions == (1, 2)
    store.remove("support@v1", force=True)
    assert (store.list()[0].versions, store.list()[0].aliases) == ((2,), {})


def test_remove_a_whole_name(store, make_prefix):
    store.publish(make_prefix())
    store.publish(make_prefix(name="other"))
    with pytest.raises(StoreError, match="whole name"):
        store.remove("support")
    with pytest.raises(StoreError, match="whole name"):
        store.remove("support@v1", all=True)
    assert [str(gone) for gone in store.remove("support", all=True)] == ["support@v1"]
    assert [entry.name for entry in store.list()] == ["other"]
    with pytest.raises(StoreError, match="No prefix is named"):
        store.remove("support", all=True)
    assert store.publish(make_prefix()).version == 1


def test_a_damaged_alias_file_is_named_and_versions_still_load(store, make_prefix):
    store.publish(make_prefix())
    for text in ("{", '{"prod": "1"}', "[]", '{"prod": 0}'):
        (store.root / "support" / "aliases.json").write_text(text)
        with pytest.raises(StoreError, match=r"aliases\.json"):
            store.resolve("support@prod")
    assert store.load("support@v1").name == "support"
    assert store.load("support").name == "support"


def test_a_damaged_prefix_is_named(store, make_prefix):
    path = store.publish(make_prefix()).path
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(PrefixFileError, match="truncated"):
        store.load("support")


def test_a_root_that_cannot_be_made(tmp_path, make_prefix):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="FOREWORD_HOME"):
        PrefixStore(tmp_path / "file" / "store").publish(make_prefix())


def test_looking_up_makes_nothing(store):
    for action in (store.resolve, store.header, lambda ref: store.remove(f"{ref}@1"), lambda ref: store.alias(ref, "prod", 1)):
        with pytest.raises(StoreError):
            action("support")
    assert not store.root.exists()


def test_leftovers_are_ignored_and_cleaned(store, make_prefix):
    store.publish(make_prefix())
    (store.root / "support" / ".v0002.safetensors.1.aa.tmp").write_bytes(b"half")
    doomed = store.root / ".removed-support@00000000"
    doomed.mkdir()
    (doomed / "v0001.safetensors").write_bytes(b"old")
    assert store.resolve("support").version == 1 and len(store.list()) == 1
    store.publish(make_prefix())
    assert files(store) == ["v0001.safetensors", "v0002.safetensors"]
    assert not doomed.exists()


def test_default_root(monkeypatch, tmp_path):
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path))
    assert default_root() == PrefixStore().root == tmp_path / "prefixes"
    monkeypatch.setenv("FOREWORD_HOME", "")
    assert default_root() == Path.home() / ".foreword" / "prefixes"


def start(code: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)


def test_processes_that_publish_at_once_never_overwrite_one_another(store, make_prefix, tmp_path):
    go = tmp_path / "go"
    sources = []
    for seed in range(3):
        make_prefix(seed=seed).save(tmp_path / str(seed))
        sources.append(tmp_path / str(seed))
    code = """
import pathlib, time
from foreword.prefix.artifact import Prefix
from foreword.prefix.store import PrefixStore
prefix, store = Prefix.load({source!r}), PrefixStore({root!r})
print("ready", flush=True)
while not pathlib.Path({go!r}).exists():
    time.sleep(0.001)
for turn in range(8):
    reference = store.publish(prefix)
    store.alias("support", {alias!r}, reference.version)
    print(reference.version, flush=True)
"""
    workers = [
        start(code.format(source=str(source), root=str(store.root), go=str(go), alias=f"by-{seed}")) for seed, source in enumerate(sources)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    go.touch()
    given = [[int(line) for line in worker.communicate(timeout=60)[0].split()] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert sorted(version for versions in given for version in versions) == list(range(1, 25))
    for seed, versions in enumerate(given):
        for version in versions:
            assert store.load(f"support@{version}").header.digest == make_prefix(seed=seed).header.digest
        # No alias was lost to another process's write.
        assert store.resolve(f"support@by-{seed}").version == versions[-1]


def test_kill_9_while_publishing_leaves_a_readable_store(store, make_prefix, tmp_path):
    make_prefix(positions=20_000).save(tmp_path / "large")
    code = f"""
from foreword.prefix.artifact import Prefix
from foreword.prefix.store import PrefixStore
prefix, store = Prefix.load({str(tmp_path / "large")!r}), PrefixStore({str(store.root)!r})
store.publish(prefix)
print("ready", flush=True)
while True:
    store.publish(prefix)
"""
    worker = start(code)
    assert worker.stdout.readline() == "ready\n"
    deadline = time.monotonic() + 30
    while not any((store.root / "support").glob(".*.tmp")) and time.monotonic() < deadline:
        pass
    worker.send_signal(signal.SIGKILL)
    worker.communicate(timeout=30)
    (listing,) = store.list()
    assert listing.versions == tuple(range(1, len(listing.versions) + 1))
    for version in listing.versions:
        assert store.load(f"support@{version}").positions == 20_000
    # The lock died with its holder, and the half-written file goes with the next publication.
    assert store.publish(make_prefix()).version == listing.latest + 1
    assert not any((store.root / "support").glob(".*"))

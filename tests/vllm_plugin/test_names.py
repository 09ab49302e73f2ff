"""From a model name to a version of a prefix."""

from __future__ import annotations

import os
import shutil

import pytest

from foreword.errors import PrefixFileError, StoreError
from foreword.vllm_plugin.names import ModelName, Names, parse


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("base", ModelName(base="base", prefix=None)),
        ("base:support", ModelName(base="base", prefix="support")),
        ("base:support@prod", ModelName(base="base", prefix="support@prod")),
        ("base:", ModelName(base="base", prefix="")),
        ("org/model:v2", ModelName(base="org/model:v2", prefix=None)),
        ("org/model:v2:support", ModelName(base="org/model:v2", prefix="support")),
        ("org/model:support", ModelName(base="org/model", prefix="support")),
        ("other:support", None),
        ("", None),
    ],
)
def test_a_served_name_is_split_off(model, expected):
    assert parse(model, {"base", "org/model", "org/model:v2"}) == expected


def test_a_reference_is_pinned_to_its_version(store, make_prefix):
    names = Names(store)
    for seed in range(2):
        store.publish(make_prefix(seed=seed))
    store.alias("support", "prod", 1)
    assert names.find("support").reference == "support@v2"
    assert names.find("support@prod").reference == "support@v1"
    assert names.find("support@prod").header.digest == make_prefix(seed=0).header.digest


def test_publishing_replacing_and_removing_count_from_the_next_look_up_on(store, make_prefix):
    names = Names(store)
    with pytest.raises(StoreError, match="No prefix"):
        names.find("support")
    store.publish(make_prefix(seed=1))
    first = names.find("support")
    store.publish(make_prefix(seed=2))
    assert names.find("support").header.digest != first.header.digest
    assert names.find("support@v1") == first
    store.remove("support", all=True)
    with pytest.raises(StoreError):
        names.find("support@v1")


def test_a_file_put_in_the_place_of_another_is_seen(store, make_prefix, tmp_path):
    names = Names(store)
    path = store.publish(make_prefix(seed=1)).path
    before = names.find("support")
    other = tmp_path / "other.safetensors"
    make_prefix(seed=2).save(other)
    os.replace(other, path)
    after = names.find("support")
    assert after.identity != before.identity and after.header.digest == make_prefix(seed=2).header.digest


def test_a_half_written_file_is_refused(store, make_prefix):
    path = store.publish(make_prefix()).path
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(PrefixFileError):
        Names(store).find("support")


@pytest.mark.parametrize("reference", ["", "../secret", "a/b", "support@", "support@v0@v1", "Ü"])
def test_malformed_references_are_refused(store, make_prefix, reference):
    store.publish(make_prefix())
    with pytest.raises(StoreError):
        Names(store).find(reference)


def test_names_and_aliases_are_listed(store, make_prefix):
    store.publish(make_prefix("zebra"))
    store.publish(make_prefix("support"))
    store.alias("support", "prod", 1)
    assert Names(store).listed() == ("support", "support@prod", "zebra")
    shutil.rmtree(store.root)
    assert Names(store).listed() == ()

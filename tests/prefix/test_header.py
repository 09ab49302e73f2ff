"""The header: what it accepts, refuses and compares."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta, timezone

import pytest
from pydantic import ValidationError

from foreword.errors import PrefixError
from foreword.prefix.header import Fingerprint, Geometry, PrefixHeader, RotaryGroup, build_header, check_name


@pytest.fixture
def fields(fingerprint, geometry) -> dict:
    return {
        "name": "support",
        "kind": "learned",
        "fingerprint": fingerprint,
        "geometry": geometry,
        "positions": 4,
        "dtype": "bfloat16",
        "prompt_format": "full",
        "created": datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC),
        "digest": "a" * 64,
    }


def test_json_gives_the_same_header(fields):
    recipe = {"rate": 0.1, "steps": [1, 2], "nested": {"on": True, "note": None, "text": "né 🎈"}}
    header = PrefixHeader(**fields, recipe=recipe, quality={"bleu": 0.1 + 0.2}, seed=7, parents=("b" * 64,), text_tail="call 0123")
    assert PrefixHeader.model_validate_json(header.model_dump_json(), strict=True) == header


def test_created_is_kept_in_utc(fields):
    here = datetime(2025, 1, 2, 3, 4, tzinfo=timezone(timedelta(hours=5)))
    header = PrefixHeader(**fields | {"created": here})
    assert header.created == here and header.created.tzinfo is UTC


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", "../etc", "starts with a letter or digit"),
        ("name", "a/b", "characters"),
        ("name", "a\n", "characters"),
        ("name", "a" * 65, "64"),
        ("name", "a+b", "composed"),
        ("format_version", 2, "version 2"),
        ("created", datetime(2025, 1, 2), "created"),
        ("sink", 5, "sink"),
        ("positions", -1, "positions"),
        ("digest", "A" * 64, "digest"),
        ("training_data", "short", "training_data"),
        ("quality", {"bleu": float("nan")}, "quality"),
        ("recipe", {"rate": float("inf")}, "recipe"),
        ("recipe", {"torch": object()}, "recipe"),
        ("kind", "magic", "kind"),
        ("position_policy", "end", "position_policy"),
        ("colour", "red", "colour"),
    ],
)
def test_what_is_not_allowed_is_named(fields, field, value, words):
    with pytest.raises(PrefixError, match=words):
        build_header(fields | {field: value})


def test_it_cannot_be_changed(fields):
    with pytest.raises(ValidationError):
        PrefixHeader(**fields).name = "other"


def test_changed_validates(fields):
    header = PrefixHeader(**fields)
    assert header.changed(name="other").name == "other"
    with pytest.raises(PrefixError, match="got 'Other'"):
        header.changed(name="Other")


def test_composed_names_may_have_a_plus(fields):
    assert PrefixHeader(**fields | {"kind": "composed", "name": "a+b"}).name == "a+b"
    check_name("a+b", composed=True)
    with pytest.raises(ValueError, match="letter or digit"):
        check_name("+a", composed=True)


def test_differences_name_each_field(fingerprint):
    other = fingerprint.model_copy(update={"weights": "9" * 64, "tokenizer": "8" * 64})
    assert fingerprint.differences(fingerprint) == {}
    assert fingerprint.differences(other) == {"weights": ("1" * 64, "9" * 64), "tokenizer": ("2" * 64, "8" * 64)}


def test_fingerprints_are_sha256():
    with pytest.raises(ValidationError, match="weights"):
        Fingerprint(architecture="A", config="0" * 64, weights="0" * 63, tokenizer="0" * 64, chat_template="0" * 64)


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([((0,), 3, (1.0,))], "even"),
        ([((0,), 4, (1.0,))], "needs 2"),
        ([((0,), 10, (1.0,) * 5)], "more than head_dim"),
        ([((2,), 4, (1.0, 0.1))], "outside"),
        ([((0,), 4, (1.0, 0.1)), ((0, 1), 4, (1.0, 0.1))], "two groups"),
        ([((0,), 4, (1.0, float("nan")))], "finite"),
    ],
)
def test_rotary_groups_must_fit(groups, words):
    with pytest.raises(ValidationError, match=words):
        Geometry(
            layers=2,
            kv_heads=1,
            head_dim=8,
            rotary=tuple(RotaryGroup(layers=layers, rotary_dim=dim, inverse_frequencies=freqs) for layers, dim, freqs in groups),
        )


def test_reading_headers_and_the_store_load_no_torch(make_prefix, tmp_path):
    from foreword.prefix.store import PrefixStore

    PrefixStore(tmp_path).publish(make_prefix())
    code = f"""
import sys
from foreword.prefix.header import read_header
from foreword.prefix.store import PrefixStore
store = PrefixStore({str(tmp_path)!r})
store.alias("support", "prod", 1)
assert store.list()[0].aliases == {{"prod": 1}}
assert store.header("support@prod") == read_header(store.resolve("support").path)
assert not {{"torch", "transformers", "safetensors"}} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_lazy_exports_all_resolve():
    import foreword.prefix as room

    assert all(getattr(room, name) is not None for name in room.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = room.nothing

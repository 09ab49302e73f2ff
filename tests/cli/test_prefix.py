"""`foreword prefix`: listing, showing, verifying, removing, naming, composing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foreword.api import compile_text, load
from foreword.prefix.store import PrefixStore


@pytest.fixture(scope="module")
def prefixes(tiny: Path) -> Any:
    model = load(str(tiny))
    return [compile_text(model, text, name=name) for name, text in (("eagle", "The Eagle."), ("aromi", "Aromi is a pub."))]


@pytest.fixture
def store(prefixes: Any, home: Path) -> PrefixStore:
    store = PrefixStore(home / "prefixes")
    for prefix in (prefixes[0], prefixes[0], prefixes[1]):
        store.publish(prefix)
    return store


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_an_empty_store(foreword: Any, tmp_path: Path):
    result = foreword("prefix", "ls", "--root", tmp_path / "none")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "No prefixes in" in result.stderr and "foreword tune" in result.stderr
    assert foreword("prefix", "ls", "--json").stdout == "[]\n"


def test_ls(foreword: Any, store: PrefixStore):
    store.alias("eagle", "prod", 2)
    table = foreword("prefix", "ls").stdout
    assert "eagle@v2" in table and "eagle@v1" not in table and "aromi@v1" in table and "prod" in table
    rows = json.loads(foreword("prefix", "ls", "--json").stdout)
    assert [(row["reference"], row["aliases"], row["versions"], row["kind"]) for row in rows] == [
        ("aromi@v1", [], 1, "text"),
        ("eagle@v2", ["prod"], 2, "text"),
    ]
    versions = json.loads(foreword("prefix", "ls", "eagle", "--json").stdout)
    assert [row["reference"] for row in versions] == ["eagle@v1", "eagle@v2"]


def test_ls_shows_a_damaged_file_as_such(foreword: Any, store: PrefixStore):
    store.resolve("aromi").path.write_bytes(b"junk")
    result = foreword("prefix", "ls")
    assert result.exit_code == 0 and "damaged" in result.stdout and "eagle@v2" in result.stdout
    assert "damage" in json.loads(foreword("prefix", "ls", "--json").stdout)[0]


def test_show(foreword: Any, store: PrefixStore, tmp_path: Path):
    header = store.header("eagle")
    shown = foreword("prefix", "show", "eagle@v1").stdout
    for part in ("text", f"{header.positions},", header.fingerprint.weights, "continuation", "not stated", "v0001.safetensors"):
        assert part in shown
    fields = json.loads(foreword("prefix", "show", "eagle", "--json").stdout)
    assert fields["digest"] == header.digest and fields["path"].endswith("v0002.safetensors")
    store.load("eagle").save(tmp_path / "mine.safetensors")
    assert json.loads(foreword("prefix", "show", tmp_path / "mine.safetensors", "--json").stdout)["digest"] == header.digest


def test_verify(foreword: Any, store: PrefixStore):
    result = foreword("prefix", "verify")
    assert (result.exit_code, result.stdout) == (0, "aromi@v1: sound\neagle@v1: sound\neagle@v2: sound\n")
    damage(store.resolve("eagle@v1").path)
    result = foreword("prefix", "verify")
    assert result.exit_code == 1
    assert "eagle@v1: " in result.stdout and "do not match the header's digest" in result.stdout and "eagle@v2: sound" in result.stdout
    assert foreword("prefix", "verify", "eagle@v2").exit_code == 0
    result = foreword("prefix", "verify", "eagle@v1", "--json")
    assert result.exit_code == 1 and "damage" in json.loads(result.stdout)[0]


def test_verify_a_truncated_file(foreword: Any, store: PrefixStore, tmp_path: Path):
    path = tmp_path / "cut.safetensors"
    path.write_bytes(store.resolve("eagle").path.read_bytes()[:-7])
    assert foreword("prefix", "verify", path).exit_code == 1


def test_alias_and_rm(foreword: Any, store: PrefixStore):
    assert foreword("prefix", "alias", "eagle@v1", "prod").stdout == "eagle@prod is now eagle@v1\n"
    refused = foreword("prefix", "rm", "eagle@v1")
    assert refused.exit_code == 2 and "is in use: prod points at it" in refused.stderr
    assert foreword("prefix", "alias", "eagle", "prod").stdout == "eagle@prod is now eagle@v2\n"
    assert foreword("prefix", "rm", "eagle@v1").stdout == "Removed eagle@v1\n"
    assert foreword("prefix", "alias", "eagle", "prod", "--remove").stdout == "eagle@prod is forgotten\n"
    assert json.loads(foreword("prefix", "rm", "eagle", "--all", "--json").stdout) == {"removed": ["eagle@v2"]}
    assert [listing.name for listing in store.list()] == ["aromi"]


def test_rm_force(foreword: Any, store: PrefixStore):
    store.alias("aromi", "prod", 1)
    assert foreword("prefix", "rm", "aromi@v1", "--force").exit_code == 0
    assert [listing.name for listing in store.list()] == ["eagle"]


def test_compose(foreword: Any, store: PrefixStore):
    result = foreword("prefix", "compose", "eagle", "aromi", "--json")
    found = json.loads(result.stdout)
    assert found["reference"] == "eagle+aromi@v1"
    parts = [store.header(name) for name in ("eagle", "aromi")]
    assert found["positions"] == parts[0].positions + parts[1].positions - 1
    assert store.header("eagle+aromi").parents == (parts[0].digest, parts[1].digest)
    assert foreword("prefix", "compose", "eagle", "aromi", "-o", "both").stdout.startswith("both@v1: ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show", "nope"), "No prefix is named `nope`"),
        (("show", "egle"), "Did you mean `eagle`?"),
        (("show", "eagle@v9"), "Version 9 of `eagle` does not exist"),
        (("show", "eagle@prod"), "`eagle` has no alias `prod`"),
        (("show", "gone.safetensors"), "Cannot read prefix file"),
        (("ls", "nope"), "No prefix is named `nope`"),
        (("verify", "nope"), "No prefix is named `nope`"),
        (("rm", "eagle"), "is a whole name"),
        (("rm", "eagle@v1", "--all"), "`all` removes a whole name"),
        (("alias", "eagle", "v3"), "An alias has"),
        (("alias", "eagle", "prod", "--remove"), "has no alias `prod`"),
        (("compose", "eagle"), "at least two parts"),
        (("compose", "eagle", "aromi", "-o", "A B"), "a name has"),
        (("compose", "eagle", "aromi", "--window", "3"), "no room for a prompt"),
    ],
)
def test_what_cannot_be_done(foreword: Any, store: PrefixStore, words: tuple[str, ...], message: str):
    result = foreword("prefix", *words)
    assert result.exit_code == 2
    assert message in result.stderr and result.stdout == ""


def test_prefixes_of_two_models_do_not_compose(foreword: Any, store: PrefixStore, tiny_model_folder: Any):
    store.publish(compile_text(load(str(tiny_model_folder("llama", seed=21))), "Other.", name="other"))
    result = foreword("prefix", "compose", "eagle", "other", "-o", "both")
    assert result.exit_code == 2 and "these fields differ" in result.stderr

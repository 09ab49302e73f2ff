"""Named, versioned files, apart from what is in them; tests/prefix/test_store.py tries the rest on prefixes."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from foreword.errors import StoreError
from foreword.store.versions import Reference, VersionedFiles, default_root, write_temporary


def lower(name: str) -> None:
    if not name.isalpha() or not name.islower():
        raise ValueError("a name has small letters")


class Notes(VersionedFiles):
    """The least that can be kept."""

    def publish(self, name: str, text: str) -> Reference:
        return self._publish(name, lambda target: write_temporary(target, text.encode()))


@pytest.fixture
def notes(tmp_path: Path) -> Notes:
    return Notes(tmp_path / "notes", noun="note", suffix="txt", check_name=lower)


def test_a_version_is_a_file_of_its_own(notes: Notes):
    first, second = notes.publish("a", "one"), notes.publish("a", "two")
    assert [reference.path.name for reference in notes.references("a")] == ["v0001.txt", "v0002.txt"]
    assert (first.path.read_text(), second.path.read_text()) == ("one", "two")
    assert notes.references("b") == ()
    assert notes.resolve("a@v1") == first and notes.resolve("a") == second


def test_other_files_in_the_folder_are_no_versions(notes: Notes):
    notes.publish("a", "one")
    for name in ("v0002.json", "v0003.removed", "v3.txt", "readme.txt"):
        (notes.root / "a" / name).write_text("")
    assert [listing.versions for listing in notes.list()] == [(1,)]
    assert notes.publish("a", "two").version == 4


def test_messages_use_the_noun(notes: Notes):
    with pytest.raises(StoreError, match="No note is named `b`"):
        notes.resolve("b")
    with pytest.raises(StoreError, match="cannot name a note in a store: a name has small letters"):
        notes.publish("B", "x")


def test_names_are_folders_that_may_be_names(notes: Notes):
    assert notes.names() == ()
    notes.publish("b", "x")
    notes.publish("a", "x")
    (notes.root / "NOT").mkdir()
    (notes.root / "c").write_text("")
    assert notes.names() == ("a", "b")


@pytest.mark.parametrize("change", ["publish", "alias", "unalias", "remove", "remove all"])
def test_every_change_shows_in_the_roots_time(notes: Notes, change: str):
    notes.publish("a", "one")
    notes.publish("a", "two")
    notes.alias("a", "prod", 2)
    os.utime(notes.root, (1, 1))
    actions: dict[str, Any] = {
        "publish": lambda: notes.publish("a", "three"),
        "alias": lambda: notes.alias("a", "prod", 1),
        "unalias": lambda: notes.unalias("a", "prod"),
        "remove": lambda: notes.remove("a@v1"),
        "remove all": lambda: notes.remove("a", all=True, force=True),
    }
    actions[change]()
    assert notes.root.stat().st_mtime > 1


def test_looking_does_not_show_as_a_change(notes: Notes):
    notes.publish("a", "one")
    os.utime(notes.root, (1, 1))
    notes.list()
    notes.resolve("a@latest")
    with pytest.raises(StoreError):
        notes.remove("a@v7")
    assert notes.root.stat().st_mtime == 1


def test_what_fails_while_it_is_written_leaves_nothing(notes: Notes):
    def fails(target: Path) -> Path:
        raise StoreError("no")

    with pytest.raises(StoreError, match=r"^no$"):
        notes._publish("a", fails)
    assert notes.list() == () and list((notes.root / "a").iterdir()) == []


def test_default_roots(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("FOREWORD_HOME", str(tmp_path))
    assert default_root("notes") == tmp_path / "notes"
    monkeypatch.delenv("FOREWORD_HOME")
    assert default_root("notes") == Path.home() / ".foreword" / "notes"

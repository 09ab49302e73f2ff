"""`foreword generate`: one prompt, a file, a pipe, and what cannot be answered."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from foreword.api import compile_text, load
from foreword.prefix.store import PrefixStore
from foreword.types import Message, Sampling

SHORT = ("--max-new-tokens", 5)


@pytest.fixture(scope="module")
def model(tiny: Path) -> Any:
    return load(str(tiny))


@pytest.fixture
def stored(model: Any, home: Path) -> Any:
    prefix = compile_text(model, "The Eagle is a cheap coffee shop.", name="eagle")
    PrefixStore(home / "prefixes").publish(prefix)
    return prefix


def test_one_prompt(foreword: Any, tiny: Path, model: Any, stored: Any):
    bare = foreword("generate", "hello", "--model", tiny, *SHORT)
    steered = foreword("generate", "hello", "--model", tiny, "--prefix", "eagle", *SHORT)
    assert bare.exit_code == steered.exit_code == 0, bare.stderr + steered.stderr
    assert bare.stdout == model.generate("hello", max_new_tokens=5) + "\n"
    assert steered.stdout == model.generate("hello", prefix=stored, max_new_tokens=5) + "\n"


def test_details_as_json(foreword: Any, tiny: Path, stored: Any):
    answer = json.loads(foreword("generate", "hello", "--model", tiny, "--prefix", "eagle@v1", "--json", *SHORT).stdout)
    assert set(answer) == {"text", "finish_reason", "usage"}
    assert answer["finish_reason"] == "length"
    assert answer["usage"]["prefix_positions"] == stored.positions and answer["usage"]["completion_tokens"] == 5


def test_a_prefix_by_its_path(foreword: Any, tiny: Path, stored: Any, tmp_path: Path):
    stored.save(tmp_path / "x.safetensors")
    by_path = foreword("generate", "hello", "--model", tiny, "--prefix", tmp_path / "x.safetensors", *SHORT)
    assert by_path.stdout == foreword("generate", "hello", "--model", tiny, "--prefix", "eagle", *SHORT).stdout


def test_options_of_sampling_arrive(foreword: Any, tiny: Path, model: Any):
    options = ("--temperature", 0.9, "--top-p", 0.8, "--top-k", 20, "--seed", 4, "--max-new-tokens", 6)
    sampling = Sampling(max_new_tokens=6, temperature=0.9, top_p=0.8, top_k=20, seed=4)
    turns = (Message(role="system", content="be brief"), Message(role="user", content="hello"))
    expected = model.engine.generate([turns], sampling=sampling)[0].text
    assert foreword("generate", "hello", "--model", tiny, "--instruction", "be brief", *options).stdout == expected + "\n"


def test_stop_texts(foreword: Any, tiny: Path):
    whole = foreword("generate", "hello", "--model", tiny, *SHORT).stdout[:-1]
    stop = whole[1]
    assert foreword("generate", "hello", "--model", tiny, "--stop", stop, *SHORT).stdout == whole.partition(stop)[0] + "\n"


def test_a_prompt_from_standard_input(foreword: Any, tiny: Path):
    piped = foreword("generate", "-", "--model", tiny, *SHORT, input="hello")
    assert piped.stdout == foreword("generate", "hello", "--model", tiny, *SHORT).stdout


def test_a_file_is_answered_in_order(foreword: Any, tiny: Path, model: Any, rows: Any):
    path = rows("in.jsonl", [{"prompt": "a long prompt comes first"}, {"id": "k", "text": "b"}, {"prompt": "c"}])
    result = foreword("generate", "--input", path, "--model", tiny, *SHORT)
    expected = [model.generate(text, max_new_tokens=5) for text in ("a long prompt comes first", "b", "c")]
    assert [json.loads(line) for line in result.stdout.splitlines()] == [{"text": text} for text in expected]
    detailed = [json.loads(line) for line in foreword("generate", "--input", path, "--model", tiny, "--json", *SHORT).stdout.splitlines()]
    assert [(row["line"], row.get("id"), row["text"]) for row in detailed] == list(zip((1, 2, 3), (None, "k", None), expected, strict=True))


def test_an_empty_file_gives_nothing(foreword: Any, tmp_path: Path):
    (tmp_path / "in.jsonl").touch()
    result = foreword("generate", "--input", tmp_path / "in.jsonl", "--model", "/never/loaded")
    assert (result.exit_code, result.stdout) == (0, "")


def test_rows_from_a_pipe(tiny: Path, tmp_path: Path):
    words = [sys.executable, "-m", "foreword", "generate", "--input", "-", "--model", str(tiny), "--max-new-tokens", "3"]
    environment = os.environ | {"FOREWORD_HOME": str(tmp_path)}
    done = subprocess.run(words, input='{"prompt": "a"}\n{"prompt": "b"}\n', capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert [set(json.loads(line)) for line in done.stdout.splitlines()] == [{"text"}, {"text"}]


def test_bad_rows_are_named_before_anything_is_loaded(foreword: Any, rows: Any):
    path = rows("in.jsonl", [{"prompt": "fine"}, {"promt": "x"}])
    result = foreword("generate", "--input", path, "--model", "/never/loaded")
    assert result.exit_code == 2
    assert "line 2: a row needs one of" in result.stderr


def test_rows_that_do_not_fit_are_named_before_any_is_answered(foreword: Any, tiny: Path, rows: Any):
    path = rows("in.jsonl", [{"prompt": "fine"}, {"prompt": "word " * 600}])
    result = foreword("generate", "--input", path, "--model", tiny, *SHORT)
    assert result.exit_code == 2 and result.stdout == ""
    assert "line 2: 0 prefix positions," in result.stderr and "is 512" in result.stderr


def test_a_prefix_of_another_model(foreword: Any, tiny_model_folder: Any, stored: Any, rows: Any):
    other = tiny_model_folder("llama", seed=21)
    for words in (("hello",), ("--input", rows("in.jsonl", [{"prompt": "a"}]))):
        result = foreword("generate", *words, "--model", other, "--prefix", "eagle", *SHORT)
        assert result.exit_code == 2
        assert "these fields differ" in result.stderr and "weights: prefix has" in result.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Give either a PROMPT or --input FILE"),
        (("hello", "--input", "in.jsonl"), "and not both"),
        (("",), "The prompt is empty"),
        (("hello", "--top-p", "0"), "--top-p 0 leaves no token"),
        (("hello", "--stop", ""), "--stop '' would end every answer"),
        (("hello", "--temperature", "-1"), "--temperature"),
        (("hello", "--max-new-tokens", "0"), "--max-new-tokens"),
        (("hello", "--dtype", "float8"), "--dtype"),
        (("hello", "--prefix", "nope"), "No prefix is named `nope`"),
        (("hello", "--prefix", "gone.safetensors"), "Cannot read prefix file gone.safetensors"),
        (("hello", "--device", "toaster"), "There is no device `toaster` here"),
        (("--input", "missing.jsonl"), "There is no file `missing.jsonl`"),
    ],
)
def test_options_that_cannot_be_used(foreword: Any, words: tuple[str, ...], message: str):
    result = foreword("generate", *words, "--model", "/never/loaded")
    assert result.exit_code == 2
    assert message in result.stderr and result.stdout == ""

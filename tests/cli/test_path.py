"""`foreword path show`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from foreword.gateway.stage import ORDER

CONFIGURATION = """\
[models.small]
engine = "echo"
model = "echo-model"

[models.careful]
like = "small"
prompt = "careful"

[models.strong]
url = "https://me:secret@models.example:8443/v1"
model = "strong-1"

[tasks.support]
rules = ["refund"]
tiers = ["small:support", "strong"]
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "foreword.toml"
    path.write_text(CONFIGURATION, encoding="utf-8")
    return path


def test_every_stage_is_shown_in_its_order_with_what_it_does(foreword: Any, config: Path) -> None:
    result = foreword("path", "show", config)
    assert result.exit_code == 0, result.output
    path, rest = result.stdout.split("\n\nModels:\n")
    lines = [line for line in path.splitlines() if line.strip() != "|"]
    assert tuple(line.split()[0] for line in lines) == ORDER
    # Each says something of its own behind its name, and all of them begin at the same place.
    said = [line.split(maxsplit=1)[1] for line in lines]
    assert len(set(said)) == len(ORDER) and all(len(words) > 20 for words in said)
    assert len({line.index(words) for line, words in zip(lines, said, strict=True)}) == 1
    assert "small: echo-model (engine echo, in this process)" in rest and "careful: echo-model (engine echo" in rest
    assert "strong: strong-1 (https://models.example:8443/v1)" in rest and "secret" not in result.stdout
    assert rest.rstrip().endswith("support: small:support, strong\n  default: small")


def test_the_order_of_the_file_is_the_one_that_is_shown(foreword: Any, config: Path) -> None:
    stages = '"intake", "route", "infer", "bill"'
    config.write_text(f"stages = [{stages}]\n{CONFIGURATION}", encoding="utf-8")
    told = json.loads(foreword("path", "show", config, "--json").stdout)
    assert list(told["stages"]) == ["intake", "route", "infer", "bill"]
    assert told["tasks"] == {"support": {"tiers": ["small:support", "strong"]}, "default": {"tiers": ["small"]}}
    assert told["models"]["careful"] == {"model": "echo-model", "place": "engine echo, in this process"}


def test_a_file_that_cannot_be_used_is_told(foreword: Any, config: Path, tmp_path: Path) -> None:
    for content, words in (("stages = [1]", "stages"), (f'stages = ["intake", "rout", "route", "infer", "bill"]\n{CONFIGURATION}', "rout")):
        config.write_text(content, encoding="utf-8")
        result = foreword("path", "show", config)
        assert result.exit_code == 2 and words in result.stderr and "Traceback" not in result.output
    assert foreword("path", "show", tmp_path / "none.toml").exit_code == 2

from __future__ import annotations

from pathlib import Path

import pytest

from foreword.errors import ConfigError
from foreword.gateway.routing.curve import Evaluation, evaluate
from foreword.gateway.routing.fitting import Features, fit
from foreword.gateway.routing.picture import draw
from routed_questions import table
from word_vectors import WordVectors

EMBEDDER = WordVectors()


@pytest.fixture(scope="module")
def found() -> Evaluation:
    later = table(200, seed=1)
    return evaluate(fit(table(), EMBEDDER).router, later, Features.of(later, EMBEDDER), resamples=10)


@pytest.mark.parametrize(("name", "start"), [("curve.svg", b"<?xml"), ("curve.PNG", b"\x89PNG")])
def test_it_draws(found: Evaluation, tmp_path: Path, name: str, start: bytes):
    draw(found, tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(start)
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_a_name_that_cannot_be_drawn_under(found: Evaluation, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"ends in \.svg"):
        draw(found, tmp_path / "curve.doc")
    with pytest.raises(ConfigError, match="cannot be written"):
        draw(found, tmp_path / "nowhere" / "curve.svg")

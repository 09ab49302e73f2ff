"""The nearest centroid of labelled lines, its threshold, and the file it is kept in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from foreword.errors import ConfigError
from foreword.gateway.intake.centroids import CentroidFile, Centroids, read_file
from foreword.gateway.intake.training import train
from word_vectors import WordVectors

LINES = {
    "billing": ["refund my invoice", "the invoice is wrong", "a refund for this invoice please", "charge on my invoice"],
    "login": ["I forgot my password", "reset the password", "password does not work", "new password please"],
}


def trained(tmp_path: Path) -> Path:
    texts = [text for lines in LINES.values() for text in lines]
    labels = [label for label, lines in LINES.items() for _ in lines]
    path = tmp_path / "intake.json"
    train(texts, labels, WordVectors()).file.write(path)
    return path


def test_a_question_gets_the_type_whose_lines_it_is_like(tmp_path: Path) -> None:
    embedder = WordVectors()
    centroids = Centroids.read(trained(tmp_path), embedder)
    asked = embedder.embed(["refund that invoice please", "which password", "how tall is the tower of Pisa", ""])
    assert [centroids.label(vector_D) for vector_D in asked] == ["billing", "login", None, None]


def test_what_is_read_is_what_was_trained(tmp_path: Path) -> None:
    file = read_file(trained(tmp_path))
    assert file.labels == ("billing", "login") and file.lines == (4, 4)
    assert np.allclose(np.linalg.norm(np.array(file.centroids), axis=1), 1, atol=1e-4)


def test_vectors_of_another_embedder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trained with the embedder `words/48`, and this one is `others/48`"):
        Centroids.read(trained(tmp_path), WordVectors("others/48"))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.json cannot be read"):
        read_file(tmp_path / "nowhere.json")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"labels": ["one", "one"]}, "twice"),
        ({"labels": ["one"]}, "differ in length"),
        ({"centroids": [[0.1], [0.1, 0.2]]}, "dimensions"),
        ({"threshold": 2}, "threshold"),
        ({"more": 1}, "more"),
    ],
)
def test_a_file_that_is_no_model_is_refused(tmp_path: Path, change: dict, told: str) -> None:
    fields = json.loads(
        CentroidFile(
            embedder="e",
            labels=("a", "b"),
            lines=(2, 2),
            centroids=((1.0, 0.0), (0.0, 1.0)),
            vectors=(((1.0, 0.0),), ((0.0, 1.0),)),
            threshold=0.5,
        ).model_dump_json()
    )
    path = tmp_path / "intake.json"
    path.write_text(json.dumps(fields | change))
    with pytest.raises(ConfigError, match=told):
        read_file(path)

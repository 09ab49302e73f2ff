"""The benchmark of `intake` on a few rows of its own."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from benchmarks import intake

pytest.importorskip("wordllama")

QUESTIONS = {
    "refund": ["I want a refund", "refund me please", "money back for the lamp", "when is my refund paid"],
    "track": ["where is my parcel", "track my order", "has the parcel left", "parcel is late"],
    "oos": ["who won the match", "sing me a song", "how tall is the tower", "what is love"],
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for name in ("clinc150", "banking77"):
        folder = tmp_path / name
        folder.mkdir()
        rows = [json.dumps({"text": text, "intent": intent}) for intent, texts in QUESTIONS.items() for text in texts]
        (folder / "dev.jsonl").write_text("\n".join(rows))
        (folder / "train.jsonl.gz").write_bytes(gzip.compress("\n".join(rows).encode()))
    (tmp_path / "clinc150" / "domains.json").write_text(json.dumps({"shop": ["refund", "track"]}))
    return tmp_path


def test_every_figure_is_there_and_rows_that_were_trained_on_are_known(data: Path) -> None:
    *_, figures = intake.measure(data, intake.Size(lines=(4,), draws=(0, 1)))
    found = figures["clinc150"]["4"]
    assert found["nearest"] == {"mean": 1.0, "lowest": 1.0, "highest": 1.0}
    assert found["rejected"]["mean"] >= 0.5 and found["accuracy_with_default"]["mean"] > 0.5
    assert figures["by_domain"].keys() == figures["banking77"].keys() == {"4"}
    assert figures["embedding_p50_ms"] > 0

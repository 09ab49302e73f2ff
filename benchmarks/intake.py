"""How well a few labelled lines tell task types apart, how well they tell what is none of them, and how long that takes.

python -m benchmarks.intake            about two minutes on one core
python -m benchmarks.intake --quick    about 20 s: one draw of lines

CLINC150 (150 intents, and questions that belong to none) and BANKING77 (77 intents that are hard to tell apart). So many lines of each
intent are drawn from the training rows; accuracy is of the dev rows. `accuracy` is of rows that have an intent, with the threshold that
leave-one-out chose (at most 5 % of the rightly recognised lines fall short of it), `nearest` without one, `rejected` the share of rows
without an intent that get none, `said_before` the accuracy that training told. `with_default` is the same with five times as many training
rows without an intent, at most, as lines of `default`. `by_domain` is CLINC150 by its ten domains: each holds fifteen intents, as the task
types of an application hold many kinds of questions.

That a type's nearest line counts as much as its centroid was chosen on these dev rows, among five ways to weigh the two; the peers are
the centroid alone and the single nearest line (1-NN), on the same vectors. Times are of one question at a time on one core: the embedding,
and the comparison with every type.
"""

from __future__ import annotations

import gzip
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command

RESULT = Path(__file__).with_name("results") / "intake.json"
NONE = "oos"
TIMED = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured. Attributes: lines: of each intent; draws: seeds of the choice of lines."""

    lines: Sequence[int]
    draws: Sequence[int]


FULL = Size(lines=(2, 5, 10, 20, 50), draws=(0, 1, 2, 3, 4))
QUICK = Size(lines=(5, 20), draws=(0,))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Texts with their intents and vectors N D."""

    texts: tuple[str, ...]
    labels: np.ndarray
    vectors_ND: np.ndarray


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes the full run's result; returns the exit code."""
    return command.main("intake", __doc__, measure, arguments, full=FULL, quick=QUICK, less="one draw of lines", result=RESULT)


def measure(data: Path, size: Size) -> Iterator[dict[str, Any]]:
    """Figures by data set and number of lines."""
    from foreword.retrieval import embedder as embedders

    embedder = embedders.get()
    domains = _domains(data)
    figures: dict[str, Any] = {}
    for name, mapped in (("clinc150", None), ("by_domain", domains), ("banking77", None)):
        folder = data / ("clinc150" if name == "by_domain" else name)
        train, dev = (_rows(folder, split, embedder, mapped) for split in ("train", "dev"))
        figures[name] = {str(lines): _summed([_measured(train, dev, embedder, lines, draw) for draw in size.draws]) for lines in size.lines}
        sys.stderr.write(f"{name}: {json.dumps(figures[name])}\n")
        if name == "clinc150":
            figures |= _times(train, dev, embedder)
        yield figures


def _measured(train: Rows, dev: Rows, embedder: Any, lines: int, draw: int) -> dict[str, float]:
    from foreword.gateway.intake.centroids import Centroids
    from foreword.gateway.intake.training import train as train_lines

    chosen = _drawn(train, lines, draw)
    texts, labels = [train.texts[place] for place in chosen], [str(train.labels[place]) for place in chosen]
    own = dev.labels != NONE
    found = train_lines(texts, labels, embedder)
    figures = _accuracy(Centroids(found.file), dev, own)
    near_N = (dev.vectors_ND @ train.vectors_ND[chosen].T).argmax(axis=1)
    centroids_CD = np.array(found.file.centroids, dtype=np.float32)
    nearest = np.array(found.file.labels)[(dev.vectors_ND @ centroids_CD.T).argmax(axis=1)]
    figures["nearest_centroid"] = float((nearest == dev.labels)[own].mean())
    figures["nearest_line"] = float((train.labels[chosen][near_N] == dev.labels)[own].mean())
    figures["said_before"] = found.accuracy
    unlike = np.flatnonzero(train.labels == NONE)
    if len(unlike):
        default = np.random.default_rng(draw).permutation(unlike)[: 5 * lines]
        more = [*texts, *(train.texts[place] for place in default)]
        other = _accuracy(Centroids(train_lines(more, [*labels, *["default"] * len(default)], embedder).file), dev, own)
        figures |= {f"{key}_with_default": other[key] for key in ("accuracy", "rejected")}
    return figures


def _accuracy(centroids: Any, dev: Rows, own: np.ndarray) -> dict[str, float]:
    given = np.array([centroids.label(vector_D) or NONE for vector_D in dev.vectors_ND])
    nearest = np.array([centroids.nearest(vector_D)[0] for vector_D in dev.vectors_ND])
    figures = {"accuracy": float((given == dev.labels)[own].mean()), "nearest": float((nearest == dev.labels)[own].mean())}
    return figures if own.all() else figures | {"rejected": float((given == NONE)[~own].mean())}


def _drawn(train: Rows, lines: int, draw: int) -> np.ndarray:
    random = np.random.default_rng(draw)
    intents = sorted(set(train.labels) - {NONE})
    return np.concatenate([random.permutation(np.flatnonzero(train.labels == intent))[:lines] for intent in intents])


def _summed(draws: Sequence[dict[str, float]]) -> dict[str, Any]:
    """Means over draws, and the lowest and highest of each."""
    return {
        key: round(statistics.fmean(each[key] for each in draws), 4) if len(draws) == 1 else _spread([each[key] for each in draws])
        for key in draws[0]
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"mean": round(statistics.fmean(values), 4), "lowest": round(min(values), 4), "highest": round(max(values), 4)}


def _times(train: Rows, dev: Rows, embedder: Any) -> dict[str, float]:
    from foreword.gateway.intake.centroids import Centroids
    from foreword.gateway.intake.training import train as train_lines

    chosen = _drawn(train, 5, 0)
    texts, labels = [train.texts[place] for place in chosen], [str(train.labels[place]) for place in chosen]
    centroids = Centroids(train_lines(texts, labels, embedder).file)
    embedding, comparing = [], []
    for text in dev.texts[:TIMED]:
        began = time.perf_counter()
        vector_D = embedder.embed([text])[0]
        between = time.perf_counter()
        centroids.label(vector_D)
        embedding.append(between - began)
        comparing.append(time.perf_counter() - between)
    return {
        "embedding_p50_ms": 1e3 * statistics.median(embedding),
        "embedding_p95_ms": 1e3 * statistics.quantiles(embedding, n=20)[18],
        "comparing_p50_ms": 1e3 * statistics.median(comparing),
    }


def _rows(folder: Path, split: str, embedder: Any, mapped: dict[str, str] | None) -> Rows:
    path = folder / f"{split}.jsonl"
    whole = path.read_bytes() if path.exists() else gzip.decompress(path.with_name(f"{path.name}.gz").read_bytes())
    rows = [json.loads(line) for line in whole.decode("utf-8").splitlines()]
    texts = tuple(row["text"] for row in rows)
    labels = np.array([row["intent"] if mapped is None else mapped.get(row["intent"], NONE) for row in rows])
    return Rows(texts=texts, labels=labels, vectors_ND=embedder.embed(texts))


def _domains(data: Path) -> dict[str, str]:
    domains = json.loads((data / "clinc150" / "domains.json").read_text(encoding="utf-8"))
    return {intent: domain for domain, intents in domains.items() for intent in intents}


if __name__ == "__main__":
    sys.exit(main())

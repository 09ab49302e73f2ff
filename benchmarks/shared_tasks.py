"""Tasks over the evaluation data that lie beside the repository; the data are read where they are, never copied."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from foreword.data.dataset import Dataset
from foreword.errors import DataError
from foreword.evaluate.task import SuccessRule, Task, make_task
from foreword.types import Example, Message

DEFAULT_DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
HATE_LABELS = ("hate", "offensive", "neither")
WEBNLG_UNSEEN = ("Astronaut", "Monument", "University")
"""Categories kept out of training, to stand for topics that the model was not tuned on."""


def e2e(data: Path, *, pairs: int | None, seed: int) -> Task:
    """E2E table-to-text; `pairs` (input, reference) pairs to train on, 100 dev inputs with all their references."""
    train = _pairs(((row["mr"], row["refs"]) for row in _rows(data, "e2e/train.jsonl.gz")), pairs, seed)
    dev = [_example(row["mr"], row["refs"]) for row in _rows(data, "e2e/dev.jsonl")[:100]]
    return make_task(
        "e2e",
        train=Dataset.of(train),
        dev=Dataset.of(dev),
        kind="generation",
        instruction="Describe the restaurant in one or two sentences.",
        scorers=("bleu", "nist", "rouge-l", "meteor-like", "cider", "slots", "perplexity"),
        primary="bleu",
        success=SuccessRule(scorer="slots", at_least=1.0),
        max_new_tokens=80,
    )


def hate_speech(data: Path, *, rows: int | None, seed: int) -> Task:
    """Three balanced classes; the dev set holds every `hate` row there is and as many of the others."""
    train = _balanced(_rows(data, "hate_speech/train.jsonl.gz"), rows, random.Random(seed))
    dev = _balanced(_rows(data, "hate_speech/dev.jsonl.gz"), None, random.Random(1))
    return make_task(
        "hate-speech",
        train=Dataset.of(train, labels=HATE_LABELS),
        dev=Dataset.of(dev, labels=HATE_LABELS),
        kind="classification",
        instruction="Classify the tweet as hate, offensive or neither.",
        scorers=("macro-f1", "accuracy", "label-likelihood", "label-likelihood-calibrated"),
        primary="macro-f1",
        success=SuccessRule(scorer="accuracy", at_least=1.0),
        max_new_tokens=8,
    )


def webnlg(data: Path, *, pairs: int, dev_rows: int, seed: int) -> tuple[Task, int]:
    """WebNLG without three categories in training; dev is `dev_rows` seen rows, then as many unseen ones.

    Returns:
        The task, and how many of its dev rows are of seen categories.
    """
    rows = _rows(data, "webnlg/train.jsonl.gz")
    seen = ((_triples(row), row["refs"]) for row in rows if row["category"] not in WEBNLG_UNSEEN)
    held_out = _rows(data, "webnlg/dev.jsonl.gz")
    draw = random.Random(1)
    groups = [[row for row in held_out if (row["category"] in WEBNLG_UNSEEN) is unseen] for unseen in (False, True)]
    parts = [draw.sample(group, min(dev_rows, len(group))) for group in groups]
    task = make_task(
        "webnlg",
        train=Dataset.of(_pairs(seen, pairs, seed)),
        dev=Dataset.of([_example(_triples(row), row["refs"]) for part in parts for row in part]),
        kind="generation",
        instruction="Say the facts in one or two sentences.",
        scorers=("bleu", "rouge-l"),
        primary="bleu",
        success=SuccessRule(scorer="rouge-l", at_least=0.5),
        max_new_tokens=80,
    )
    return task, len(parts[0])


def _rows(data: Path, name: str) -> list[dict[str, Any]]:
    path = data / name
    if not path.is_file():
        raise DataError(f"{path} is not there. Name the folder of evaluation data with `--data`.")
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def _example(prompt: str, completions: Iterable[str]) -> Example:
    return Example(messages=(Message(role="user", content=prompt),), completions=tuple(completions))


def _pairs(rows: Iterable[tuple[str, list[str]]], count: int | None, seed: int) -> list[Example]:
    """Examples of one reference each, drawn at random; all of them, references together, where no count is given."""
    rows = list(rows)
    if count is None:
        return [_example(prompt, references) for prompt, references in rows]
    pairs = [(prompt, reference) for prompt, references in rows for reference in references]
    return [_example(prompt, [reference]) for prompt, reference in random.Random(seed).sample(pairs, min(count, len(pairs)))]


def _balanced(rows: list[dict[str, Any]], count: int | None, draw: random.Random) -> list[Example]:
    by_label = {label: [row["text"] for row in rows if HATE_LABELS[row["label"]] == label] for label in HATE_LABELS}
    each = min(len(texts) for texts in by_label.values())
    each = each if count is None else min(each, count // len(HATE_LABELS))
    examples = [_example(text, [label]) for label, texts in by_label.items() for text in draw.sample(texts, each)]
    draw.shuffle(examples)
    return examples


def _triples(row: dict[str, Any]) -> str:
    return " ; ".join(" | ".join(part.replace("_", " ") for part in triple) for triple in row["triples"])


def long_documents(data: Path, name: str, count: int) -> list[tuple[str, list[tuple[str, str]]]]:
    """The first documents of one L-Eval set, each with its questions and answers."""
    rows = list(_rows(data, f"longdoc/{name}_dev.jsonl.gz"))[:count]
    return [(row["doc"], list(zip(row["questions"], row["answers"], strict=True))) for row in rows]


def dictionary(data: Path, entries: int, *, skip: int = 0) -> tuple[str, list[tuple[str, str]]]:
    """A dictionary of so many WordNet entries in alphabetical order, and a question for each."""
    found = [(row["word"], row["definition"]) for row in _rows(data, "definitions/dev.jsonl.gz")]
    random.Random(0).shuffle(found)
    chosen = sorted(dict(found[skip : skip + entries]).items())
    text = "".join(f"{word}: {definition}\n" for word, definition in chosen)
    return text, [(f"What does “{word}” mean?", definition) for word, definition in chosen]


def unrelated_requests(data: Path, each: int) -> list[str]:
    """Requests that have nothing to do with any long document: sums (GSM8K), all kinds of wishes (AlpacaEval), a bank's customers."""
    files = {"gsm8k/dev.jsonl": "question", "alpaca_eval/dev.jsonl.gz": "instruction", "banking77/dev.jsonl": "text"}
    return [row[field] for name, field in files.items() for row in random.Random(0).sample(_rows(data, name), each)]

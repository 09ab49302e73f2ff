"""Two classifications of few labels for benchmarks of prompts: which domain a request is of (CLINC150), and what a customer asks a bank
(BANKING77)."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreword.errors import DataError
from foreword.types import Example, Message

DOMAINS = {"banking": "banking", "travel": "travel", "kitchen_and_dining": "food", "auto_and_commute": "car", "work": "work"}
"""Of CLINC150's ten, and what they are called as labels."""
INTENTS = {
    "card_arrival": "delivery of a card",
    "exchange_rate": "exchange rate",
    "age_limit": "age limit",
    "lost_or_stolen_card": "stolen card",
    "change_pin": "changing the PIN",
}
"""Of BANKING77's intents, and what they are called as labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTask:
    """Rows with the same number of each label, those of one part in no other."""

    name: str
    labels: tuple[str, ...]
    train: list[Example]
    dev: list[Example]
    held_out: list[Example]


def domains(data: Path, *, train: int, dev: int, held_out: int, seed: int) -> PromptTask:
    """Requests to an assistant; the held-out rows are of the data's dev part."""
    known = json.loads((data / "clinc150/domains.json").read_text(encoding="utf-8"))
    labels = {intent: label for domain, label in DOMAINS.items() for intent in known[domain]}
    learn = _labelled(data / "clinc150/train.jsonl.gz", labels)
    judge = _labelled(data / "clinc150/dev.jsonl", labels)
    parts = _parts(learn, tuple(DOMAINS.values()), (train, dev), seed)
    return PromptTask(
        name="domains",
        labels=tuple(DOMAINS.values()),
        train=parts[0],
        dev=parts[1],
        held_out=_parts(judge, tuple(DOMAINS.values()), (held_out,), 0)[0],
    )


def banking(data: Path, *, train: int, dev: int, seed: int) -> PromptTask:
    """Questions of a bank's customers; both parts are of the data's train part, since its dev part has few rows of an intent."""
    parts = _parts(_labelled(data / "banking77/train.jsonl.gz", INTENTS), tuple(INTENTS.values()), (train, dev), seed)
    return PromptTask(name="banking", labels=tuple(INTENTS.values()), train=parts[0], dev=parts[1], held_out=[])


def _labelled(path: Path, labels: dict[str, str]) -> list[tuple[str, str]]:
    return [(row["text"], labels[row["intent"]]) for row in _rows(path) if row["intent"] in labels]


def _parts(rows: Sequence[tuple[str, str]], labels: Sequence[str], counts: Sequence[int], seed: int) -> list[list[Example]]:
    """Balanced parts of so many rows each, drawn with the seed."""
    draw = random.Random(seed)
    by_label = {label: [text for text, given in rows if given == label] for label in labels}
    for texts in by_label.values():
        draw.shuffle(texts)
    parts = []
    for count in counts:
        chosen = [(texts.pop(), label) for label, texts in by_label.items() for _ in range(count // len(labels))]
        draw.shuffle(chosen)
        parts.append([_example(text, label, number) for number, (text, label) in enumerate(chosen, start=1)])
    return parts


def _example(text: str, label: str, number: int) -> Example:
    return Example(messages=(Message(role="user", content=text),), completions=(label,), line=number)


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise DataError(f"{path} is not there. Name the folder of evaluation data with `--data`.")
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]

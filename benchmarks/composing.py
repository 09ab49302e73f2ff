"""What is lost when parts that were compiled apart are put side by side, against compiling them joined.

python -m benchmarks.composing            about a quarter of an hour of one core
python -m benchmarks.composing --quick    about 50 s: one document, a header and a trailer learned in a few steps

Parts are passages of the documents; each is compiled alone. The loss of a way to put them together is how far the model behind the
result is from the model behind the joined text, in nats per token of the gold answers to questions about the passages, and the same as a
share of what the joined text brings (the gain that is lost: 1 is all of it). Ways:

naive     keys and values side by side as they are, each part with its own sink and at its own positions
turned    the same with keys turned to positions one behind the other: still a sink for each part
composed  one sink, keys turned
framed    the same behind the learned header, before the learned trailer, with sharper keys

`compose_loss` is framed over naive. Header and trailer are learned on texts of other sets than the measured ones.
"""

from __future__ import annotations

import gzip
import json
import random
import re
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import command, shared_tasks

RESULT = Path(__file__).with_name("results") / "composing.json"
WAYS = ("naive", "turned", "composed", "framed")
LEAST_TOKENS, MOST_TOKENS = 120, 230
"""Of a passage."""
ANSWER_TOKENS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured.

    Attributes:
        sets: of documents, and how many of each; each gives one set of passages.
        mixed: sets of passages from different documents.
        parts: numbers of parts; the largest is the one that `compose_loss` speaks of.
        orders: of the parts of each set, the first being the one of the document.
        passage_tokens: all passages are cut there.
        learning: fields of `NeighbourSettings`.
        texts: to learn from: (nq_oracle passages, documents of quality, documents of cuad).
    """

    sets: Sequence[tuple[str, int]]
    mixed: int
    parts: Sequence[int]
    orders: int
    passage_tokens: int
    learning: Mapping[str, int] = field(default_factory=dict)
    texts: tuple[int, int, int] = (16, 6, 3)


FULL = Size(sets=(("multidoc2dial", 4), ("qasper", 4)), mixed=2, parts=(2, 4, 8), orders=2, passage_tokens=MOST_TOKENS)
QUICK = Size(
    sets=(("multidoc2dial", 1),),
    mixed=0,
    parts=(8,),
    orders=1,
    passage_tokens=MOST_TOKENS,
    learning={"groups": 4, "steps": 8, "most_parts": 5},
    texts=(8, 0, 0),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PassageSet:
    """Passages and questions about them: (passage, question, answer)."""

    name: str
    passages: tuple[str, ...]
    questions: tuple[tuple[int, str, str], ...]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes the full run's result; returns the exit code."""
    return command.main("composing", __doc__, measure, arguments, full=FULL, quick=QUICK, less="one document", result=RESULT)


def measure(data: Path, size: Size) -> Iterator[dict[str, Any]]:
    """Every figure that there is, once more after each set of passages."""
    from foreword import api
    from foreword.compiling.neighbours import NeighbourSettings, learn_header_trailer

    engine = api.load("smollm2", dtype="bfloat16").engine
    began = time.process_time()
    learned = learn_header_trailer(engine, texts_to_learn_from(data, size), settings=NeighbourSettings(**size.learning))
    about = {"texts": len(texts_to_learn_from(data, size)), "cpu_seconds": time.process_time() - began, "quality": learned.header.quality}
    records: list[dict[str, Any]] = []
    for found in passage_sets(data, size):
        for count in size.parts:
            records += _measured(engine, found, count, learned, orders=size.orders if count == max(size.parts) else 1)
        sys.stderr.write(f"{found.name}: {len(records)} answers measured\n")
        yield summary(records, most=max(size.parts)) | {"learned": about}


# --- texts ------------------------------------------------------------------------------------------------------------


def passage_sets(data: Path, size: Size) -> Iterator[PassageSet]:
    """One for each document, then those of passages from different ones."""
    pool: list[tuple[str, list[tuple[str, str]]]] = []
    for name, documents in size.sets:
        for number, (text, questions) in enumerate(shared_tasks.long_documents(data, name, documents)):
            passages = split(text, most=size.passage_tokens)
            about = [(_best(passages, *pair), *pair) for pair in dict(questions).items()]
            pool += [(passages[place], [(q, a) for at, q, a in about if at == place]) for place in {at for at, _, _ in about}]
            yield _chosen(f"{name}-{number}", passages, about, max(size.parts))
    random.Random(0).shuffle(pool)
    each = max(size.parts)
    for number in range(size.mixed):
        some = pool[number * each : (number + 1) * each]
        questions = tuple((place, *pair) for place, (_, pairs) in enumerate(some) for pair in pairs)
        yield PassageSet(name=f"mixed-{number}", passages=tuple(text for text, _ in some), questions=questions)


def texts_to_learn_from(data: Path, size: Size) -> list[str]:
    """Passages of sets that are not measured."""
    draw = random.Random(1)
    short, stories, contracts = size.texts
    with gzip.open(data / "longdoc" / "nq_oracle_dev.jsonl.gz", "rt", encoding="utf-8") as file:
        golds = [json.loads(line)["gold"] for line in file]
    texts = draw.sample([text for text in golds if 50 <= len(text.split()) <= 150], short)
    for name, documents, each in (("quality", stories, 3), ("cuad", contracts, 2)):
        for text, _ in shared_tasks.long_documents(data, name, documents):
            texts += draw.sample(split(text), each)
    return texts


def split(text: str, *, least: int = LEAST_TOKENS, most: int = MOST_TOKENS) -> list[str]:
    """Passages of whole sentences, as long as asked for; a token is taken for three quarters of a word."""
    passages: list[str] = []
    words: list[str] = []
    for sentence in re.split(r"(?<=[.!?:])\s+|\n+", text):
        fresh = sentence.split()[: most * 3 // 4]
        if len(words) + len(fresh) > most * 3 // 4 and len(words) >= min(least, most) // 2:
            passages.append(" ".join(words) + "\n\n")
            words = []
        words += fresh
    return passages or [" ".join(words) + "\n\n"]


def _best(passages: Sequence[str], question: str, answer: str) -> int:
    """The passage that shares most words with the answer, and some with the question; rare words count more."""
    spoken = [_words(passage) for passage in passages]
    seen: dict[str, int] = {}
    for word in (word for words in spoken for word in words):
        seen[word] = seen.get(word, 0) + 1

    def score(words: set[str]) -> float:
        return sum(1 / seen[word] for word in words & _words(answer)) + 0.3 * sum(1 / seen[word] for word in words & _words(question))

    return max(range(len(passages)), key=lambda place: score(spoken[place]))


def _chosen(name: str, passages: Sequence[str], about: Sequence[tuple[int, str, str]], count: int) -> PassageSet:
    """Passages that questions are about, and others of the same document up to the number asked for, in the document's order."""
    kept = list(dict.fromkeys(place for place, _, _ in about))[:count]
    others = [place for place in range(len(passages)) if place not in kept]
    random.Random(0).shuffle(others)
    order = sorted([*kept, *others[: count - len(kept)]])
    questions = tuple((order.index(place), question, answer) for place, question, answer in about if place in kept)
    return PassageSet(name=name, passages=tuple(passages[place] for place in order), questions=questions)


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w{3,}", text.lower()))


# --- measuring --------------------------------------------------------------------------------------------------------


def _measured(engine: Any, found: PassageSet, count: int, learned: Any, *, orders: int) -> list[dict[str, Any]]:
    """A record for each question, order and way."""
    asked = sorted({place for place, _, _ in found.questions})
    draw = random.Random(found.name)
    # Fewer parts: those that the first questions are about, and others.
    kept = sorted([*asked[:count], *[place for place in range(len(found.passages)) if place not in asked[:count]]][:count])
    questions = [one for one in found.questions if one[0] in kept]
    records = []
    for order in range(orders):
        places = kept if not order else draw.sample(kept, len(kept))
        texts = [found.passages[place] for place in places]
        for record in _losses(engine, texts, questions, learned):
            records.append({"set": found.name, "parts": count, "order": order} | record)
    return records


def _losses(engine: Any, texts: Sequence[str], questions: Sequence[tuple[int, str, str]], learned: Any) -> Iterator[dict[str, Any]]:
    import torch

    from foreword.compiling.compilers.text import compile_source
    from foreword.compiling.composing import compose_parts
    from foreword.compiling.divergence import mean_divergence, teach
    from foreword.engine import Row
    from foreword.prefix.rotary import rotate
    from foreword.types import Message

    rows = list(
        dict.fromkeys(
            Row(
                prompt=engine.render((Message(role="user", content=question.strip()),), prompt_format="continuation"),
                targets=(engine.answer_ids(answer.strip())[:ANSWER_TOKENS],),
            )
            for _, question, answer in questions
        )
    )
    parts = [compile_source(engine, text, name=f"part-{number}") for number, text in enumerate(texts)]
    joint = engine.read(sum((engine.encode(text) for text in texts), ()))
    turned, end = [], 0
    for part in parts:
        turned.append(rotate(part.key_LHND, engine.geometry, end))
        end += part.positions
    values = torch.cat([part.value_LHND for part in parts], dim=2)
    composed, framed = (compose_parts(engine, parts, name="all", header_trailer=header) for header in (None, learned))
    tensors = {
        "joint": joint,
        "naive": (torch.cat([part.key_LHND for part in parts], dim=2), values),
        "turned": (torch.cat(turned, dim=2), values),
        "composed": (composed.key_LHND, composed.value_LHND),
        "framed": (framed.key_LHND, framed.value_LHND),
    }
    taught = teach(engine, rows, *joint)
    without = mean_divergence(engine, taught, None, None)
    nats = {way: mean_divergence(engine, taught, *tensors[way]) for way in WAYS}
    likely = {way: _gold(engine, rows, *pair) for way, pair in tensors.items()}
    for number in range(len(rows)):
        yield {
            "without": float(without[number]),
            "nats": {way: float(nats[way][number]) for way in WAYS},
            "gold": {way: float(likely[way][number]) for way in likely},
        }


def _gold(engine: Any, rows: Sequence[Any], key_LHND: Any, value_LHND: Any) -> list[float]:
    """Nats per token of each row's gold answer."""
    import torch

    found = [0.0] * len(rows)
    with torch.inference_mode():
        for group in engine.batches(rows, most_tokens=1024):
            flat = engine.target_log_probs([rows[index] for index in group], key_LHND, value_LHND)
            for index, part in zip(group, flat.split([len(rows[index].targets[0]) for index in group]), strict=True):
                found[index] = -float(part.mean())
    return found


# --- figures ----------------------------------------------------------------------------------------------------------


def summary(records: Sequence[Mapping[str, Any]], *, most: int) -> dict[str, Any]:
    """Losses and their ratios, with 95 % bootstrap intervals over the questions, and how far orders lie apart."""
    first = [record for record in records if record["parts"] == most and not record["order"]]
    figures: dict[str, Any] = {}
    for key, mine, theirs in (
        ("compose_loss", "framed", "naive"),
        ("compose_loss_plain", "composed", "naive"),
        ("compose_loss_over_turned", "framed", "turned"),
        ("compose_loss_plain_over_turned", "composed", "turned"),
    ):
        figures[key], figures[f"{key}_range"] = _ratio(first, mine, theirs)
    figures |= {
        "questions": len(first),
        "sets": len({record["set"] for record in first}),
        "losses": {way: _loss(first, way) for way in WAYS},
        "gold_nats": {way: statistics.fmean(record["gold"][way] for record in first) for way in ("joint", *WAYS)},
        "by_parts": {
            str(count): {way: _loss([one for one in records if one["parts"] == count and not one["order"]], way) for way in WAYS}
            for count in sorted({record["parts"] for record in records})
        },
    }
    return figures | {"orders": _orders([record for record in records if record["parts"] == most])}


def _loss(records: Sequence[Mapping[str, Any]], way: str) -> dict[str, Any]:
    """Mean divergence from the joined text, its interval, and the share of the joined text's gain that it is."""
    from foreword.evaluate.statistics import bootstrap_interval

    nats = [record["nats"][way] for record in records]
    interval = bootstrap_interval(lambda rows: statistics.fmean(nats[row] for row in rows), len(nats), seed=0)
    share = statistics.fmean(nats) / statistics.fmean(record["without"] for record in records)
    return {"nats": statistics.fmean(nats), "low": interval.low, "high": interval.high, "gain_lost": share}


def _ratio(records: Sequence[Mapping[str, Any]], mine: str, theirs: str) -> tuple[float, list[float]]:
    """One way's loss over another's, and its interval."""
    from foreword.evaluate.statistics import bootstrap_interval

    pairs = [(record["nats"][mine], record["nats"][theirs]) for record in records]

    def ratio(rows: Any) -> float:
        return sum(pairs[row][0] for row in rows) / sum(pairs[row][1] for row in rows)

    interval = bootstrap_interval(ratio, len(pairs), seed=0)
    return ratio(range(len(pairs))), [interval.low, interval.high]


def _orders(records: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean gold loss behind each order of the parts, and its spread; noise is half the width of one order's interval."""
    from foreword.evaluate.statistics import bootstrap_interval

    found: dict[str, Any] = {}
    for way in ("joint", "composed", "framed"):
        by_order: dict[int, list[float]] = {}
        for record in records:
            by_order.setdefault(record["order"], []).append(record["gold"][way])
        means = [statistics.fmean(values) for values in by_order.values()]
        gold = by_order[0]
        interval = bootstrap_interval(lambda rows, gold=gold: statistics.fmean(gold[row] for row in rows), len(gold), seed=0)
        found[way] = {"means": means, "spread": max(means) - min(means), "noise": (interval.high - interval.low) / 2}
    return found


if __name__ == "__main__":
    sys.exit(main())

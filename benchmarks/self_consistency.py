"""Adaptive self-consistency against a fixed 40 samples, on samples that the embedded model has drawn.

python -m benchmarks.self_consistency            records, then replays; about 15 minutes on two cores
python -m benchmarks.self_consistency --replay   replays what was recorded; a few seconds, no model
python -m benchmarks.self_consistency --quick    records a few questions, and replays these

For each question 40 short answers are drawn at temperature 0.7, behind examples that are compiled into a prefix. What is recorded is how
they vote, as numbers: 0 for the answer that came first, 1 for the next other one, -1 for a sample without an answer; and which of them is
right. A fixed vote among all 40 is the peer. The adaptive vote sees the same samples in an order of its own, over and over, and stops by
`foreword.prompting.voting`. Questions with even numbers choose how sure it must be; those with odd ones are what is reported.

The model is small: what it gets right of this is easy, and a few questions of GSM8K, with reasons, are shown apart to say how far that is
from what strong models vote on. Tasks whose vote is pure noise are left out, since there any rule would do as well as another.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

from benchmarks import command, shared_tasks
from foreword.prompting.voting import Ballots, Rule, Stopping

RESULT = Path(__file__).with_name("results") / "self_consistency.json"
RECORDED = Path(__file__).with_name("results") / "self_consistency_votes.json"
SAMPLES = 40
TEMPERATURE = 0.7
MOST_TOKENS = 8
MOST_REASONS = 160
"""Tokens of a sample with reasons (GSM8K)."""
EXAMPLES = 8
ORDERS = 40
"""In which the samples of a question are replayed."""
TUNE_ORDERS = 10
"""The same, while settings are compared."""
LEAST_FEWER = 5.5
"""How many times fewer samples a setting must take on the questions that it is chosen by: a little more than is asked for in the end."""
CONFIDENCES = (0.6, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95, 0.99, 1.0)
RULES: tuple[Rule, ...] = ("remaining", "beta")
DEFAULT = Stopping(n=SAMPLES)

Row = tuple[str, str]
"""A question and its answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is recorded.

    Attributes:
        tasks: of `_TASKS`.
        questions: of each task.
        reasons: questions of GSM8K, asked for with reasons.
    """

    tasks: Sequence[str]
    questions: int
    reasons: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """How the samples of one question vote, and which vote is right; None where no sample is."""

    votes: tuple[int, ...]
    right: int | None


FULL = Size(tasks=("addition", "products", "comparison", "boolean_expressions", "sports_understanding"), questions=90, reasons=5)
QUICK = Size(tasks=("addition", "sports_understanding"), questions=4, reasons=0)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes the full run's result; returns the exit code."""
    parser = command.parser("self_consistency", __doc__, quick="a few questions of two tasks")
    parser.add_argument("--replay", action="store_true", help="no model: replay what was recorded")
    options = parser.parse_args(arguments)
    measure = _replayed if options.replay else _measured
    return command.run(options, measure, full=FULL, quick=QUICK, result=RESULT)


def _measured(data: Path, size: Size) -> Iterator[dict[str, Any]]:
    began = time.perf_counter()
    recorded = asyncio.run(_record(data, size))
    seconds = time.perf_counter() - began
    if size is FULL:
        write(RECORDED, recorded)
    yield figures(recorded) | {"recording_seconds": seconds}


def _replayed(data: Path, size: Size) -> Iterator[dict[str, Any]]:
    if not RECORDED.is_file():
        raise SystemExit(f"Nothing is recorded yet: there is no {RECORDED.name}. Run once without --replay.")
    yield figures(read(RECORDED))


def read(path: Path) -> dict[str, list[Recorded]]:
    """What was recorded, by task."""
    content = json.loads(path.read_text(encoding="utf-8"))
    return {name: [Recorded(votes=tuple(row["votes"]), right=row["right"]) for row in rows] for name, rows in content["tasks"].items()}


def write(path: Path, recorded: dict[str, list[Recorded]]) -> None:
    """Writes what was recorded, a line for each question, in place of what was there."""
    rows = {
        name: ",\n".join(f'   {{"right": {json.dumps(row.right)}, "votes": {json.dumps(row.votes)}}}' for row in rows)
        for name, rows in recorded.items()
    }
    tasks = ",\n".join(f"  {json.dumps(name)}: [\n{text}\n  ]" for name, text in rows.items())
    about = {"model": "smollm2", "temperature": TEMPERATURE, "samples": SAMPLES}
    content = f'{{\n "about": {json.dumps(about)},\n "tasks": {{\n{tasks}\n }}\n}}\n'
    part = path.with_suffix(".part")
    part.write_text(content, encoding="utf-8")
    part.replace(path)


# Replaying


def replay(votes: Sequence[int], stopping: Stopping) -> tuple[int | None, int]:
    """Which vote wins among samples taken in this order, and how many are taken."""
    ballots, drawn = Ballots(), 0
    while count := stopping.next_count(ballots, drawn):
        for vote in votes[drawn : drawn + count]:
            if vote >= 0:
                ballots.add(str(vote))
        drawn += count
    return (None if ballots.leader is None else int(ballots.leader)), drawn


def orders(row: Recorded, number: int) -> Iterator[tuple[int, ...]]:
    """The samples of a question in the order drawn, and shuffled."""
    yield row.votes
    draw = random.Random(number)
    for _ in range(ORDERS - 1):
        yield tuple(draw.sample(row.votes, len(row.votes)))


def compared(rows: Sequence[Recorded], stopping: Stopping, *, most_orders: int = ORDERS) -> list[dict[str, float]]:
    """For each question, over all orders: shares of right answers, of agreement with the fixed vote, and samples."""
    fixed = Stopping(n=SAMPLES, adaptive=False)
    found = []
    for number, row in enumerate(rows):
        pairs = [(replay(votes, fixed)[0], *replay(votes, stopping)) for votes in islice(orders(row, number), most_orders)]
        found.append(
            {
                "fixed": statistics.fmean(all_of_them is not None and all_of_them == row.right for all_of_them, _, _ in pairs),
                "adaptive": statistics.fmean(winner is not None and winner == row.right for _, winner, _ in pairs),
                "agrees": statistics.fmean(winner == all_of_them for all_of_them, winner, _ in pairs),
                "samples": statistics.fmean(drawn for _, _, drawn in pairs),
            }
        )
    return found


def figures(recorded: dict[str, list[Recorded]]) -> dict[str, Any]:
    """Chooses on the even questions and reports on the odd ones. Samples with reasons are shown apart."""
    short = {name: rows for name, rows in recorded.items() if not name.endswith("reasons")}
    tune = [row for rows in short.values() for row in rows[::2]]
    report = {name: rows[1::2] for name, rows in short.items()}
    chosen = _choose(tune)
    everything = [row for rows in report.values() for row in rows]
    best, default = _summary(everything, chosen), _summary(everything, DEFAULT)
    return {
        "adaptive_loss_points": best["loss_points"],
        "adaptive_loss_interval": best["loss_interval"],
        "adaptive_times_fewer": best["times_fewer"],
        "chosen": {"rule": chosen.rule, "confidence": chosen.confidence, "least": chosen.least, "batch": chosen.batch},
        "on_report_half": {"chosen": best, "default": default},
        "chosen_by_task": {name: _summary(rows, chosen) for name, rows in report.items()},
        "one_sample_accuracy": {name: _one_sample(rows) for name, rows in recorded.items()},
        "curve": [_point(everything, stopping) for stopping in _settings((1,), (2,))],
        "with_reasons": {name: _summary(rows, DEFAULT) for name, rows in recorded.items() if name not in short},
        "questions": {name: len(rows) for name, rows in recorded.items()},
    }


def _settings(batches: Iterable[int], least: Iterable[int]) -> Iterator[Stopping]:
    for rule, confidence, batch, few in product(RULES, CONFIDENCES, batches, least):
        yield Stopping(n=SAMPLES, confidence=confidence, rule=rule, least=few, batch=batch)


def _choose(rows: Sequence[Recorded]) -> Stopping:
    """Of the settings that take few enough samples the one that comes to what the fixed vote comes to most often.

    Agreement is what is looked at and not accuracy, which few questions tell less about. Where none takes few enough, the frugal one.
    """
    found = [(_point(rows, stopping), stopping) for stopping in _settings((1, 2, 4), (2, 3, 4))]
    enough = [(point["agrees"], stopping) for point, stopping in found if point["times_fewer"] >= LEAST_FEWER]
    if not enough:
        return min(found, key=lambda each: each[0]["samples"])[1]
    return max(enough, key=lambda each: each[0])[1]


def _point(rows: Sequence[Recorded], stopping: Stopping) -> dict[str, Any]:
    found = compared(rows, stopping, most_orders=TUNE_ORDERS)
    mean = {key: statistics.fmean(each[key] for each in found) for key in ("fixed", "adaptive", "agrees", "samples")}
    return {
        "rule": stopping.rule,
        "confidence": stopping.confidence,
        "loss_points": 100 * (mean["fixed"] - mean["adaptive"]),
        "agrees": mean["agrees"],
        "samples": mean["samples"],
        "times_fewer": SAMPLES / mean["samples"],
    }


def _summary(rows: Sequence[Recorded], stopping: Stopping) -> dict[str, Any]:
    """Figures with intervals over questions."""
    from foreword.evaluate.statistics import bootstrap_interval

    found = compared(rows, stopping)
    loss = [100 * (each["fixed"] - each["adaptive"]) for each in found]
    samples = [each["samples"] for each in found]
    of_loss = bootstrap_interval(lambda chosen: statistics.fmean(loss[int(place)] for place in chosen), len(rows), seed=0)
    of_samples = bootstrap_interval(lambda chosen: statistics.fmean(samples[int(place)] for place in chosen), len(rows), seed=0)
    return {
        "questions": len(rows),
        "fixed_accuracy": statistics.fmean(each["fixed"] for each in found),
        "adaptive_accuracy": statistics.fmean(each["adaptive"] for each in found),
        "agrees_with_fixed": statistics.fmean(each["agrees"] for each in found),
        "loss_points": statistics.fmean(loss),
        "loss_interval": [of_loss.low, of_loss.high],
        "samples": statistics.fmean(samples),
        "samples_interval": [of_samples.low, of_samples.high],
        "times_fewer": SAMPLES / statistics.fmean(samples),
    }


def _one_sample(rows: Sequence[Recorded]) -> float:
    return statistics.fmean(statistics.fmean(vote >= 0 and vote == row.right for vote in row.votes) for row in rows)


# Recording


async def _record(data: Path, size: Size) -> dict[str, list[Recorded]]:
    from foreword import api

    engine: Any = api.load("smollm2").engine
    serving = engine.serve(max_rows=SAMPLES)
    found = {}
    try:
        for name in size.tasks:
            began = time.perf_counter()
            rows = _TASKS[name](data, EXAMPLES + size.questions)
            found[name] = await _task(engine, serving, rows)
            seconds = (time.perf_counter() - began) / size.questions
            sys.stderr.write(f"{name}: one sample {_one_sample(found[name]):.2f}, {seconds:.1f} s a question\n")
        if size.reasons:
            found["gsm8k, with reasons"] = await _with_reasons(serving, _gsm8k(data, size.reasons))
    finally:
        serving.close()
    return found


async def _task(engine: Any, serving: Any, rows: Sequence[Row]) -> list[Recorded]:
    """Short answers, behind the first rows as examples; these are computed once, as a prefix."""
    from foreword.compiling.from_prompt import compile_template
    from foreword.prompting import model
    from foreword.prompting.template import Shot, Template, Turn
    from foreword.types import Message, Sampling

    shots = tuple(Shot(user=question, assistant=f"Answer: {answer}") for question, answer in rows[:EXAMPLES])
    template = Template(name="examples", messages=(Turn(role="user", content="{{ question }}"),), examples=shots)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "examples.safetensors"
        compile_template(engine, template, name="examples").save(file)
        served = model.of(serving, files=(file,))
        found = []
        for number, (question, answer) in enumerate(rows[EXAMPLES:]):
            asked = (Message(role="user", content=question),)
            drawn = await asyncio.gather(
                *(
                    served.answer(
                        asked,
                        Sampling(temperature=TEMPERATURE, max_new_tokens=MOST_TOKENS, seed=number * SAMPLES + place, stop=("\n",)),
                    )
                    for place in range(SAMPLES)
                )
            )
            found.append(_counted([completion.text for completion in drawn], answer, number=False))
        await served.close()
    return found


async def _with_reasons(serving: Any, rows: Sequence[Row]) -> list[Recorded]:
    """Chains of thought without examples; the last number of each votes."""
    from foreword.prompting import model
    from foreword.prompting.strategies._reasoning import reasoned
    from foreword.types import Message, Sampling

    served, found = model.of(serving), []
    for number, (question, answer) in enumerate(rows):
        asked = reasoned((Message(role="user", content=question),), ())
        sampling = [
            Sampling(temperature=TEMPERATURE, max_new_tokens=MOST_REASONS, seed=number * SAMPLES + place) for place in range(SAMPLES)
        ]
        drawn = await asyncio.gather(*(served.answer(asked, each) for each in sampling))
        found.append(_counted([completion.text for completion in drawn], answer, number=True))
    await served.close()
    return found


def _counted(texts: Sequence[str], answer: str, *, number: bool) -> Recorded:
    """Votes as numbers in the order in which they first come."""
    from foreword.prompting.final_answer import last_number, marked_answer, vote_key

    keys: dict[str, int] = {}
    votes = []
    for text in texts:
        said = last_number(text) if number else marked_answer(text)
        votes.append(-1 if said is None else keys.setdefault(vote_key(said), len(keys)))
    return Recorded(votes=tuple(votes), right=keys.get(vote_key(answer)))


def _arithmetic(kind: str, count: int) -> list[Row]:
    """Different exercises, of which the small model can do about every other one."""
    draw, rows = random.Random(kind), dict[str, str]()
    while len(rows) < count:
        one, two = draw.sample(range(1, 100), 2) if kind == "comparison" else (draw.randint(2, 12), draw.randint(2, 12))
        if kind == "addition":
            one, two = one * draw.choice((1, 1, 5)), two * draw.choice((1, 1, 5))
            rows[f"What is {one} + {two}?"] = str(one + two)
        elif kind == "products":
            rows[f"What is {one} * {two}?"] = str(one * two)
        else:
            rows[f"Which is larger, {one} or {two}?"] = str(max(one, two))
    return list(rows.items())


def _bbh(data: Path, task: str, count: int) -> list[Row]:
    rows = [(row["input"], row["target"]) for row in shared_tasks._rows(data, "bbh/dev.jsonl.gz") if row["task"] == task]
    return random.Random(0).sample(rows, count)


def _gsm8k(data: Path, count: int) -> list[Row]:
    from foreword.prompting.final_answer import final_answer

    return [(row["question"], final_answer(row["answer"])) for row in shared_tasks._rows(data, "gsm8k/dev.jsonl")[:count]]


_TASKS = {
    "addition": lambda data, count: _arithmetic("addition", count),
    "products": lambda data, count: _arithmetic("products", count),
    "comparison": lambda data, count: _arithmetic("comparison", count),
    "boolean_expressions": lambda data, count: _bbh(data, "boolean_expressions", count),
    "sports_understanding": lambda data, count: _bbh(data, "sports_understanding", count),
}


if __name__ == "__main__":
    sys.exit(main())

"""Game of 24 (Yao et al. 2023, "Tree of Thoughts", §4.1): make 24 of four numbers with + - * / and parentheses.

`game24` draws puzzles that can be solved, with the seed; `game24:PATH` reads them from JSON lines with a field `Puzzles` that has four
numbers (`4 9 10 13`). The training rows are drawn in both cases, and none of them is a dev row. Every row comes with one solution, for
examples and for readers; the scorer takes any.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from fractions import Fraction
from itertools import combinations, islice
from pathlib import Path

from pydantic import Field

from foreword.data.dataset import Dataset
from foreword.errors import DataError, EvaluationError
from foreword.evaluate.task import SuccessRule, Task, make_task
from foreword.evaluate.task_source import SourceSettings, rows_of
from foreword.prompting.verifiers.game24 import question
from foreword.types import Example, Message

AIM = Fraction(24)
NUMBERS = 4
FIELD = "Puzzles"
MOST_NEW_TOKENS = 200
MOST_IDLE_DRAWS = 20_000
"""Draws of puzzles seen before, one after the other, after which there are no others."""


class Settings(SourceSettings):
    """A file's rows are taken at random where they are more than `rows`.

    Attributes:
        largest: of the numbers that are drawn.
    """

    rows: int = Field(default=100, ge=1, le=10_000)
    train_rows: int = Field(default=32, ge=1, le=400)
    largest: int = Field(default=13, ge=6, le=99)


def load(argument: str | None, settings: Settings) -> Task:
    """The task.

    Raises:
        DataError: the file cannot be read, or has a row without four whole numbers.
        EvaluationError: it has no puzzle, or there are not as many puzzles as are to be drawn.
    """
    draw = _drawn(settings)
    dev = list(islice(draw, settings.rows)) if argument is None else _read(Path(argument))
    if len(dev) > settings.rows:
        dev = random.Random(settings.seed).sample(dev, settings.rows)
    taken = {tuple(sorted(puzzle)) for puzzle in dev}
    train = list(islice((puzzle for puzzle in draw if puzzle not in taken), settings.train_rows))
    if len(train) < settings.train_rows:
        raise EvaluationError(
            f"There are too few puzzles of numbers up to {settings.largest} for {settings.rows} dev rows and {settings.train_rows} "
            "training rows. Ask for fewer, or for larger numbers."
        )
    return make_task(
        "game24",
        train=Dataset.of([_example(puzzle) for puzzle in train]),
        dev=Dataset.of([_example(puzzle, line) for line, puzzle in enumerate(dev, start=1)]),
        scorers=("game24",),
        primary="game24",
        success=SuccessRule(scorer="game24", at_least=1.0),
        max_new_tokens=MOST_NEW_TOKENS,
        verifier="game24",
        tools=("calculator",),
    )


def solution(numbers: Sequence[int]) -> str | None:
    """An expression that makes 24 of the numbers, each once; None where there is none. Tries every way to join two of them."""
    return _joined([(Fraction(number), str(number)) for number in numbers])


def _joined(terms: list[tuple[Fraction, str]]) -> str | None:
    if len(terms) == 1:
        return terms[0][1] if terms[0][0] == AIM else None
    for first, second in combinations(range(len(terms)), 2):
        rest = [term for place, term in enumerate(terms) if place not in (first, second)]
        for made in _ways(terms[first], terms[second]):
            found = _joined([*rest, made])
            if found is not None:
                return found
    return None


def _ways(one: tuple[Fraction, str], two: tuple[Fraction, str]) -> Iterator[tuple[Fraction, str]]:
    (a, left), (b, right) = one, two
    yield a + b, f"({left} + {right})"
    yield a * b, f"({left} * {right})"
    yield a - b, f"({left} - {right})"
    yield b - a, f"({right} - {left})"
    if b:
        yield a / b, f"({left} / {right})"
    if a:
        yield b / a, f"({right} / {left})"


def _drawn(settings: Settings) -> Iterator[tuple[int, ...]]:
    """Puzzles that can be solved, none twice; ends when no new one has turned up for long."""
    rng = random.Random(settings.seed)
    seen: set[tuple[int, ...]] = set()
    idle = 0
    while idle < MOST_IDLE_DRAWS:
        idle += 1
        puzzle = tuple(sorted(rng.randint(1, settings.largest) for _ in range(NUMBERS)))
        if puzzle in seen:
            continue
        seen.add(puzzle)
        idle = 0
        if solution(puzzle) is not None:
            yield puzzle


def _read(path: Path) -> list[tuple[int, ...]]:
    found = []
    for line, fields in rows_of(path):
        words = str(fields.get(FIELD, "")).replace(",", " ").split()
        if len(words) != NUMBERS or not all(word.isascii() and word.isdigit() for word in words):
            raise DataError(f"{path}:{line} has no `{FIELD}` with {NUMBERS} whole numbers such as `4 9 10 13`.")
        found.append(tuple(int(word) for word in words))
    if not found:
        raise EvaluationError(f"{path} has no puzzle. Give JSON lines with a field `{FIELD}`.")
    return found


def _example(numbers: Sequence[int], line: int = 0) -> Example:
    made = solution(numbers)
    wanted = "no solution" if made is None else f"Answer: {made.removeprefix('(').removesuffix(')')} = 24"
    return Example(messages=(Message(role="user", content=question(numbers)),), completions=(wanted,), line=line)

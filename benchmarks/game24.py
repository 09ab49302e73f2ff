"""Tree of thoughts on the Game of 24: how many puzzles are solved, and in how many expansions of a state.

python -m benchmarks.game24            about six minutes on two cores
python -m benchmarks.game24 --quick    about 30 s: 60 puzzles, and two by the small model

Two models play. The `scripted` engine knows arithmetic: it proposes every next step, in one order, and judges exactly, so what is measured
is the search alone, on all development puzzles. Its peer in the same run is breadth-first search without judgements: the same strategy,
proposer and order, every state kept, up to the first solution. Both merge equal states and expand one state at a time. A judgement is a
call too, so calls are told beside expansions.

The other is the embedded model, which can hardly add, by several ways to ask, on a few puzzles drawn at random: its numbers are what they
are. There a finished path is checked exactly, and steps whose sum is wrong are not taken.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import command

if TYPE_CHECKING:
    from foreword.prompting.model import Model
    from foreword.prompting.strategy import Solved
    from foreword.types import Message

RESULT = Path(__file__).with_name("results") / "game24.json"
GAME = "decomposition=game24, verifier=game24, at_once=1, expansions=100000"
EXACT = {
    "bfs": f"tot({GAME}, evaluations=1, beam=5)",
    "dfs": f"tot({GAME}, evaluations=1, beam=null, search=dfs)",
    "without evaluation": f"tot({GAME}, evaluator=none, beam=null)",
}
SMALL = {
    "zero-shot": "zero-shot",
    "cot": "cot",
    "best-of-n": "best-of-n(n=8, batch=8, verifier=game24)",
    "tot": "tot(decomposition=game24, verifier=game24, evaluations=1, beam=2, expansions=6, tokens=160)",
    "tot without evaluation": "tot(decomposition=game24, verifier=game24, evaluator=none, beam=6, expansions=12, tokens=160)",
}
MOST_CALLS, MOST_TOKENS = 60, 160
BARS = {"solved": 0.95}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured. None: all puzzles. `small`: puzzles for the small model; `seconds`: that one of its answers may take."""

    puzzles: int | None
    small: int
    seconds: float


FULL = Size(puzzles=None, small=8, seconds=9.0)
QUICK = Size(puzzles=60, small=2, seconds=3.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What one way took for one puzzle. `outside`: seconds in which no call was under way."""

    solved: bool
    status: str
    expansions: int
    calls: int
    tokens: int
    seconds: float
    outside: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes the full run's result; returns the exit code."""
    less = "60 puzzles, and two by the small model"
    return command.main("game24", __doc__, measure, arguments, full=FULL, quick=QUICK, less=less, result=RESULT)


def measure(data: Path, size: Size) -> Iterator[dict[str, Any]]:
    """The search's figures, then also the small model's."""
    everything = puzzles(data)
    chosen = everything if size.puzzles is None else random.Random(0).sample(everything, size.puzzles)
    figures = exact(chosen)
    yield figures
    yield figures | {"small_model": small_model(random.Random(1).sample(everything, size.small), size.seconds)}


def puzzles(data: Path) -> list[tuple[int, ...]]:
    """All development puzzles, the easiest for people first."""
    with (data / "game24" / "dev.jsonl").open(encoding="utf-8") as file:
        return [tuple(int(number) for number in json.loads(line)["Puzzles"].split()) for line in file]


def exact(chosen: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """The three searches with exact thoughts and judgements."""
    from foreword.engines import scripted
    from foreword.prompting import model

    played = {name: asyncio.run(_played(text, chosen, model.of(scripted.load("arithmetic")))) for name, text in EXACT.items()}
    breadth, depth, peer = (sum(one.expansions for one in played[name]) for name in EXACT)
    bfs = _figures(played["bfs"])
    return {
        "puzzles": len(chosen),
        "solved": bfs["solved"],
        "solved_dfs": _figures(played["dfs"])["solved"],
        "expansions": breadth,
        "expansions_dfs": depth,
        "expansions_without_evaluation": peer,
        "ratio": peer / breadth,
        "ratio_dfs": peer / depth,
        "bars_held": bfs["solved"] >= BARS["solved"] and breadth < peer,
        "searches": {name: _figures(one) | _expanded(one, played["without evaluation"]) for name, one in played.items()},
    }


def small_model(chosen: Sequence[tuple[int, ...]], seconds: float) -> dict[str, Any]:
    """Every way to ask of the embedded model."""
    from foreword import api
    from foreword.prompting import model

    engine: Any = api.load("smollm2").engine
    found: dict[str, Any] = {"puzzles": len(chosen), "most_seconds_each": seconds, "most_calls_each": MOST_CALLS}
    for name, text in SMALL.items():
        figures = _figures(asyncio.run(_played(text, chosen, model.of(engine, name="smollm2"), seconds=seconds)))
        found[name] = {"strategy": text, **figures}
        sys.stderr.write(f"{name}: {json.dumps(figures)}\n")
    return found


async def _played(text: str, chosen: Sequence[tuple[int, ...]], asked: Model, *, seconds: float | None = None) -> list[Played]:
    """One strategy over the puzzles, one after the other; `seconds` limits each, and its calls and tokens then too."""
    from foreword.prompting import strategy
    from foreword.types import Sampling

    way = strategy.parse(text)
    budget = strategy.Budget(calls=None if seconds is None else MOST_CALLS, seconds=seconds)
    sampling = Sampling(max_new_tokens=2_000 if seconds is None else MOST_TOKENS)
    try:
        return [
            _counted(numbers, await strategy.solve(way, _asked(numbers), asked, sampling=sampling, budget=budget)) for numbers in chosen
        ]
    finally:
        await asked.close()


def _asked(numbers: Sequence[int]) -> list[Message]:
    from foreword.prompting.verifiers.game24 import question
    from foreword.types import Message

    return [Message(role="user", content=question(numbers))]


def _counted(numbers: Sequence[int], answer: Solved) -> Played:
    from foreword.prompting.verifiers.game24 import judge

    return Played(
        solved=judge(numbers, answer.final).passed,
        status=answer.status,
        expansions=len(answer.trace.of_kind("search")),
        calls=answer.calls,
        tokens=answer.usage.prompt_tokens + answer.usage.completion_tokens,
        seconds=answer.seconds,
        outside=answer.seconds - answer.model_seconds,
    )


def _figures(played: Sequence[Played]) -> dict[str, Any]:
    """The share solved with Wilson's interval; calls and tokens of a puzzle, seconds of all."""
    from foreword.evaluate.statistics import wilson_interval

    count, solved = len(played), sum(one.solved for one in played)
    interval = wilson_interval(solved, count)
    return {
        "solved": solved / count,
        "interval": [interval.low, interval.high],
        "calls": statistics.fmean(one.calls for one in played),
        "tokens": statistics.fmean(one.tokens for one in played),
        "seconds": sum(one.seconds for one in played),
        "seconds_outside_the_model": sum(one.outside for one in played),
        "ended": {status: sum(one.status == status for one in played) for status in ("answered", "budget", "failed")},
    }


def _expanded(played: Sequence[Played], peer: Sequence[Played]) -> dict[str, Any]:
    """Expansions of a puzzle, and for how many puzzles they are fewer or more than the peer's."""
    pairs = [(one.expansions, other.expansions) for one, other in zip(played, peer, strict=True)]
    mine = [expansions for expansions, _ in pairs]
    return {
        "expansions_mean": statistics.fmean(mine),
        "expansions_median": statistics.median(mine),
        "expansions_most": max(mine),
        "puzzles_with_fewer_than_without_evaluation": sum(expansions < others for expansions, others in pairs),
        "puzzles_with_more": sum(expansions > others for expansions, others in pairs),
    }


if __name__ == "__main__":
    sys.exit(main())

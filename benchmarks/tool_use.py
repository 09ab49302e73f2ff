"""Calls of tools: whether `react` takes what a model says, and how often the embedded model says the right thing.

python -m benchmarks.tool_use            some minutes on two cores
python -m benchmarks.tool_use --quick    about 40 s

Rows of the Berkeley Function-Calling Leaderboard (one function, several functions, none that fits). Each function is a tool that notes how
it was called; `react` has one step. The machinery is proved by a scripted model that says the accepted call, in five forms that models
write: every row must be right. The embedded model's share is then its own.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import command, shared_tasks

RESULT = Path(__file__).with_name("results") / "tool_use.json"
SETS = ("simple_python", "multiple", "irrelevance")
_TYPES = {"dict": "object", "float": "number", "tuple": "array", "any": None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Rows of each set that are asked, the first ones; None for all. Args: scripted, embedded: by which model; new_tokens: of an answer."""

    scripted: int | None
    embedded: int
    new_tokens: int


FULL = Size(scripted=None, embedded=78, new_tokens=128)
QUICK = Size(scripted=40, embedded=6, new_tokens=64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A request, the functions at hand, and the calls that are accepted: none where no function fits."""

    request: str
    functions: Sequence[Mapping[str, Any]]
    wanted: Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What came of a row: whether the calls were right, and whether what the model said had any form at all."""

    right: bool
    read: bool


def rows(data: Path, name: str, count: int | None) -> list[Row]:
    """The first rows of a set."""
    found = list(shared_tasks._rows(data, f"bfcl/{name}_dev.jsonl.gz"))[:count]
    return [Row(request=row["question"][0][-1]["content"], functions=row["function"], wanted=row["ground_truth"] or []) for row in found]


def measure(data: Path, size: Size) -> Iterator[dict[str, Any]]:
    """Figures so far, after the scripted model and after each set of the embedded one."""
    from foreword import api
    from foreword.evaluate.statistics import wilson_interval

    figures: dict[str, Any] = {}
    scripted = [asyncio.run(_scripted(number, row)) for name in SETS for number, row in enumerate(rows(data, name, size.scripted))]
    figures |= {"scripted_rows": len(scripted), "scripted_correct": _share(one.right for one in scripted)}
    yield figures
    engine: Any = api.load("smollm2", dtype="bfloat16").engine
    answered: dict[str, list[Judged]] = {}
    for name in SETS:
        answered[name] = asyncio.run(_embedded(engine, rows(data, name, size.embedded), size.new_tokens))
        figures[f"smollm2_{name}_correct"] = _share(one.right for one in answered[name])
        yield figures
    calls = [one for name in SETS[:2] for one in answered[name]]
    none = answered["irrelevance"]
    interval = wilson_interval(sum(one.right for one in calls), len(calls))
    figures |= {
        "smollm2_correct": _share(one.right for one in calls),
        "smollm2_interval": [round(interval.low, 4), round(interval.high, 4)],
        "irrelevance_correct": _share(one.right for one in none),
        "parse_rate": _share(one.read for one in (*calls, *none)),
        "rows": len(calls) + len(none),
    }
    yield figures


async def judged(row: Row, model: Any, *, new_tokens: int = 128) -> Judged:
    """Has `react` answer one request in one step, with tools that note how they are called."""
    from foreword.evaluate.scorers.tool_call import are_accepted
    from foreword.prompting import strategy, tool_calls
    from foreword.prompting.strategy import Resources
    from foreword.types import Message, Sampling

    noted: list[tuple[str, Mapping[str, Any]]] = []
    solved = await strategy.solve(
        strategy.get("react", steps=1),
        (Message(role="user", content=row.request),),
        model,
        resources=Resources(tools=_tools(row.functions, noted)),
        sampling=Sampling(max_new_tokens=new_tokens),
    )
    said = "".join(str(span.attributes.get("text", "")) for span in solved.trace.of_kind("call"))
    return Judged(right=are_accepted(noted, row.wanted), read=not tool_calls.parse(said).problem)


def _tools(functions: Sequence[Mapping[str, Any]], noted: list[tuple[str, Mapping[str, Any]]]) -> Any:
    from foreword.prompting.tool import Tool, Tools

    def noting(name: str) -> Callable[[Mapping[str, Any]], Any]:
        async def call(arguments: Mapping[str, Any]) -> str:
            noted.append((name, arguments))
            return "noted"

        return call

    return Tools.of(
        Tool(name=one["name"], description=one["description"], parameters=_schema(one["parameters"]), call=noting(one["name"]))
        for one in functions
    )


def _schema(given: Any) -> Any:
    """A schema of the leaderboard's, with JSON's names of types."""
    if isinstance(given, list):
        return [_schema(part) for part in given]
    if not isinstance(given, dict):
        return given
    kind = given.get("type")
    named = {key: _schema(value) for key, value in given.items() if not (key == "type" and isinstance(kind, str))}
    if isinstance(kind, str) and (wanted := _TYPES.get(kind, kind)) is not None:
        return {"type": wanted} | named
    return named


async def _scripted(number: int, row: Row) -> Judged:
    """The row, answered by a model that knows the accepted call and says it in one form or another."""
    from foreword.engines.scripted import ScriptedEngine
    from foreword.prompting import model

    text = spoken(number, row.wanted)
    asked = model.of(ScriptedEngine(lambda conversation, sampling: text))
    try:
        return await judged(row, asked, new_tokens=10_000)
    finally:
        await asked.close()


def spoken(number: int, wanted: Sequence[Mapping[str, Any]]) -> str:
    """The first accepted call, in a form that goes by the row's number."""
    if not wanted:
        return "Thought: no tool fits\nFinal Answer: I cannot do this."
    ((name, accepted),) = wanted[0].items()
    arguments = _first(accepted)
    told = json.dumps(arguments, ensure_ascii=False)
    call = json.dumps({"name": name, "arguments": arguments}, ensure_ascii=False)
    keywords = ", ".join(f"{key}={value!r}" for key, value in arguments.items())
    return (
        f"Thought: a tool fits\nAction: {name}\nAction Input: {told}",
        f"I call it.\n<tool_call>\n{call}\n</tool_call>",
        f"```json\n{call}\n```",
        f"Thought 1: a tool fits\nAction 1: {name}[{told}]",
        f"Action: {name}({keywords})",
    )[number % 5]


def _first(accepted: Any) -> Any:
    """The first accepted value of each argument that must be given; inside an object every value is again a list of accepted ones."""
    if isinstance(accepted, Mapping):
        return {name: _first(values[0]) for name, values in accepted.items() if values and "" not in values}
    return [_first(part) for part in accepted] if isinstance(accepted, list) else accepted


async def _embedded(engine: Any, asked: Sequence[Row], new_tokens: int) -> list[Judged]:
    from foreword.prompting import model
    from foreword.prompting.strategy import together

    embedded = model.of(engine, name="smollm2")
    try:
        return await together([judged(row, embedded, new_tokens=new_tokens) for row in asked])
    finally:
        await embedded.close()


def _share(found: Any) -> float:
    values = list(found)
    return round(sum(values) / len(values), 4)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes the result of a full run."""
    return command.main(
        "tool_use", __doc__, measure, arguments, full=FULL, quick=QUICK, less="few rows of each set, short answers", result=RESULT
    )


if __name__ == "__main__":
    sys.exit(main())

"""What a strategy takes besides the model's own time, and how many run on one event loop.

python -m benchmarks.strategies            about a minute
python -m benchmarks.strategies --quick    about ten seconds: fewer repetitions

Overhead: every strategy is run on a script that answers in the loop itself, so that nothing of a strategy can hide behind a call under way.
What is left of the wall time around `solve` is divided by the calls: choosing examples, seeds, budgets, votes, checks, the trace. Of many
runs the median is reported, and the 95th percentile.

At once: 256 strategies on one event loop ask a served echo engine that takes its time for each step. The peer is the same calls without
strategies, in the same run; besides that, how late the loop was for somebody who wanted to be woken every few milliseconds.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import command
from foreword.errors import ConfigError
from foreword.prompting import model, strategy, verifier
from foreword.prompting.strategy import Budget, Resources, Solved
from foreword.prompting.template import Shot
from foreword.prompting.tool import Tool, Tools
from foreword.types import Completion, Message, Sampling

RESULT = Path(__file__).with_name("results") / "strategies.json"
AT_ONCE = 256
PACE_MS = 20
WAKE_SECONDS = 0.005
LONG = 32_000
"""Characters of a long question."""
SHOTS = tuple(Shot(user=f"What is {number} plus {number}?", assistant=f"Answer: {2 * number}") for number in range(200))
MIXED = (
    "zero-shot",
    "cot(reading=last-line)",
    "self-consistency(n=8, adaptive=false, reading=last-line)",
    "debate(reading=last-line, until_agreed=false)",
)
SETTINGS = {
    "few-shot": ("", "(select=nearest, order=nearest-last)", "(select=diverse)"),
    "self-consistency": ("", "(adaptive=false)", "(n=200, batch=1, confidence=1)"),
    "debate": ("(debaters=5, rounds=3, until_agreed=false)",),
    "best-of-n": ("(n=16)",),
    "plan-and-solve": ("", "(way=single)"),
    "reflection": ("(rounds=6)",),
    "tot": ("(decomposition=game24)",),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How often each strategy is run, alone."""

    runs: int


FULL, QUICK = Size(runs=100), Size(runs=20)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes the full run's result; returns the exit code."""
    return command.main("strategies", __doc__, measure, arguments, full=FULL, quick=QUICK, less="fewer repetitions", result=RESULT)


def measure(data: Path, size: Size) -> Iterator[dict[str, Any]]:
    """First the overhead, then many at once."""
    figures = _overheads(size)
    yield figures
    yield figures | asyncio.run(_at_once())


# Overhead


class _InLoop:
    """A script that answers in the loop itself; nothing runs beside it. Meets `foreword.prompting.model.Model`."""

    def __init__(self, engine: Any) -> None:
        self.name, self._engine = engine.name, engine

    async def answer(self, conversation: Sequence[Message], sampling: Sampling) -> Completion:
        return self._engine.generate([conversation], sampling=sampling)[0]

    async def close(self) -> None:
        """Nothing was started."""


def _said(conversation: Sequence[Message], sampling: Sampling) -> str:
    """What keeps every strategy busy: plans where one is asked for, answers that differ, and judgements that never pass."""
    asked = conversation[-1].content
    if "numbered list" in asked:
        return "\n".join(f"{number}. Do part {number}." for number in range(1, 7))
    if "Verdict:" in asked:
        return "Verdict: wrong. It is too low."
    if "Thought:" in conversation[0].content and sampling.seed % 4:
        return f'Thought: I compute.\nAction: calculator\nAction Input: {{"expression": "{sampling.seed} * 7"}}'
    return f"Some reasons come first, and more follow.\nAnswer: {sampling.seed % 5}\nFinal Answer: {sampling.seed % 5}"


def _overheads(size: Size) -> dict[str, Any]:
    from foreword.engines.scripted import ScriptedEngine, load

    resources = _resources()
    script, arithmetic = _InLoop(ScriptedEngine(_said)), _InLoop(load("arithmetic"))
    found: dict[str, dict[str, float]] = {}
    left_out: dict[str, str] = {}
    for name in strategy.names():
        for settings in SETTINGS.get(name, ("",)):
            text = f"{name}{settings}"
            asked = arithmetic if name == "tot" else script
            question = "Numbers: 4 5 6 10" if name == "tot" else "What is 6 times 7?"
            try:
                found[text] = _overhead(text, question, asked, resources, size.runs)
            except ConfigError as error:
                left_out[text] = str(error)
    long = _overhead("self-consistency(adaptive=false)", "word " * (LONG // 5), script, resources, size.runs)
    worst = max(found, key=lambda text: found[text]["overhead_ms_per_call"])
    return {
        "overhead_ms_per_call": found[worst]["overhead_ms_per_call"],
        "overhead_p95_ms_per_call": max(each["p95_ms_per_call"] for each in found.values()),
        "worst": worst,
        "by_strategy": found,
        "long_question": long,
        "left_out": left_out,
    }


def _resources() -> Resources:
    async def multiplied(arguments: Any) -> str:
        left, right = str(arguments["expression"]).split("*")
        return str(int(left) * int(right))

    parameters = {"type": "object", "properties": {"expression": {"type": "string"}}, "required": ["expression"]}
    tools = Tools.of([Tool(name="calculator", description="Multiplies.", parameters=parameters, call=multiplied)])
    from foreword.retrieval import embedder

    return Resources(shots=SHOTS, verify=verifier.get("json-object"), tools=tools, embedder=embedder.get())


def _overhead(text: str, question: str, asked: Any, resources: Resources, runs: int) -> dict[str, float]:
    """Milliseconds a call of all but the model: the median of so many runs, one after the other on one loop."""
    chosen, conversation = strategy.parse(text), (Message(role="user", content=question),)
    if chosen.key == "tot":
        resources = Resources()

    async def all_runs() -> tuple[list[float], float]:
        took, calls = [], []
        for seed in range(runs + 2):
            began = time.perf_counter()
            solved = await strategy.solve(
                chosen, conversation, asked, resources=resources, sampling=Sampling(seed=seed), budget=Budget(calls=1_000)
            )
            seconds = time.perf_counter() - began
            if not solved.calls:
                raise ConfigError(f"it made no call: {solved.reason or solved.note}")
            took.append(1000 * (seconds - solved.model_seconds) / solved.calls)
            calls.append(solved.calls)
        # The first runs read files and embed the examples, once for all that follow.
        return took[2:], statistics.fmean(calls[2:])

    took, calls = asyncio.run(all_runs())
    return {
        "overhead_ms_per_call": statistics.median(took),
        "p95_ms_per_call": statistics.quantiles(took, n=20)[-1],
        "calls": calls,
    }


# At once


async def _at_once() -> dict[str, Any]:
    from foreword.engines.echo import load

    serving = load(f"echo-{PACE_MS}ms").serve(max_rows=model.AT_ONCE, queue=4 * AT_ONCE)
    served = model.of(serving)
    try:
        chosen = [strategy.parse(MIXED[number % len(MIXED)]) for number in range(AT_ONCE)]
        questions = [(Message(role="user", content=f"say number {number} again"),) for number in range(AT_ONCE)]
        tasks = [
            lambda one=one, question=question: strategy.solve(one, question, served)
            for one, question in zip(chosen, questions, strict=True)
        ]
        solved, wall, lag = await _timed(tasks)
        assert all(each.status == "answered" for each in solved)
        # The peer says the same words in the same number of calls.
        prompts = [prompt for each in solved for prompt in _prompts(each)]
        plain = [lambda prompt=prompt: served.answer(prompt, Sampling()) for prompt in prompts]
        _, peer, peer_lag = await _timed(plain)
    finally:
        await served.close()
        serving.close()
    calls = sum(each.calls for each in solved)
    return {
        "concurrent": AT_ONCE,
        "concurrent_calls": calls,
        "concurrent_seconds": wall,
        "peer_seconds": peer,
        "concurrent_wall_ratio": wall / peer,
        "event_loop_lag_ms": 1000 * lag,
        "peer_event_loop_lag_ms": 1000 * peer_lag,
    }


def _prompts(solved: Solved) -> list[tuple[Message, ...]]:
    """The conversations of all calls, from the trace."""
    found: list[tuple[Message, ...]] = []
    for span in solved.trace.of_kind("call"):
        turns: Any = span.attributes["prompt"]
        found.append(tuple(Message(role=turn["role"], content=turn["content"]) for turn in turns))
    return found


async def _timed(tasks: Sequence[Callable[[], Any]]) -> tuple[list[Any], float, float]:
    """What tasks give that run at once, how long they take together, and the most that the loop was late meanwhile, in seconds."""
    latest = 0.0

    async def wake() -> None:
        nonlocal latest
        while True:
            wanted = time.perf_counter() + WAKE_SECONDS
            await asyncio.sleep(WAKE_SECONDS)
            latest = max(latest, time.perf_counter() - wanted)

    clock = asyncio.ensure_future(wake())
    began = time.perf_counter()
    found = await asyncio.gather(*(task() for task in tasks))
    seconds = time.perf_counter() - began
    clock.cancel()
    return found, seconds, latest


if __name__ == "__main__":
    sys.exit(main())

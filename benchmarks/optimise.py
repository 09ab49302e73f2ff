"""Whether `foreword prompt optimise` makes the embedded model's prompt better within a fixed budget, on rows that it never saw.

python -m benchmarks.optimise            about ten minutes on two cores
python -m benchmarks.optimise --quick    about 40 s: one seed, a small budget, few rows

The task is to say which of five domains a request is of (CLINC150); an answer is the likeliest label. The hand prompt is one plain sentence
that names the labels. Money is counted at a small hosted model's price; a failure counts as a tenth of a cent, what a person's second look
at it might cost, so that an example's tokens are worth it where they help. Seeds draw other training and dev rows, other pools of examples
and another search; the held-out rows are always the same, and each search's winner and the hand prompt are asked them once.

The peer is drawing at random: the same number of full dev evaluations spent on prompts with examples of every label, drawn by chance, the
best on dev kept. It pays for its dev evaluations what they cost and ignores the budget.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from benchmarks import command, prompt_tasks
from benchmarks.prompt_tasks import PromptTask

RESULT = Path(__file__).with_name("results") / "optimise.json"
HAND = "Say which area the request belongs to: banking, travel, food, car or work."
FAILURE_COST = "0.001"
INPUT_PRICE, OUTPUT_PRICE = "0.1", "0.4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured: training, dev and held-out rows, seeds, and the budget of each in USD."""

    train: int
    dev: int
    held_out: int
    seeds: int
    budget: str
    drawn: int


FULL = Size(train=100, dev=100, held_out=250, seeds=3, budget="0.04", drawn=8)
QUICK = Size(train=40, dev=20, held_out=20, seeds=1, budget="0.003", drawn=1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes the full run's result; returns the exit code."""
    return command.main("optimise", __doc__, measure, arguments, full=FULL, quick=QUICK, less="one seed, small budget", result=RESULT)


def measure(data: Path, size: Size) -> Iterator[dict[str, Any]]:
    """All figures so far, after each seed."""
    from foreword import api

    engine: Any = api.load("smollm2", dtype="bfloat16").engine
    seeds: list[dict[str, Any]] = []
    for seed in range(size.seeds):
        task = prompt_tasks.domains(data, train=size.train, dev=size.dev, held_out=size.held_out, seed=seed)
        seeds.append(_seed_figures(engine, task, size, seed))
        yield {
            "improved_on": sum(one["difference"] > 0 for one in seeds),
            "surely_improved_on": sum(one["interval"][0] > 0 for one in seeds),
            "seeds": len(seeds),
            "hand": seeds[0]["hand"],
            "optimised": sum(one["optimised"] for one in seeds) / len(seeds),
            "drawn_at_random": sum(one["drawn_at_random"] for one in seeds) / len(seeds),
            "budget": size.budget,
            "by_seed": seeds,
        }


def _seed_figures(engine: Any, task: PromptTask, size: Size, seed: int) -> dict[str, Any]:
    from foreword.cost.prices import Price
    from foreword.prompting import judging
    from foreword.prompting.label_model import LabelModel
    from foreword.prompting.optimising import optimise
    from foreword.prompting.searching import OptimiseSettings
    from foreword.prompting.spending import Limits
    from foreword.prompting.template import build

    price = Price(input_per_million=Decimal(INPUT_PRICE), output_per_million=Decimal(OUTPUT_PRICE))
    judge = judging.StrategyJudge(LabelModel(engine, task.labels), judging.equals, price=price)
    messages = [{"role": "system", "content": HAND}, {"role": "user", "content": "{{ text }}"}]

    def tell(step: Any) -> None:
        sys.stderr.write(f"seed {seed}: {step.tried} tried, {step.best.share:.2f} on dev, {step.spent:.0%} spent\n")

    began = time.perf_counter()
    found = optimise(
        build({"name": "domains", "messages": messages}, source="the hand prompt"),
        judge,
        train=task.train,
        dev=task.dev,
        held_out=task.held_out,
        labels=task.labels,
        limits=Limits(money=Decimal(size.budget)),
        settings=OptimiseSettings(failure_cost=Decimal(FAILURE_COST), seed=seed, minibatch=15),
        observe=tell,
    )
    seconds = time.perf_counter() - began
    if found.held_out is None:
        raise RuntimeError("the budget left nothing for the held-out rows")
    before, after, change = found.held_out.before, found.held_out.after, found.held_out.difference
    return {
        "hand": before.success.share,
        "optimised": after.success.share,
        "difference": change.difference,
        "interval": [change.low, change.high],
        "held_out_rows": before.success.rows,
        "dev": [found.dev.before.success.share, found.dev.after.success.share],
        "cost_per_success": [_number(before.cost_per_success), _number(after.cost_per_success)],
        "tokens_a_row": [before.tokens / before.success.rows, after.tokens / after.success.rows],
        "spent": _number(found.spent.money),
        "calls": found.spent.calls,
        "tried_on_dev": len(found.tried),
        "examples": len(found.template.examples),
        "instruction": found.template.messages[0].content if found.template.messages[0].role == "system" else "",
        "stopped": found.stopped,
        "seconds": seconds,
        "drawn_at_random": _drawn(judge, found.template, task, size, seed),
    }


def _drawn(judge: Any, like: Any, task: PromptTask, size: Size, seed: int) -> float:
    """Held-out success of the best, on dev, of a few prompts with an example of each label drawn by chance."""
    from foreword.prompting import strategy
    from foreword.prompting.template import Shot, build

    draw, zero_shot = random.Random(seed), strategy.get("zero-shot")
    drawn = []
    for _ in range(size.drawn):
        rows = [draw.choice([row for row in task.train if row.completions[0] == label]) for label in task.labels]
        draw.shuffle(rows)
        messages = [{"role": "system", "content": HAND}, {"role": "user", "content": "{{ text }}"}]
        shots = [Shot(user=row.prompt, assistant=row.completions[0]).model_dump() for row in rows]
        drawn.append(build({"name": like.name, "messages": messages, "examples": shots}, source="a prompt drawn at random"))

    async def successes(template: Any, rows: Sequence[Any]) -> int:
        return sum(one.success for one in await judge.evaluate(template, zero_shot, rows))

    async def best() -> float:
        scores = [await successes(template, task.dev) for template in drawn]
        return await successes(drawn[scores.index(max(scores))], task.held_out) / len(task.held_out)

    return asyncio.run(best())


def _number(amount: Decimal | None) -> float | None:
    return None if amount is None else float(amount)


if __name__ == "__main__":
    sys.exit(main())

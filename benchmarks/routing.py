"""What the learned router is worth on tables of several models' answers to the same questions.

python -m benchmarks.routing            about 30 s on one core
python -m benchmarks.routing --quick    about 15 s: fewer resamples

For each data set a router is fitted (`foreword.gateway.routing`) to about 75 % of the questions, everything that is chosen being chosen
there by cross-fitting, and judged once on the rest. Questions that begin alike are kept on one side. Figures by data set:

    saving_at_95, saving_low, saving_high    spared against the most accurate model, where the router's curve keeps 95 % of its successes
    area, area_random                        under the curve of success against cost; chance has 0.5 (RouteLLM's APGR, over cost)
    best_single                              the cheapest model that keeps 95 % on its own, and what it spares
    chosen                                   what comes of the point that was chosen beforehand, with 90 % confidence: spared, and kept
    mixed, by_length                         the same without a router: the best mixture by chance, and the rule with mean successes only

Costs: `routerbench` has them in dollars for each answer. `routellm` (MMLU, answered by a letter) is priced by the prompt's length at list
prices; `alpaca_eval` by prompt and answer at list prices; `llmrouter` by list price alone, since its answers' lengths are not known.
The unit differs by data set, and only ratios are told. Success is an answer's correctness; in `alpaca_eval` it is the judged probability
of winning against the strong model, which has 0.5 by definition.

Left out: `routerarena`, where the cheaper of two models is also the more accurate, so that nothing is to be chosen; and the seven models of
equal size in `routerbench/open7`, of which none is dearer.
"""

from __future__ import annotations

import ast
import gzip
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command

RESULT = Path(__file__).with_name("results") / "routing.json"
HELD_OUT = 0.25
KEEP = 0.95
LIKE = 60
"""Characters at the beginning by which questions are kept together."""
CHARACTERS_PER_TOKEN = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured. Attributes: share: of the rows; resamples: of the bootstrap; times: predictions that are timed."""

    share: float
    resamples: int
    times: int


FULL = Size(share=1.0, resamples=1000, times=5000)
QUICK = Size(share=1.0, resamples=200, times=1000)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes the full run's result; returns the exit code."""
    return command.main(
        "routing", __doc__, measure, arguments, full=FULL, quick=QUICK, less="fewer resamples and timed choices", result=RESULT
    )


def measure(data: Path, size: Size) -> Iterator[dict[str, Any]]:
    """Figures by data set, one more each time; the headline is the lists in the order of `dataset`."""
    from foreword.retrieval import embedder

    embed = embedder.get()
    found: dict[str, Any] = {}
    for name, read in READERS.items():
        began = time.process_time()
        found[name] = _figures(read(data), embed, size)
        sys.stderr.write(f"{name}: {time.process_time() - began:.0f} s\n")
        yield _headline(found) | {"datasets": found}


def _figures(table: Any, embed: Any, size: Size) -> dict[str, Any]:
    from foreword.gateway.routing.curve import evaluate
    from foreword.gateway.routing.fitting import Features, fit, held_out_rows

    table = table.rows(table.places() * 2**10 % 1 < size.share)
    features = Features.of(table, embed)
    fitted = fit(table, embed, keep=KEEP, held_out=HELD_OUT, features=features)
    judged_N = held_out_rows(table, HELD_OUT)
    found = evaluate(fitted.router, table.rows(judged_N), features.rows(judged_N), resamples=size.resamples)
    strong = found.accuracy[found.reference]
    return {
        "rows_learned": fitted.rows,
        "rows_judged": found.rows,
        "strong": found.reference,
        "strong_accuracy": strong,
        "saving_at_95": found.saving.value,
        "saving_low": found.saving.low,
        "saving_high": found.saving.high,
        "area": None if found.area is None else found.area.value,
        "area_low": None if found.area is None else found.area.low,
        "area_high": None if found.area is None else found.area.high,
        "area_random": found.random.area,
        "saving_random": found.random.saving,
        "best_single": {"model": found.single, "kept": found.accuracy[found.single] / strong, "saving": found.single_saving},
        "mixed": asdict(found.mixed),
        "by_length": asdict(found.by_length),
        "chosen": {"saving": asdict(found.chosen_saving), "kept": asdict(found.chosen_kept), "asked": found.asked},
        "accuracy": found.accuracy,
        "cost": {tier: cost / found.cost[found.reference] for tier, cost in found.cost.items()},
        "log_loss": fitted.log_loss,
        "log_loss_of_means": fitted.log_loss_of_means,
        "curve": [[round(cost / found.cost[found.reference], 4), round(success, 4)] for cost, success in found.curve[::10]],
        **_times(fitted.router, table, features, size.times),
    }


def _times(router: Any, table: Any, features: Any, times: int) -> dict[str, float]:
    """How long a choice takes, the question's vector being there."""
    among = range(len(router.tiers))
    took = []
    for number in range(times):
        row = number % len(table)
        question, vector_D = table.questions[row], features.vectors_ND[row]
        began = time.perf_counter()
        router.choose(question, vector_D, among)
        took.append(time.perf_counter() - began)
    return {"choice_p50_ms": 1e3 * float(np.quantile(took, 0.5)), "choice_p95_ms": 1e3 * float(np.quantile(took, 0.95))}


def _headline(found: dict[str, Any]) -> dict[str, Any]:
    keys = ("saving_at_95", "saving_low", "saving_high", "area", "area_random", "best_single")
    return {"dataset": list(found)} | {key: [figures[key] for figures in found.values()] for key in keys}


# Data sets.


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def _table(tiers: Sequence[str], rows: Sequence[tuple[str, str, Sequence[float], Sequence[float]]]) -> Any:
    """Args: rows: question, what keeps it with others, success and cost by tier. Tiers are put in the order of their mean cost."""
    from foreword.gateway.routing.table import Table

    cost_NK = np.array([row[3] for row in rows], dtype=np.float64)
    order = np.argsort(cost_NK.mean(axis=0), kind="stable")
    return Table(
        tiers=tuple(np.array(tiers)[order].tolist()),
        questions=tuple(row[0] for row in rows),
        groups=tuple(row[1].strip()[:LIKE] for row in rows),
        success_NK=np.array([row[2] for row in rows], dtype=np.float64)[:, order],
        cost_NK=cost_NK[:, order],
    )


def _routerbench(data: Path) -> Any:
    """Eleven models; a question is what stands behind the examples' last blank line, where there are examples."""
    rows = [row for row in _lines(data / "routerbench" / "train.jsonl.gz") if None not in row["score"].values()]
    tiers = tuple(rows[0]["score"])

    def parts(row: dict[str, Any]) -> tuple[str, str]:
        (prompt,) = ast.literal_eval(row["prompt"])
        return prompt, [part for part in prompt.split("\n\n") if part.strip()][-1][: LIKE // 2]

    return _table(tiers, [(*parts(row), [row["score"][tier] for tier in tiers], [row["cost"][tier] for tier in tiers]) for row in rows])


def _routellm(data: Path) -> Any:
    """Mixtral 8x7B and GPT-4 on MMLU. Answers are one token, and its price is counted in with four more of the chat's form."""
    prices = json.loads((data / "routerarena" / "cost.json").read_text(encoding="utf-8"))
    models = {"weak_mixtral_8x7b": "mistralai/mixtral-8x7b-instruct", "strong_gpt4_1106": "gpt-4-1106-preview"}
    rates = [prices[model]["input_token_price_per_million"] for model in models.values()]
    rows = []
    for row in _lines(data / "routellm" / "mmlu_dev.jsonl.gz"):
        tokens = len(row["prompt"]) / CHARACTERS_PER_TOKEN + 5
        rows.append((row["prompt"], row["prompt"], [float(row[model]) for model in models], [tokens * rate for rate in rates]))
    return _table(tuple(models), rows)


def _llmrouter(data: Path) -> Any:
    """Nine models on mixed benchmarks."""
    prices = json.loads((data / "llmrouter" / "prices.json").read_text(encoding="utf-8"))
    rows = list(_lines(data / "llmrouter" / "train.jsonl.gz"))
    tiers = tuple(rows[0]["scores"])
    costs = [prices[tier]["input_price"] for tier in tiers]
    return _table(tiers, [(row["question"], row["question"], [row["scores"][tier] for tier in tiers], costs) for row in rows])


def _alpaca_eval(data: Path) -> Any:
    """GPT-3.5 and GPT-4 on open instructions, judged against GPT-4."""
    prices = json.loads((data / "routerarena" / "cost.json").read_text(encoding="utf-8"))
    models = {"gpt-3.5-turbo-1106": "gpt-3.5-turbo-1106", "gpt4_1106_preview": "gpt-4-1106-preview"}
    rows = []
    for row in _lines(data / "alpaca_eval" / "dev.jsonl.gz"):
        question = row["instruction"]
        costs = []
        for tier, model in models.items():
            rates = prices[model]["input_token_price_per_million"], prices[model]["output_token_price_per_million"]
            costs.append(len(question) * rates[0] + row["len"][tier] * rates[1])
        rows.append((question, question, [row["pref"][tier] for tier in models], costs))
    return _table(tuple(models), rows)


READERS: dict[str, Callable[[Path], Any]] = {
    "routerbench": _routerbench,
    "routellm": _routellm,
    "llmrouter": _llmrouter,
    "alpaca_eval": _alpaca_eval,
}


if __name__ == "__main__":
    sys.exit(main())

"""Whether prompts that fit real inputs are prompts that answer right: rank correlation of prompt fit with accuracy, over many variants.

python -m benchmarks.prompt_fit            about ten minutes on two cores
python -m benchmarks.prompt_fit --quick    about 40 s: few rows and eight variants of one task

Two classifications (domains of requests, CLINC150; customers' questions, BANKING77), 24 variants of a prompt for each. Accuracy is that of
the likeliest label on one half of the rows; fit is measured on the other: the surprise of the inputs (no label is used), and of the wanted
answers. The peer is what needs no model at all: the prompt's length. Figures are Spearman's correlation of the *negative* fit with
accuracy, so more is better, each with the percentile interval of a bootstrap over variants and rows together.

The variants are made by rule from a few hand-written pieces (wording, order, verbosity, a role, where the input stands, a wrong or an
unrelated instruction). None was chosen, left out or changed by looking at a figure.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command, prompt_tasks
from benchmarks.prompt_tasks import PromptTask

RESULT = Path(__file__).with_name("results") / "prompt_fit.json"
RESAMPLES = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is measured: rows for accuracy and for fit, tasks, and every how manieth variant."""

    rows: int
    inputs: int
    tasks: int
    every: int


FULL = Size(rows=100, inputs=60, tasks=2, every=1)
QUICK = Size(rows=20, inputs=10, tasks=1, every=3)

WORDINGS = {
    "domains": (
        "Say which area the request belongs to: {labels}.",
        "Which of these topics is the request about: {labels}?",
        "Classify the user's request as {labels}.",
        "Name the topic of the message. The topics are {labels}.",
    ),
    "banking": (
        "Say what the customer's question is about: {labels}.",
        "Which of these matters does the customer write about: {labels}?",
        "Classify the customer's message as {labels}.",
        "Name the subject of the message. The subjects are {labels}.",
    ),
}
ROLES = {
    "domains": "You are an assistant that sorts requests.",
    "banking": "You work at the help desk of a bank.",
}
VERBOSE = "Read the whole text carefully before you decide. Think of what the person wants, not only of the words. "
BRIEF = "Answer with one of them and nothing else."
WRONG = "Translate the text into French."
UNRELATED = "You are a pirate. Tell a story about the sea."
FRAMES = ("{{ text }}", "Text: {{ text }}\nLabel:", '"{{ text }}"\nWhat is this about?')


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, and writes the full run's result; returns the exit code."""
    return command.main("prompt_fit", __doc__, measure, arguments, full=FULL, quick=QUICK, less="one task, few rows", result=RESULT)


def variants(task: PromptTask) -> list[tuple[str, str, str]]:
    """24 prompts as (name, system message, user message)."""
    labels = ", ".join(task.labels[:-1]) + f" or {task.labels[-1]}"
    other = ", ".join(task.labels[:0:-1]) + f" or {task.labels[0]}"
    plain = [wording.format(labels=labels) for wording in WORDINGS[task.name]]
    found = [
        (f"wording {number}, frame {frame}", text, FRAMES[frame]) for (number, text), frame in itertools.product(enumerate(plain), range(3))
    ]
    first = plain[0]
    found += [
        ("role", f"{ROLES[task.name]} {first}", FRAMES[0]),
        ("verbose", f"{VERBOSE}{first}", FRAMES[0]),
        ("brief", f"{first} {BRIEF}", FRAMES[0]),
        ("role, verbose, brief", f"{ROLES[task.name]} {VERBOSE}{first} {BRIEF}", FRAMES[0]),
        ("labels in the other order", WORDINGS[task.name][0].format(labels=other), FRAMES[0]),
        ("instruction after the text", "", "{{ text }}\n" + first),
        ("instruction before the text", "", first + "\n{{ text }}"),
        ("no labels", "Classify the text.", FRAMES[0]),
        ("nothing", "", FRAMES[0]),
        ("nothing, framed", "", FRAMES[1]),
        ("wrong", WRONG, FRAMES[0]),
        ("unrelated", UNRELATED, FRAMES[0]),
    ]
    return found


def measure(data: Path, size: Size) -> Iterator[dict[str, Any]]:
    """All figures so far, after each task."""
    from foreword import api

    engine: Any = api.load("smollm2", dtype="bfloat16").engine
    figures: dict[str, Any] = {}
    tasks = (
        prompt_tasks.domains(data, train=size.inputs, dev=size.rows, held_out=0, seed=0),
        prompt_tasks.banking(data, train=size.inputs, dev=size.rows, seed=0),
    )
    for task in tasks[: size.tasks]:
        figures[task.name] = _task_figures(engine, task, size)
        yield {"variants": min(len(figures[name]["prompts"]) for name in figures), **_headline(figures), **figures}


def _headline(figures: dict[str, Any]) -> dict[str, Any]:
    return {f"{key}_{name}": found[key] for name, found in figures.items() for key in ("spearman_input", "spearman_output")}


def _task_figures(engine: Any, task: PromptTask, size: Size) -> dict[str, Any]:
    from foreword.prompting import fit, judging, strategy
    from foreword.prompting.label_model import LabelModel
    from foreword.prompting.template import build

    judge = judging.StrategyJudge(LabelModel(engine, task.labels), judging.equals)
    prompts, right, input_nll, output_nll = [], [], [], []
    inputs, outputs = [row.prompt for row in task.train], [row.completions[0] for row in task.train]
    took_fit = took_accuracy = 0.0
    for number, (name, system, user) in enumerate(variants(task)[:: size.every]):
        messages = [{"role": "system", "content": system}] if system else []
        template = build({"name": f"variant-{number}", "messages": [*messages, {"role": "user", "content": user}]}, source=name)
        began = time.perf_counter()
        (found,) = fit.fit(engine, [template], inputs, outputs)
        took_fit += time.perf_counter() - began
        began = time.perf_counter()
        judged = asyncio.run(judge.evaluate(template, strategy.get("zero-shot"), task.dev))
        took_accuracy += time.perf_counter() - began
        right.append([one.success for one in judged])
        input_nll.append(found.per_input)
        output_nll.append(found.per_output)
        accuracy = sum(right[-1]) / len(right[-1])
        prompts.append(
            {"name": name, "accuracy": accuracy, "input_nll": found.input_nll, "output_nll": found.output_nll, "tokens": found.tokens}
        )
        sys.stderr.write(f"{task.name}, {name}: accuracy {accuracy:.2f}, input {found.input_nll:.3f}, output {found.output_nll:.3f}\n")
    right_VR = np.array(right, dtype=float)
    length_V1 = np.array([[one["tokens"]] for one in prompts], dtype=float)
    correlations = {
        "spearman_input": _correlation(np.array(input_nll), right_VR),
        "spearman_output": _correlation(np.array(output_nll), right_VR),
        "spearman_length": _correlation(length_V1, right_VR),
    }
    accuracies = [one["accuracy"] for one in prompts]
    by = {key: prompts[int(np.argmin([one[key] for one in prompts]))]["accuracy"] for key in ("input_nll", "output_nll")}
    return {
        **correlations,
        "accuracy_of_the_best_fit": {"by_inputs": by["input_nll"], "by_outputs": by["output_nll"]},
        "accuracy_mean_and_best": [float(np.mean(accuracies)), max(accuracies)],
        "seconds": {"fit": took_fit, "accuracy": took_accuracy},
        "rows": len(task.dev),
        "inputs": len(task.train),
        "prompts": prompts,
    }


def _correlation(nll_VI: np.ndarray, right_VR: np.ndarray) -> dict[str, Any]:
    """Spearman's correlation over variants (V) of lower surprise and higher accuracy, with its interval; inputs I, rows R."""
    draw = np.random.default_rng(0)
    found = []
    for _ in range(RESAMPLES):
        variants_V = draw.integers(0, len(nll_VI), len(nll_VI))
        inputs, rows = draw.integers(0, nll_VI.shape[1], nll_VI.shape[1]), draw.integers(0, right_VR.shape[1], right_VR.shape[1])
        found.append(spearman(-nll_VI[variants_V][:, inputs].mean(axis=1), right_VR[variants_V][:, rows].mean(axis=1)))
    known = [one for one in found if not math.isnan(one)]
    value = spearman(-nll_VI.mean(axis=1), right_VR.mean(axis=1))
    if math.isnan(value) or not known:
        return {"value": None, "interval": None}
    low, high = np.quantile(known, [0.025, 0.975])
    return {"value": value, "interval": [float(low), float(high)]}


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Correlation of ranks, equal values sharing theirs; NaN where one of the two is constant."""
    ranks = [_ranks(values) for values in (first, second)]
    if any(np.ptp(one) == 0 for one in ranks):
        return float("nan")
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts - 1) / 2)[place]


if __name__ == "__main__":
    sys.exit(main())

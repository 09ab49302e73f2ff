"""A tiny model and a tiny task for the contenders, in this process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from foreword import registry
from foreword.data.dataset import Dataset
from foreword.evaluate.contender import Context
from foreword.evaluate.task import SuccessRule, Task, make_task
from foreword.types import Example, Message

MakeContext = Callable[..., Context]


def place(number: int) -> Example:
    """One input with two references."""
    food = "Chinese" if number % 2 else "Thai"
    turn = Message(role="user", content=f"name[Place {number}], food[{food}]")
    return Example(messages=(turn,), completions=(f"Place {number} serves {food} food.", f"Eat {food} at Place {number}."), line=number)


def support(number: int) -> Example:
    """One labelled text."""
    text, label = (f"my invoice {number} is wrong", "billing") if number % 2 else (f"I cannot log in, case {number}", "login")
    return Example(messages=(Message(role="user", content=text),), completions=(label,), line=number)


@pytest.fixture(scope="session")
def generation_task() -> Task:
    return make_task(
        "places",
        train=Dataset.of([place(number) for number in range(20)]),
        dev=Dataset.of([place(number) for number in range(20, 24)]),
        instruction="Describe the place.",
        scorers=["exact-match", "perplexity"],
        primary="perplexity",
        success=SuccessRule(scorer="exact-match", at_least=1),
        max_new_tokens=6,
    )


@pytest.fixture(scope="session")
def classification_task() -> Task:
    labels = ("billing", "login")
    return make_task(
        "support",
        train=Dataset.of([support(number) for number in range(20)], labels=labels),
        dev=Dataset.of([support(number) for number in range(20, 24)], labels=labels),
        instruction="Name the queue.",
        scorers=["accuracy", "label-likelihood-calibrated"],
        primary="accuracy",
    )


@pytest.fixture
def make_context(tiny_model_folder: Any, generation_task: Task, tmp_path: Path) -> MakeContext:
    """`make_context(argument=…, family=…, dtype=…, budget_seconds=…)`: a freshly loaded engine each time."""

    def make(
        *,
        argument: str | None = None,
        family: str = "llama",
        dtype: str = "float32",
        budget_seconds: float = 0.2,
        seed: int = 0,
        task: Task = generation_task,
        stages: list[str] | None = None,
        store_root: Path | None = None,
    ) -> Context:
        scratch = tmp_path / f"scratch-{len(list(tmp_path.iterdir()))}"
        scratch.mkdir()
        engine = registry.find("foreword.engines", "transformers").load(str(tiny_model_folder(family)), dtype=dtype, device="cpu")
        told: list[str] = [] if stages is None else stages
        return Context(
            engine=engine,
            task=task,
            argument=argument,
            budget_seconds=budget_seconds,
            seed=seed,
            clock="wall",
            store_root=store_root,
            scratch=scratch,
            report=told.append,
        )

    return make


@pytest.fixture(scope="session")
def mean_log_prob() -> Callable[..., float]:
    """Mean log-probability of the training answers under what a contender prepared."""

    def measure(prepared: Any, examples: Sequence[Example]) -> float:
        import torch

        from foreword.engine import Row

        engine, prefix = prepared.engine, prepared.prefix
        tensors = (None, None) if prefix is None else (prefix.keys(engine.dtype), prefix.values(engine.dtype))
        prompt_format = "full" if prefix is None else prefix.header.prompt_format
        rows = [
            Row(
                prompt=engine.render(prepared.conversations(example), prompt_format=prompt_format),
                targets=tuple(engine.answer_ids(text) for text in example.completions),
            )
            for example in examples
        ]
        with torch.inference_mode():
            return float(engine.target_log_probs(rows, *tensors).mean())

    return measure

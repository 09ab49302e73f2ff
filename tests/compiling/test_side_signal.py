"""A dictionary beside the prompt: its gate in closed form, and one that learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from foreword.api import load
from foreword.compiling import side_signal
from foreword.compiling.compilers import dictionary
from foreword.errors import ConfigError

ENTRIES = {"animal": "a living being", "gate": "a movable barrier", "mill": "a machine that grinds"}


@pytest.fixture(scope="module")
def engine(tiny_model_folder: Any) -> Any:
    return load(str(tiny_model_folder("llama")), dtype="float32").engine


def compiled(engine: Any) -> Any:
    return dictionary.compile_source(engine, "".join(f"{word}: {definition}\n" for word, definition in ENTRIES.items()), name="words")


def gate(engine: Any, value: float) -> torch.Tensor:
    return torch.full((engine.geometry.layers, engine.query_heads), value)


def lessons(engine: Any) -> list[side_signal.Lesson]:
    questions = [(f"What is a {word}?", definition) for word, definition in ENTRIES.items()]
    return [side_signal.lesson(engine, compiled(engine), questions)]


def loss(engine: Any, lesson: side_signal.Lesson, gate_LQ: torch.Tensor) -> float:
    with torch.inference_mode():
        return float(-engine.target_log_probs_beside(lesson.rows, lesson.side.gated(gate_LQ)).mean())


def test_a_gate_in_closed_form(engine: Any):
    found = side_signal.gate_of_shares(engine, lessons(engine) * 2)
    once = engine.shares_beside(lessons(engine)[0].rows, lessons(engine)[0].side).fitted_LQ
    torch.testing.assert_close(found, once, atol=1e-5, rtol=1e-5)


def test_a_gate_learns_and_the_same_seed_gives_the_same(engine: Any):
    taught = lessons(engine)
    start_LQ = gate(engine, 0.1)
    first, again = (side_signal.learned_gate(engine, taught, start_LQ, steps=12, batch=2, learning_rate=0.1, seed=4) for _ in range(2))
    assert torch.equal(first, again) and not first.requires_grad and first.shape == start_LQ.shape
    assert loss(engine, taught[0], first) < loss(engine, taught[0], start_LQ) - 0.05
    assert torch.equal(start_LQ, gate(engine, 0.1))


def test_questions_stand_alone_in_a_lesson(engine: Any):
    (lesson,) = lessons(engine)
    assert len(lesson.rows) == len(ENTRIES)
    assert engine.tokenizer.decode(lesson.rows[1].prompt).startswith("<s>")
    assert lesson.rows[1].targets == (engine.answer_ids("a movable barrier"),)


def test_nothing_to_learn_from(engine: Any):
    for bad in ([], [side_signal.lesson(engine, compiled(engine), [])]):
        with pytest.raises(ConfigError, match="Give at least one lesson with a row"):
            side_signal.learned_gate(engine, bad, gate(engine, 0.0))
        with pytest.raises(ConfigError, match="Give at least one lesson with a row"):
            side_signal.gate_of_shares(engine, bad)

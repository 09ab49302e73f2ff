"""The model that chooses: likeliest label, calls together, shared tokens once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from counting_engine import CountingEngine
from foreword.errors import ConfigError, ForewordError, WindowError
from foreword.prompting.label_model import LabelModel
from foreword.types import Completion, Message, Sampling

SEEN = "<assistant> cat <end> <assistant> cat <end> <assistant> dog <end>"


def asked(model: LabelModel, *texts: str, system: str = "") -> list[Completion]:
    before = [Message(role="system", content=system)] if system else []

    async def all_at_once() -> list[Completion]:
        return await asyncio.gather(*(model.answer([*before, Message(role="user", content=text)], Sampling()) for text in texts))

    return asyncio.run(all_at_once())


def test_the_likeliest_label_is_the_answer():
    engine = CountingEngine(SEEN)
    (found,) = asked(LabelModel(engine, ["dog", "cat"]), "which?")
    assert found.text == "cat" and found.finish_reason == "stop"
    assert found.usage.prompt_tokens == 3 and found.usage.completion_tokens == 2


def test_calls_at_once_are_scored_together_and_share_what_they_begin_with():
    engine = CountingEngine(SEEN)
    found = asked(LabelModel(engine, ["dog", "cat"]), *(f"number {index}" for index in range(40)), system="long " * 300)
    assert len(found) == 40 and len(engine.fed) == 1 and engine.fed[0] < 1000
    assert all(one.usage.prompt_tokens == 305 for one in found)


def test_more_than_fit_at_once():
    engine = CountingEngine(SEEN)
    model = LabelModel(engine, ["dog", "cat"])
    assert len(asked(model, *map(str, range(150)))) == 150 and len(engine.fed) == 3
    assert len(asked(model, "again")) == 1, "it can be asked from another loop"


def test_equal_and_nested_prompts():
    model = LabelModel(CountingEngine(SEEN), ["dog", "cat"])
    found = asked(model, "a", "a", "a b c d e f g h i j k l m n o p q r s t", "a b c d e f g h i j k l m n o p q r s")
    assert [one.text for one in found] == ["cat"] * 4


def test_too_long_for_the_window():
    with pytest.raises(WindowError, match="12 prompt tokens and a label of 2"):
        asked(LabelModel(CountingEngine(SEEN, window=13), ["dog", "cat"]), "a " * 10)


def test_one_label_is_no_choice():
    with pytest.raises(ConfigError, match="two labels"):
        LabelModel(CountingEngine(SEEN), ["dog", "dog"])


def test_an_engine_that_fails_tells_everyone_who_waits():
    class Failing(CountingEngine):
        def log_probs(self, rows: Any, **options: Any) -> Any:
            raise ForewordError("out of order")

    async def both() -> list[Any]:
        model = LabelModel(Failing(SEEN), ["dog", "cat"])
        calls = [model.answer([Message(role="user", content=text)], Sampling()) for text in "ab"]
        found = await asyncio.gather(*calls, return_exceptions=True)
        await model.close()
        return found

    assert [str(error) for error in asyncio.run(both())] == ["out of order"] * 2


def test_the_same_as_the_engine_s_own_scores(tiny_model_folder: Any):
    from foreword.engines.transformers import load

    engine = load(str(tiny_model_folder("llama")), dtype="float32")
    labels, system = ["yes", "no", "it depends"], "Answer with one word, and do not explain it to anybody who asks you."
    texts = [f"Is {number} odd?" for number in range(6)]
    conversations = [(Message(role="system", content=system), Message(role="user", content=text)) for text in texts]
    wanted = [labels[max(range(3), key=row.__getitem__)] for row in engine.score_labels(conversations, labels)]
    assert [one.text for one in asked(LabelModel(engine, labels), *texts, system=system)] == wanted

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from foreword.data.dataset import Dataset
from foreword.errors import PrefixMismatch, StoreError
from foreword.evaluate.contenders import prefix, zero_shot
from foreword.prefix.store import PrefixStore
from foreword.types import Message, Sampling


def store_with_text(context, root: Path, *, name: str = "places"):
    """A store with the exact prefix of the instruction."""
    from foreword.prefix.artifact import Prefix

    engine = context.engine
    key_LHND, value_LHND = engine.read(engine.render_context((Message(role="system", content=context.task.instruction),)))
    made = Prefix.make(
        name=name,
        kind="text",
        key_LHND=key_LHND,
        value_LHND=value_LHND,
        fingerprint=engine.fingerprint,
        geometry=engine.geometry,
        prompt_format="continuation",
        training_data=context.task.train.sha256,
        recipe={"seconds": 12.5},
    )
    return PrefixStore(root).publish(made)


def test_a_stored_prefix_stands_for_the_instruction(make_context, tmp_path: Path) -> None:
    root = tmp_path / "store"
    reference = store_with_text(make_context(), root)
    context = make_context(argument="places", store_root=root)
    prepared = prefix.prepare(context)
    example = context.task.dev.examples[0]
    assert prepared.conversations(example) == example.messages
    assert prepared.prefix is not None
    assert prepared.training_seconds == 12.5
    assert prepared.artifact_bytes == reference.path.stat().st_size
    assert prepared.trained_parameters == 0, "a text's own keys and values were not trained"
    assert not any("other rows" in note for note in prepared.notes)


def test_a_prefix_of_the_instruction_answers_as_the_instruction_does(make_context, tmp_path: Path) -> None:
    root = tmp_path / "store"
    store_with_text(make_context(), root)
    context = make_context(argument="places@v1", store_root=root)
    prepared = prefix.prepare(context)
    example = context.task.dev.examples[0]
    spoken = (Message(role="system", content=context.task.instruction or ""), *example.messages)
    sampling = Sampling(max_new_tokens=6)
    with_prefix = context.engine.generate([prepared.conversations(example)], prefix=prepared.prefix, sampling=sampling)[0]
    with_text = context.engine.generate([spoken], sampling=sampling)[0]
    assert with_prefix.token_ids == with_text.token_ids
    assert with_prefix.usage.prompt_positions == with_text.usage.prompt_positions


def test_a_prefix_trained_on_other_rows_says_so(make_context, tmp_path: Path) -> None:
    root = tmp_path / "store"
    store_with_text(make_context(), root)
    context = make_context(argument="places", store_root=root)
    fewer = dataclasses.replace(context.task, train=Dataset.of(context.task.train.examples[:5]))
    prepared = prefix.prepare(dataclasses.replace(context, task=fewer))
    assert "trained on other rows than the rest of the table" in prepared.notes


def test_a_prefix_of_another_model_or_of_no_one_is_refused(make_context, tmp_path: Path) -> None:
    root = tmp_path / "store"
    store_with_text(make_context(), root)
    with pytest.raises(PrefixMismatch):
        prefix.prepare(make_context(argument="places", family="qwen3", store_root=root))
    with pytest.raises(StoreError, match="elsewhere"):
        prefix.prepare(make_context(argument="elsewhere", store_root=root))


def test_one_is_tuned_inside_the_budget(make_context, mean_log_prob) -> None:
    stages: list[str] = []
    context = make_context(budget_seconds=4.0, stages=stages)
    prepared = prefix.prepare(context)
    assert stages == ["tuning"]
    assert prepared.prefix is not None
    assert prepared.prefix.header.kind == "learned"
    assert prepared.prefix.header.instruction == context.task.instruction
    assert prepared.trained_parameters == prepared.prefix.parameters
    assert prepared.artifact_bytes > prepared.prefix.nbytes
    assert prepared.training_seconds > 0
    examples = context.task.train.examples
    assert mean_log_prob(prepared, examples) > mean_log_prob(zero_shot.prepare(context), examples)


def test_the_budget_may_be_processor_time(make_context) -> None:
    context = dataclasses.replace(make_context(budget_seconds=2.0), clock="cpu")
    before = context.now()
    prepared = prefix.prepare(context)
    assert 0 < prepared.training_seconds <= context.now() - before
    assert prepared.prefix is not None

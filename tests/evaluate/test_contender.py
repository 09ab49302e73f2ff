from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foreword import registry
from foreword.data.dataset import Dataset
from foreword.errors import ConfigError, EvaluationError, RegistryError
from foreword.evaluate.contender import (
    FOLDER,
    STRATEGY,
    balanced_sample,
    parse,
    split_for_selection,
    trains,
    with_instruction,
)
from foreword.types import Example, Message


def example(text: str, answer: str = "yes", *, system: str | None = None) -> Example:
    lead = (Message(role="system", content=system),) if system else ()
    return Example(messages=(*lead, Message(role="user", content=text)), completions=(answer,))


def test_a_name_and_what_stands_after_the_colon() -> None:
    entry = parse(" few-shot:8 ")
    assert (entry.spec, entry.key, entry.argument) == ("few-shot:8", "few-shot", "8")
    assert parse("prefix").argument is None
    assert parse("prefix:support@prod").argument == "support@prod"


@pytest.mark.parametrize("spec", ["few-shot:", "few-shot:x", "lora:8", "zero-shot:1", "finetune:x", "peft-prefix:1", "prefix: "])
def test_what_cannot_be_used_is_refused_before_anything_runs(spec: str) -> None:
    with pytest.raises(ConfigError):
        parse(spec)


@pytest.mark.parametrize(
    ("spec", "entry"),
    [
        ("cot", ("cot", "strategy", "cot")),
        (" self-consistency(n=3) ", ("self-consistency(n=3)", "strategy", "self-consistency(n=3)")),
        ("strategy:cot", ("cot", "strategy", "cot")),
        ("strategy:zero-shot", ("strategy:zero-shot", "strategy", "zero-shot")),
        ("zero-shot", ("zero-shot", "zero-shot", None)),
        ("few-shot", ("few-shot", "few-shot", None)),
        ('zero-shot(instruction="a: b")', ('zero-shot(instruction="a: b")', "strategy", 'zero-shot(instruction="a: b")')),
    ],
)
def test_a_strategy_is_a_contender_unless_one_has_its_name(spec: str, entry: tuple[str, str, str | None]) -> None:
    found = parse(spec)
    assert (found.spec, found.key, found.argument) == entry


@pytest.mark.parametrize("spec", ["cot(no_such=1)", "strategy:", "strategy", "strategy:cot(", "zero-shot(", "cot(1)"])
def test_a_strategy_that_cannot_be_used_is_refused_before_anything_runs(spec: str) -> None:
    with pytest.raises(ConfigError):
        parse(spec)


def test_training_and_prefixes_need_more_than_answers() -> None:
    able = {name: trains(registry.find(FOLDER, name)) for name in registry.names(FOLDER)}
    assert [name for name, needs in able.items() if not needs] == ["few-shot", "strategy", "zero-shot"]


def test_an_unknown_contender_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RegistryError, match=r"contenders.*few-shot.*Strategies: .*cot"):
        parse("magic")


@pytest.mark.parametrize("key", registry.names(FOLDER))
def test_every_contender_meets_the_contract(key: str) -> None:
    module = registry.find(FOLDER, key)
    assert callable(module.check)
    assert callable(module.prepare)
    assert isinstance(trains(module), bool)
    if key == STRATEGY:
        with pytest.raises(ConfigError, match="needs a strategy"):
            module.check(None)
    else:
        module.check(None)


def test_naming_contenders_loads_no_torch() -> None:
    code = (
        "import sys; from foreword import registry; from foreword.evaluate.contender import FOLDER, parse\n"
        "[parse(name) for name in registry.names(FOLDER) if name != 'strategy']; parse('cot'); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_instruction_is_the_system_turn_and_keeps_the_datas_own() -> None:
    bare = example("hi")
    assert with_instruction(None, bare) == bare.messages
    assert with_instruction("Answer.", bare)[0] == Message(role="system", content="Answer.")
    merged = with_instruction("Answer.", example("hi", system="You are kind."))
    assert [turn.role for turn in merged] == ["system", "user"]
    assert merged[0].content == "Answer.\n\nYou are kind."


@given(texts=st.lists(st.sampled_from("abcdefghij"), min_size=2, max_size=60), seed=st.integers(0, 5))
def test_selection_takes_whole_inputs_and_leaves_enough(texts: list[str], seed: int) -> None:
    train = Dataset.of([example(text, f"answer {number}") for number, text in enumerate(texts)])
    if len(set(texts)) < 2:
        with pytest.raises(EvaluationError, match="at least two different inputs"):
            split_for_selection(train, seed)
        return
    fit, selection = split_for_selection(train, seed)
    assert fit and selection
    assert sorted(row.completions[0] for row in (*fit, *selection)) == sorted(row.completions[0] for row in train)
    assert not {row.prompt for row in fit} & {row.prompt for row in selection}
    assert len({row.prompt for row in selection}) <= len(set(texts)) // 2
    assert (fit, selection) == split_for_selection(train, seed)


@given(sizes=st.lists(st.integers(1, 12), min_size=2, max_size=4), count=st.integers(1, 20), seed=st.integers(0, 5))
def test_a_balanced_sample_is_as_even_as_the_labels_allow(sizes: list[int], count: int, seed: int) -> None:
    labels = [f"label {number}" for number in range(len(sizes))]
    rows = [example(f"{label} {number}", label) for label, size in zip(labels, sizes, strict=True) for number in range(size)]
    if count > len(rows):
        with pytest.raises(EvaluationError, match="Ask for fewer"):
            balanced_sample(rows, count, labels=labels, seed=seed)
        return
    drawn = balanced_sample(rows, count, labels=labels, seed=seed)
    assert len(drawn) == len({row.prompt for row in drawn}) == count
    counts = Counter(row.completions[0] for row in drawn)
    unspent = [counts[label] for label, size in zip(labels, sizes, strict=True) if counts[label] < size]
    assert not unspent or max(counts.values()) <= min(unspent) + 1


def test_without_labels_the_sample_is_the_seeds() -> None:
    rows = [example(str(number)) for number in range(20)]
    assert balanced_sample(rows, 5, labels=None, seed=1) == balanced_sample(rows, 5, labels=None, seed=1)
    assert balanced_sample(rows, 5, labels=None, seed=1) != balanced_sample(rows, 5, labels=None, seed=2)

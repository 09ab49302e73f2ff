"""`few-shot:K`: instruction and examples as a conversation."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from foreword.errors import TuningError
from foreword.tuning.initialisations.few_shot import choose_shots, conversation, start
from foreword.types import Example, Message


def test_shots_are_balanced_over_labels(labelled):
    for seed in range(5):
        chosen = choose_shots(labelled, 6, seed)
        assert Counter(labelled.examples[index].completions[0] for index in chosen) == {"bad": 2, "good": 2, "mixed": 2}
        assert len(set(chosen)) == 6
    assert len({tuple(choose_shots(labelled, 6, seed)) for seed in range(5)}) > 1


def test_an_uneven_number_differs_by_one_at_most(labelled):
    counts = Counter(labelled.examples[index].completions[0] for index in choose_shots(labelled, 5, 0))
    assert sorted(counts.values()) == [1, 2, 2]


def test_shots_without_labels_are_distinct_and_short(texts):
    lengths = sorted(len(example.prompt) for example in texts)
    chosen = choose_shots(texts, 7, 3)
    assert len(set(chosen)) == 7 and all(len(texts.examples[index].prompt) <= lengths[len(lengths) // 2] for index in chosen)
    assert choose_shots(texts, 7, 3) == chosen != choose_shots(texts, 7, 4)


def test_without_a_wanted_length_it_is_the_conversation_itself(engine, context_for, texts):
    made = start(context_for(argument="2"))
    shots = choose_shots(texts, 2, 0)
    key_LHND, value_LHND = engine.read(engine.render_context(conversation(texts, shots, "Say it.")))
    assert torch.equal(made.key_LHND, key_LHND) and torch.equal(made.value_LHND, value_LHND)
    assert made.used == frozenset(shots) and made.prompt_format == "continuation"


def test_an_examples_own_system_message_gives_way_to_the_instruction(texts):
    turns = (Message(role="system", content="other"), Message(role="user", content="hi"), Message(role="assistant", content="ho"))
    data = texts.with_examples([Example(messages=(*turns, Message(role="user", content="hey")), completions=("yes", "no"))])
    said = [(message.role, message.content) for message in conversation(data, [0], "Say it.")]
    assert said == [("system", "Say it."), ("user", "hi"), ("assistant", "ho"), ("user", "hey"), ("assistant", "yes")]


@pytest.mark.parametrize("positions", [1, 7, 20])
def test_positions_are_exact_when_asked(context_for, positions):
    assert start(context_for(argument="2", positions=positions)).positions == positions


@pytest.mark.parametrize("argument", ["0", "1", None])
def test_it_grows_until_it_is_long_enough(context_for, argument):
    few = start(context_for(argument="1"))
    made = start(context_for(argument=argument, positions=few.positions + 40))
    assert made.positions == few.positions + 40 and len(made.used) > len(few.used)


def test_none_is_the_instruction_alone(engine, context_for):
    made = start(context_for(argument="0"))
    assert made.used == frozenset()
    assert made.positions == len(engine.render_context((Message(role="system", content="Say it."),)))


def test_the_longest_shots_give_way_when_room_is_short(context_for, texts):
    whole = start(context_for(argument="4"))
    tight = start(context_for(argument="4", room=whole.positions - 1))
    assert tight.used < whole.used and tight.positions < whole.positions
    (dropped,) = whole.used - tight.used
    assert len(texts.examples[dropped].prompt) == max(len(texts.examples[index].prompt) for index in whole.used)


def test_more_than_the_data_give_is_refused(context_for, texts):
    data = texts.with_examples(texts.examples[:3])
    with pytest.raises(TuningError, match="250 positions are wanted, but this start has"):
        start(context_for(argument="1", positions=250, train=data))


@pytest.mark.parametrize("argument", ["many", "-3", "1.5"])
def test_an_argument_that_is_no_number_is_refused(context_for, argument):
    with pytest.raises(TuningError, match=f"`few-shot:{argument}` needs a number of examples"):
        start(context_for(argument=argument))


def test_draws_differ_by_seed(context_for):
    one, same, other = (start(context_for(argument="3", seed=seed)) for seed in (0, 0, 1))
    assert torch.equal(one.key_LHND, same.key_LHND) and one.used != other.used

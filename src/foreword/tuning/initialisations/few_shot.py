"""`few-shot:K`: the keys and values of an instruction and K training examples as a conversation. The default."""

from __future__ import annotations

import random

from foreword.data.dataset import Dataset
from foreword.errors import TuningError
from foreword.tuning.fitting import fit_positions
from foreword.tuning.initialisation import Start, StartContext
from foreword.tuning.instruction import instruction_for
from foreword.types import Message

DEFAULT_SHOTS = 4


def start(context: StartContext) -> Start:
    """Keys and values of the conversation, fitted to the wanted number of positions.

    Examples that would not fit beside the longest prompt are left out, longest first.
    """
    if context.argument and not context.argument.isdecimal():
        raise TuningError(f"`few-shot:{context.argument}` needs a number of examples after the colon, e.g. `few-shot:4`.")
    shots = int(context.argument) if context.argument else DEFAULT_SHOTS
    instruction = instruction_for(context.train, context.instruction)

    def encode(indices: list[int]) -> tuple[int, ...]:
        return context.engine.render_context(conversation(context.train, indices, instruction))

    chosen = choose_shots(context.train, shots, context.seed)
    while context.positions and len(encode(chosen)) < context.positions and len(chosen) == shots:
        shots = max(1, 2 * shots)
        chosen = choose_shots(context.train, shots, context.seed)
    while chosen and len(encode(chosen)) > context.room:
        chosen.remove(max(chosen, key=lambda index: len(context.train.examples[index].prompt)))
    token_ids = encode(chosen)
    key_LHND, value_LHND = context.engine.read(token_ids[: context.room])
    start = Start(key_LHND=key_LHND, value_LHND=value_LHND, prompt_format="continuation", used=frozenset(chosen))
    return fit_positions(context, start)


def choose_shots(train: Dataset, shots: int, seed: int) -> list[int]:
    """Places of `shots` examples: every label in turn where there are labels; none longer than the median, which keeps the start short."""
    draw = random.Random(seed)
    order = list(range(len(train.examples)))
    draw.shuffle(order)
    lengths = sorted(len(example.prompt) for example in train.examples)
    longest = lengths[len(lengths) // 2]
    order = [index for index in order if len(train.examples[index].prompt) <= longest]
    if not train.labels:
        return order[:shots]
    by_label = {label: [index for index in order if train.examples[index].completions[0] == label] for label in train.labels}
    rounds = [[pool[place] for pool in by_label.values() if place < len(pool)] for place in range(shots)]
    for members in rounds:
        draw.shuffle(members)
    return [index for members in rounds for index in members][:shots]


def conversation(train: Dataset, shots: list[int], instruction: str) -> tuple[Message, ...]:
    """System message, then each example as a turn of the user and one of the assistant."""
    turns: list[Message] = [Message(role="system", content=instruction)]
    for index in shots:
        example = train.examples[index]
        turns += [message for message in example.messages if message.role != "system"]
        turns.append(Message(role="assistant", content=example.completions[0]))
    return tuple(turns)

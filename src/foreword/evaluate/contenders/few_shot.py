"""Few-shot: the instruction, K training examples as turns of the conversation, then the input.

Brown et al. 2020, "Language Models are Few-Shot Learners". For classification the examples are balanced over the labels.
"""

from __future__ import annotations

from collections.abc import Sequence

from foreword.engine import TakesPrefix
from foreword.errors import WindowError
from foreword.evaluate.contender import Context, Prepared, balanced_sample, count_argument, with_instruction
from foreword.types import Example, Message

DEFAULT_SHOTS = 8
TRAINS = False


def check(argument: str | None) -> None:
    """Raises ConfigError unless the argument is a whole number of at least 1."""
    count_argument("few-shot", argument, noun="examples", least=1)


def prepare(context: Context) -> Prepared:
    """Draws the examples; the same seed draws the same ones.

    Raises:
        EvaluationError: the training data has fewer rows than asked for.
        WindowError: the block and the longest dev input leave no room for an answer.
    """
    task = context.task
    count = int(context.argument) if context.argument else DEFAULT_SHOTS
    labels = task.labels if task.kind == "classification" else None
    shots = balanced_sample(list(task.train), count, labels=labels, seed=context.seed)

    def conversations(example: Example) -> tuple[Message, ...]:
        return _conversation(task.instruction, shots, example)

    if isinstance(context.engine, TakesPrefix):
        longest = max(len(context.engine.render(conversations(example))) for example in task.dev)
        if longest + task.max_new_tokens > context.engine.window:
            raise WindowError(
                f"{count} examples and the longest dev input take {longest} tokens; with {task.max_new_tokens} for the answer that is more "
                f"than the window of {context.engine.window}. Ask for fewer examples, e.g. `few-shot:{max(1, count // 2)}`."
            )
    return Prepared(engine=context.engine, conversations=conversations, notes=(f"{len(shots)} examples drawn with seed {context.seed}",))


def _conversation(instruction: str | None, shots: Sequence[Example], example: Example) -> tuple[Message, ...]:
    """The example's conversation with the shots between its system turn and the rest."""
    turns = with_instruction(instruction, example)
    system = [turn for turn in turns[:1] if turn.role == "system"]
    block = [
        turn
        for shot in shots
        for turn in (
            *(message for message in shot.messages if message.role != "system"),
            Message(role="assistant", content=shot.completions[0]),
        )
    ]
    return (*system, *block, *turns[len(system) :])

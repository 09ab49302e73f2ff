"""Self-study: what a prefix is trained on so that it says what the text would say (Cartridges, Eyuboglu et al. 2025, section 4).

The rows are those whose queries the prefix was fitted to: the text read again part by part, and the model's own questions and
answers. A few rows have nothing to do with the text; behind the prefix the model is to say to them what it says with nothing before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from foreword.compiling.divergence import teach
from foreword.engine import Row
from foreword.types import Message, Sampling

if TYPE_CHECKING:
    from torch import Tensor

    from foreword.compiling.compiler import CompilingEngine

UNRELATED_SHARE = 0.05
"""Of all rows (1 to 5 % in the paper)."""
_UNRELATED_TOKENS = 32
_UNRELATED = (
    "Write two sentences about the sea at night.",
    "How do I boil an egg?",
    "Name three animals that live in the desert.",
    "What is seven times eight?",
    "Translate 'good morning' into French.",
    "Why is the sky blue?",
    "Give me a short poem about autumn.",
    "What does a compiler do?",
    "Tell me a joke.",
    "How many days are there in a leap year?",
)


def taught_rows(
    engine: CompilingEngine, key_LHND: Tensor, value_LHND: Tensor, reading: Sequence[Row], asking: Sequence[Row]
) -> dict[Row, tuple[Tensor, Tensor]]:
    """The rows about a text and a few unrelated ones, each with what the model says to it behind the whole text, or behind nothing.

    Args:
        key_LHND, value_LHND: of the whole text.
        reading, asking: see `references.References`.
    """
    related = list(dict.fromkeys([*reading, *asking]))
    count = min(len(_UNRELATED), max(1, round(UNRELATED_SHARE * len(related))))
    return teach(engine, related, key_LHND, value_LHND) | _unrelated(engine, _UNRELATED[:count])


def _unrelated(engine: CompilingEngine, requests: Sequence[str]) -> dict[Row, tuple[Tensor, Tensor]]:
    """The teacher sees the whole conversation and no prefix; the student sees the prefix and what follows the start of a conversation."""
    conversations = [(Message(role="user", content=request),) for request in requests]
    answers = engine.generate(conversations, sampling=Sampling(max_new_tokens=_UNRELATED_TOKENS))
    said = [answer.token_ids or engine.answer_ids("") for answer in answers]
    alone = [Row(prompt=engine.render(turn), targets=(ids,)) for turn, ids in zip(conversations, said, strict=True)]
    behind = [
        Row(prompt=engine.render(turn, prompt_format="continuation"), targets=(ids,)) for turn, ids in zip(conversations, said, strict=True)
    ]
    taught = teach(engine, alone, None, None)
    return {student: taught[teacher] for student, teacher in zip(behind, alone, strict=True)}

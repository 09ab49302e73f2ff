"""What an optimiser may change of a prompt, as texts by name: its instruction, its examples, and the strategy that asks with it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from foreword.errors import ForewordError
from foreword.prompting import inputs, sandbox, strategy
from foreword.prompting.strategy import Strategy
from foreword.prompting.template import Shot, Template, Turn, build
from foreword.types import Example

INSTRUCTION, EXAMPLES, STRATEGY = "instruction", "examples", "strategy"

Candidate = dict[str, str]
"""Texts by what they are: `instruction`, `examples` (a JSON list of places in the pool) and, where there is a choice, `strategy`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """All prompts that can be made of one.

    Attributes:
        hand: the prompt to start from.
        pool: examples to choose from: the prompt's own first.
        strategies: as texts; the first is the one to start with.
        most_examples: that a prompt may have.
    """

    hand: Template
    pool: tuple[Shot, ...]
    strategies: tuple[str, ...]
    most_examples: int

    @property
    def start(self) -> Candidate:
        """The prompt as it is."""
        candidate = {EXAMPLES: json.dumps(list(range(len(self.hand.examples)))), INSTRUCTION: self.instruction}
        return candidate | ({STRATEGY: self.strategies[0]} if len(self.strategies) > 1 else {})

    @property
    def instruction(self) -> str:
        """The first system message; empty where there is none."""
        return next((turn.content for turn in self.hand.messages if turn.role == "system"), "")

    def template(self, candidate: Mapping[str, str]) -> Template:
        """The prompt that a candidate is. Raises `DataError` where it is none."""
        place = next((number for number, turn in enumerate(self.hand.messages) if turn.role == "system"), None)
        messages = list(self.hand.messages)
        if place is not None:
            messages[place : place + 1] = _system(candidate[INSTRUCTION])
        else:
            messages[:0] = _system(candidate[INSTRUCTION])
        fields = self.hand.model_dump() | {
            "messages": [turn.model_dump() for turn in messages],
            "examples": [self.pool[index].model_dump() for index in chosen(candidate)],
            "evidence": None,
        }
        return build(fields, source="the candidate")

    def strategy(self, candidate: Mapping[str, str]) -> Strategy:
        """How a candidate is asked."""
        return strategy.parse(candidate.get(STRATEGY, self.strategies[0]))

    def allows(self, candidate: Mapping[str, str]) -> bool:
        """Whether a candidate is a prompt that can stand in the first one's place: sound, and with the same variables."""
        try:
            same = sandbox.variables(candidate[INSTRUCTION]) == sandbox.variables(self.instruction)
            examples = chosen(candidate)
            self.template(candidate)
            self.strategy(candidate)
        except (ForewordError, sandbox.TemplateError):
            return False
        return same and len(examples) <= max(self.most_examples, len(self.hand.examples)) and len(set(examples)) == len(examples)

    def key(self, candidate: Mapping[str, str]) -> str:
        """A name for what the model is given, the same for equal prompts and strategies."""
        return key_of(self.template(candidate), self.strategy(candidate))


def key_of(template: Template, asked: Strategy) -> str:
    """A name for a prompt and how it is asked, whatever the prompt is called and whatever is known of it."""
    told = [template.model_dump(mode="json", exclude={"name", "evidence"}), str(asked)]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:32]


def space(
    hand: Template, examples: Sequence[Example], *, strategies: Sequence[str], most_examples: int, variable: str | None = None
) -> Space:
    """All prompts that can be made of `hand` with these rows as examples. Raises as `strategy.parse` and `inputs.input_variable`."""
    for text in strategies:
        strategy.parse(text)
    place = inputs.input_variable(hand, variable)
    shots = [inputs.shot_of(hand, example, variable=place) for example in examples]
    pool = (*hand.examples, *(shot for shot in dict.fromkeys(shots) if shot not in hand.examples))
    return Space(hand=hand, pool=pool, strategies=tuple(strategies), most_examples=most_examples)


def chosen(candidate: Mapping[str, str]) -> list[int]:
    """Which of the pool's examples a candidate has, in order."""
    return json.loads(candidate[EXAMPLES])


def _system(text: str) -> list[Turn]:
    return [Turn(role="system", content=text)] if text.strip() else []
